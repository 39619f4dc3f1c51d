"""Take a trained network away: `python -m icre_jax.export --workdir DIR --out DIR2 [--checkpoint STEP]`.

DIR2 holds variables/ (an orbax checkpoint of parameters and BatchNorm statistics), config.json and classes.json (the
identity of each class). What was written is read back, and must embed real pictures to the same bits, before the folder
appears.
"""

import argparse
import itertools
import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax import command
from icre_jax.checkpoint import read_variables, write_variables
from icre_jax.compile_cache import keep_compiled_programs
from icre_jax.data.images import decode
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.prepared import PreparedDataset
from icre_jax.data.records import MODALITIES
from icre_jax.errors import InputError
from icre_jax.runlog import Screen, open_console
from icre_jax.settings import to_json
from icre_jax.steps import embed_step
from icre_jax.trained import Trained, open_trained

NUM_COMPARED = 16  # pictures of each modality


def export(workdir: Path, out: Path, *, step: int | None, screen: Screen) -> Trained:
    """Write one checkpoint of a run as a folder of its own.

    Args:
      workdir: of the run.
      out: a new folder; it appears when it is complete and was compared.
      step: which checkpoint; None for the latest.
      screen: where progress goes.

    Returns:
      What was exported.

    Raises:
      InputError: as `open_trained`; `out` exists or cannot be written; or what was written gives other embeddings.
    """
    if out.exists():
        raise InputError(f"{out} exists already. Choose another --out or delete it.")
    trained = open_trained(workdir, step=step, screen=screen)
    partial = out.with_name(f".{out.name}-{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        (partial / "config.json").write_text(to_json(trained.settings), encoding="utf-8")
        facts = {"class_pids": trained.class_pids, "step": trained.step}
        (partial / "classes.json").write_text(json.dumps(facts), encoding="utf-8")
        write_variables(partial / "variables", trained.variables)
        _require_equal_embeddings(trained, read_variables(partial / "variables"))
        partial.rename(out)
    except OSError as error:
        raise InputError(f"Cannot write {out}: {error}. Free space, or choose another --out.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return trained


def _require_equal_embeddings(trained: Trained, again: dict[str, Any]) -> None:
    for modality, images in first_pictures(trained.prepared, trained.settings.data.image_size).items():
        embed = {"network": trained.network, "modality": modality}
        expected, actual = (np.asarray(embed_step(v, images, **embed)) for v in (trained.variables, again))
        if actual.tobytes() != expected.tobytes():
            raise InputError(
                f"What was written embeds {modality} pictures differently (by up to "
                f"{np.abs(actual - expected).max()}); nothing was kept. Is the disk sound?"
            )


def first_pictures(prepared: PreparedDataset, image_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The first test pictures of each modality, [B, H, W, 3] uint8."""
    pictures: dict[str, np.ndarray] = {}
    for split in ("query", "gallery"):
        source = RecordSource(prepared, (split,))
        rows = itertools.islice(range(len(source.index)), NUM_COMPARED)
        images = np.stack([decode(source.image_bytes(row), image_size) for row in rows])
        pictures[MODALITIES[source.index.modality[0]]] = images
    return pictures


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m icre_jax.export", description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True, type=Path, help="work folder of a run")
    parser.add_argument("--out", required=True, type=Path, help="a new folder for the network")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="saved step; default: the latest")
    flags = parser.parse_args(arguments)
    keep_compiled_programs()
    screen = Screen(open_console())
    try:
        trained = export(flags.workdir, flags.out, step=flags.checkpoint, screen=screen)
    finally:
        screen.close()
    screen.say(
        f"{flags.out}: step {trained.step} of {flags.workdir}, read back; it embeds {2 * NUM_COMPARED} test pictures "
        "to the same bits."
    )
    return 0


if __name__ == "__main__":
    command.run(main)
