"""A network without a run: its arrays as one orbax checkpoint, of an export."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from icre_jax.engine.checkpoint.quiet import NOT_DAMAGE, quiet_orbax, reason_of
from icre_jax.engine.checkpoint.shapes import require_shapes
from icre_jax.errors import InputError

# Beyond the arrays themselves: metadata.
_SPARE_BYTES = 16 * 2**20


def write_variables(folder: Path, variables: dict[str, Any]) -> None:
    """Write {"params", "batch_stats"} as one orbax checkpoint that needs nothing of ours to be read."""
    with ocp.StandardCheckpointer() as writer:
        writer.save(folder.resolve(), variables)


def read_variables(folder: Path, like: dict[str, Any] | None = None) -> dict[str, Any]:
    """What `write_variables` wrote.

    Args:
      folder: that was written.
      like: shapes, types and shardings to restore to. Size, names and shapes of what is there are compared with them
        before any array is read. None takes it as it is.

    Raises:
      InputError: it is damaged, or of another network than `like`.
    """
    folder = folder.resolve()
    damaged = "Export the run again, or take another copy."
    if like is not None:
        largest = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like)) + _SPARE_BYTES
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if size > largest:
            raise InputError(
                f"{folder} holds {size:,} bytes, and this network has at most {largest:,}: it is of another network "
                "than its config.json. Take both from one export."
            )
    try:
        with quiet_orbax(), ocp.StandardCheckpointer() as reader:
            if like is None:
                return reader.restore(folder)
            if not (folder / "_METADATA").is_file():  # orbax would take it for a network without arrays
                raise FileNotFoundError("it has no _METADATA")
            saved = reader.metadata(folder).item_metadata
            saved = saved.tree if hasattr(saved, "tree") else saved
            require_shapes(str(folder), saved, like, "Take it and its config.json from one export.")
            return reader.restore(folder, like)
    except NOT_DAMAGE:
        raise
    except Exception as error:  # garbled compression raises nothing more special
        raise InputError(f"{folder} is no network, or a damaged one: {reason_of(error)}. {damaged}") from error
