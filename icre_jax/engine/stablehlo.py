"""A trained network as StableHLO: one program for each modality, weights inside, for any batch and several platforms.

`jax.export` writes it and its `deserialize` reads it; nobody needs this package for that, nor Flax. JAX promises to
read such files for a time only (`READABLE_FOR`), so this is a form to run a network elsewhere, not one to keep it in.

The forms of convolution and pooling that suit a CPU (`icre_jax.models.convolution`, `pooling`) are forms of their
gradients, chosen while a program is lowered, for each of its platforms. None of them is in a program that embeds.
"""

import dataclasses
import datetime
import functools
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from icre_jax.datasets import MODALITIES, Modality
from icre_jax.engine.forward import normalize_images
from icre_jax.engine.stored import PROGRAMS, Stored
from icre_jax.errors import InputError
from icre_jax.files import write_file
from icre_jax.files.arrays import open_archive
from icre_jax.files.json_files import read_json_object
from icre_jax.models.network import ReIDNetwork

PLATFORMS = ("cpu", "cuda", "tpu")
# JAX reads what versions up to six months older wrote; in days, as months are of different lengths.
READABLE_FOR = datetime.timedelta(days=180)
_READER = Path(__file__).with_name("stablehlo_reader.py")
_UNIT_LENGTH = 1e-4  # how far a length may be from 1, of float32 numbers


def write_stablehlo(folder: Path, stored: Stored, *, today: datetime.date | None = None) -> dict[str, Any]:
    """Write `visible.stablehlo`, `infrared.stablehlo`, and `stablehlo.json`, which describes them.

    The programs take uint8 [b, H, W, 3], RGB, for any b, and give float32 [b, D] of length 1. The classifier is not in
    them.

    Args:
      folder: an existing one.
      stored: the network.
      today: when this is; None for what the clock says.

    Returns:
      What stands in `stablehlo.json`.

    Raises:
      InputError: flatbuffers, with which `jax.export` writes, is not installed.
      OSError: the folder cannot be written.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError(
            "StableHLO files are written with flatbuffers, which is not installed: pip install flatbuffers, or choose "
            "another --format."
        )
    height, width = stored.settings.data.image_size
    variables = jax.device_get(stored.variables)
    files = {}
    for modality in MODALITIES:
        exported = lower(stored.network, variables, modality, (height, width))
        content = bytes(exported.serialize())
        write_file(folder / f"{modality}.stablehlo", content)
        files[f"{modality}.stablehlo"] = {"sha256": hashlib.sha256(content).hexdigest()}
    written = today or datetime.date.today()
    description = {
        "files": files,
        "input": f"uint8 [b, {height}, {width}, 3], RGB",
        "output": f"float32 [b, {exported.out_avals[0].shape[1]}], of length 1; compare by inner products",
        "platforms": list(PLATFORMS),
        "calling_convention_version": exported.calling_convention_version,
        "jax": jax.__version__,
        "written": written.isoformat(),
        "readable_until": (written + READABLE_FOR).isoformat(),
    }
    write_file(folder / PROGRAMS, json.dumps(description, indent=2) + "\n")
    return description


def describe_end(folder: Path) -> str:
    """Until when the files that `write_stablehlo` left can be read, in words."""
    description = read_json_object(folder / PROGRAMS)
    return (
        f"JAX {description['jax']} reads the StableHLO files at any time. Of later versions JAX promises it for those "
        f"that appear within six months of that one: until {description['readable_until']} at the latest. Keep the "
        "network in another format too."
    )


def lower(
    network: ReIDNetwork, variables: Mapping[str, Any], modality: Modality, image_size: tuple[int, int]
) -> export.Exported:
    """The program of one modality, for all of `PLATFORMS` and any batch."""
    (batch,) = export.symbolic_shape("b")
    program = jax.jit(functools.partial(_embed, *_without_classifier(network, variables), modality))
    images = jax.ShapeDtypeStruct((batch, *image_size, 3), jnp.uint8)
    return export.export(program, platforms=PLATFORMS)(images)


def _embed(network: ReIDNetwork, variables: Mapping[str, Any], modality: Modality, images: Array) -> Array:
    (outputs, _) = network.apply(variables, normalize_images(images), modality=modality, train=False)
    embeddings = outputs["embeddings"]
    return embeddings / jnp.maximum(jnp.linalg.norm(embeddings, axis=-1, keepdims=True), 1e-12)


def _without_classifier(network: ReIDNetwork, variables: Mapping[str, Any]) -> tuple[ReIDNetwork, dict[str, Any]]:
    """The network with a classifier of one class, whose logits nobody reads: it knows no identity any more."""
    head = variables["params"]["head"]
    kernel = {"kernel": np.zeros((head["classifier"]["kernel"].shape[0], 1), np.float32)}
    params = {**variables["params"], "head": {**head, "classifier": kernel}}
    params.pop("guide_head", None)
    stats = {name: value for name, value in variables["batch_stats"].items() if name != "guide_head"}
    network = network.clone(head=dataclasses.replace(network.head, num_classes=1), guide_head=None)
    return network, {"params": params, "batch_stats": stats}


def embed_elsewhere(folder: Path, images: np.ndarray, modality: Modality, *, tolerance: float) -> np.ndarray:
    """Embed images in a process that can import JAX and NumPy, and nothing of this package.

    Args:
      folder: what `write_stablehlo` left.
      images: [B, H, W, 3] uint8.
      modality: of them.
      tolerance: by how much the first image may be embedded differently alone, each number of a vector of length 1.

    Returns:
      [B, D] float32.

    Raises:
      InputError: that process cannot read or run the files; or what they give is not of length 1, or depends on how
        many images are embedded together.
    """
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "images.npz", Path(scratch) / "embeddings.npz"
        arrays: dict[str, Any] = {modality: images}
        np.savez(asked, **arrays)
        # A TPU is held by this process alone. Memory of a GPU is: what is left of it is taken as it is needed.
        platform = {"JAX_PLATFORMS": "cpu"} if jax.default_backend() == "tpu" else {}
        process = subprocess.run(
            [sys.executable, "-I", str(_READER), str(folder), str(asked), str(answered)],
            env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | platform,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            reason = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise InputError(
                f"The StableHLO files cannot be run in a process without this package: {reason}. Nothing was kept."
            )
        with open_archive(answered) as found:
            together, alone = found[modality], found[f"{modality}_alone"]
    lengths = np.linalg.norm(together.astype(np.float64), axis=1)
    if not np.abs(lengths - 1).max() <= _UNIT_LENGTH or not np.abs(alone - together[:1]).max() <= tolerance:
        raise InputError(
            f"{modality}.stablehlo gives vectors of length {lengths.min():.6f} to {lengths.max():.6f}, and one image "
            f"alone a vector that differs by {np.abs(alone - together[:1]).max():.1e}: length 1 and at most "
            f"{tolerance} are allowed. Nothing was kept."
        )
    return together
