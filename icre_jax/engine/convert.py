"""Weights between published files (safetensors) and orbax checkpoints; what was written is read back and compared."""

import contextlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.checkpoint.following import read_checkpoint
from icre_jax.engine.pretrained import read_backbone, write_backbone
from icre_jax.engine.stored import CONFIG, read_stored
from icre_jax.errors import InputError
from icre_jax.files import new_folder
from icre_jax.models.resnet import NUM_BLOCKS, DualStreamResNet
from icre_jax.settings import IN_THE_BOX
from icre_jax.sums import hash_file

DEPTHS = tuple(NUM_BLOCKS)  # of a backbone


def import_weights(file: Path, out: Path, *, depth: int = 50, width: int = 64, specific_until: str = "stem") -> None:
    """Make an orbax checkpoint (step 0) of our backbone from a published ResNet.

    It holds {"params": {"backbone"}, "batch_stats": {"backbone"}} and the facts depth, width, specific_until, source
    and source_sha256.

    Args:
      file: as in `icre_jax.engine.pretrained.read_backbone`.
      out: a new folder; it appears when it is complete.
      depth, width, specific_until: of the backbone, see `DualStreamResNet`.

    Raises:
      InputError: the file does not fit, or `out` exists or cannot be written.
    """
    if out.exists():
        raise InputError(f"{out} exists already. Choose another --out or delete it.")
    backbone = DualStreamResNet(depth=depth, width=width, specific_until=specific_until)
    like = jax.eval_shape(
        lambda: backbone.init(jax.random.key(0), jnp.zeros((2, 32, 32, 3)), modality="paired", train=False)
    )
    loaded = read_backbone(file, like)
    variables = {name: {"backbone": tree} for name, tree in loaded.items()}
    facts = {
        "depth": depth,
        "width": width,
        "specific_until": specific_until,
        "source": file.name,
        "source_sha256": hash_file(file),
    }
    try:
        with new_folder(out) as partial:
            with contextlib.closing(Checkpoints(partial)) as checkpoints:
                checkpoints.save_variables(0, variables, facts)
            with contextlib.closing(Checkpoints(partial, read_only=True)) as checkpoints:
                same = checkpoints.read_facts(0) == facts and _same(variables, checkpoints.read_variables(0))
            if not same:
                raise InputError(f"{out} did not read back as it was written; nothing was kept. Is the disk sound?")
    except OSError as error:
        raise InputError(f"Cannot write {out}: {error}. Choose another --out.") from error


def export_weights(
    workdir: str | Path, file: Path, *, step: int | None = None, stem: str | None = None
) -> tuple[int, int]:
    """Write the backbone of a trained network as torchvision would name it.

    Args:
      workdir: of a run, an export, the name of a network in the box (a string), or a folder that `import_weights` made.
      file: a new file.
      step: which checkpoint; None for the latest.
      stem: see `icre_jax.engine.pretrained.write_backbone`.

    Returns:
      The step, and the number of arrays written.

    Raises:
      InputError: no such checkpoint, or as `write_backbone`.
    """
    if workdir in IN_THE_BOX or (
        ((folder := Path(workdir)) / CONFIG).is_file() and not (folder / "checkpoints").exists()
    ):
        stored = read_stored(workdir, step=step)
        chosen, variables = stored.step, stored.variables
    else:
        chosen, variables = read_checkpoint(
            Path(workdir), step, lambda found, number: (number, found.read_variables(number))
        )
    backbone = {name: tree["backbone"] for name, tree in variables.items()}
    return chosen, write_backbone(file, backbone, stem=stem)


def _same(expected: Any, actual: Any) -> bool:
    """Equal names, types, shapes and bits."""

    def described(tree: Any) -> list[Any]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return [(path, leaf.dtype, leaf.shape, leaf.tobytes()) for path, leaf in leaves]

    return described(expected) == described(actual)
