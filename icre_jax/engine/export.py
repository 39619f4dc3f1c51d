"""A trained network as a folder of its own, compared with the checkpoint it comes from before it appears."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax.data.images import decode
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.prepared import PreparedDataset
from icre_jax.data.ready import Listener
from icre_jax.datasets import MODALITIES
from icre_jax.engine.checkpoint import read_variables, write_variables
from icre_jax.engine.steps import embed_step
from icre_jax.engine.trained import Trained, open_trained
from icre_jax.errors import InputError
from icre_jax.files import new_folder
from icre_jax.settings import to_json

NUM_COMPARED = 16  # images of each modality


def export(workdir: Path, out: Path, *, step: int | None, listener: Listener) -> Trained:
    """Write one checkpoint of a run as a folder of its own.

    Args:
      workdir: of the run.
      out: a new folder; it appears when it is complete and was compared.
      step: which checkpoint; None for the latest.
      listener: who is told how it goes.

    Returns:
      What was exported.

    Raises:
      InputError: as `open_trained`; `out` exists or cannot be written; or what was written gives other embeddings.
    """
    if out.exists():
        raise InputError(f"{out} exists already. Choose another --out or delete it.")
    trained = open_trained(workdir, step=step, listener=listener)
    try:
        with new_folder(out) as partial:
            (partial / "config.json").write_text(to_json(trained.settings), encoding="utf-8")
            facts = {"class_pids": trained.class_pids, "step": trained.step}
            (partial / "classes.json").write_text(json.dumps(facts), encoding="utf-8")
            write_variables(partial / "variables", trained.variables)
            _require_equal_embeddings(trained, read_variables(partial / "variables"))
    except OSError as error:
        raise InputError(f"Cannot write {out}: {error}. Free space, or choose another --out.") from error
    return trained


def _require_equal_embeddings(trained: Trained, again: dict[str, Any]) -> None:
    for modality, images in first_images(trained.prepared, trained.settings.data.image_size).items():
        embed = {"network": trained.network, "modality": modality}
        expected, actual = (np.asarray(embed_step(v, images, **embed)) for v in (trained.variables, again))
        if actual.tobytes() != expected.tobytes():
            raise InputError(
                f"What was written embeds {modality} images differently (by up to "
                f"{np.abs(actual - expected).max()}); nothing was kept. Is the disk sound?"
            )


def first_images(prepared: PreparedDataset, image_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The first test images of each modality, [B, H, W, 3] uint8."""
    found: dict[str, np.ndarray] = {}
    for split in ("query", "gallery"):
        source = RecordSource(prepared, (split,))
        rows = itertools.islice(range(len(source.index)), NUM_COMPARED)
        images = np.stack([decode(source.image_bytes(row), image_size) for row in rows])
        found[MODALITIES[source.index.modality[0]]] = images
    return found
