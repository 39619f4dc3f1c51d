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
from icre_jax.engine.steps import normalize_images
from icre_jax.errors import InputError
from icre_jax.files import write_file
from icre_jax.models.network import ReIDNetwork

PLATFORMS = ("cpu", "cuda", "tpu")
DESCRIPTION = "stablehlo.json"
# JAX reads what versions up to six months older wrote; in days, as months are of different lengths.
READABLE_FOR = datetime.timedelta(days=180)
# Embeddings have length 1. bfloat16 has 8 bits, and a compiler may round in other places once it knows the weights.
_TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}
_READER = Path(__file__).with_name("stablehlo_reader.py")


def file_name(modality: Modality) -> str:
    """The file of one modality in the folder of an export."""
    return f"{modality}.stablehlo"


def write_stablehlo(
    folder: Path,
    network: ReIDNetwork,
    variables: Mapping[str, Any],
    images: Mapping[Modality, np.ndarray],
    *,
    today: datetime.date | None = None,
) -> dict[str, Any]:
    """Write `visible.stablehlo`, `infrared.stablehlo` and a description of them, read back in a process of its own.

    The programs take uint8 [b, H, W, 3], RGB, for any b, and give float32 [b, D] of length 1. The classifier is not in
    them.

    Args:
      folder: an existing one; see `icre_jax.files.new_folder` for one that appears when all is well.
      network, variables: what `network.apply` takes.
      images: of each modality [B, H, W, 3] uint8, B at least 2, to compare with; their size is the programs'.
      today: when this is; None for what the clock says.

    Returns:
      What stands in `stablehlo.json`.

    Raises:
      InputError: `jax.export` lacks flatbuffers; or the files cannot be read without this package, or embed the images
        differently.
      OSError: the folder cannot be written.
    """
    _require_flatbuffers()
    variables = jax.device_get(variables)
    files, sizes = {}, set()
    for modality in MODALITIES:
        height, width = images[modality].shape[1:3]
        exported = lower(network, variables, modality, (height, width))
        content = bytes(exported.serialize())
        write_file(folder / file_name(modality), content)
        files[file_name(modality)] = hashlib.sha256(content).hexdigest()
        sizes.add((height, width, exported.out_avals[0].shape[1]))
    ((height, width, length),) = sizes
    written = today or datetime.date.today()
    description = {
        "files": {name: {"sha256": digest} for name, digest in files.items()},
        "input": f"uint8 [b, {height}, {width}, 3], RGB",
        "output": f"float32 [b, {length}], of length 1; compare by inner products",
        "platforms": list(PLATFORMS),
        "calling_convention_version": exported.calling_convention_version,
        "jax": jax.__version__,
        "written": written.isoformat(),
        "readable_until": (written + READABLE_FOR).isoformat(),
    }
    write_file(folder / DESCRIPTION, json.dumps(description, indent=2) + "\n")
    _require_equal_elsewhere(folder, network, variables, images)
    return description


def describe_end(description: Mapping[str, Any]) -> str:
    """Until when the files can be read, in a sentence."""
    return (
        f"JAX {description['jax']} reads the StableHLO files at any time. That later versions do is promised for those "
        f"of the six months after that version's release, so until {description['readable_until']} at the most; keep "
        "the network in another form beside them."
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


def _require_equal_elsewhere(
    folder: Path, network: ReIDNetwork, variables: Mapping[str, Any], images: Mapping[Modality, np.ndarray]
) -> None:
    found = _embed_elsewhere(folder, images)
    tolerance = _TOLERANCES[jnp.dtype(network.backbone.dtype).name]
    with jax.default_device(_cpu()):
        for modality, rows in images.items():
            expected = np.asarray(jax.jit(functools.partial(_embed, network, variables, modality))(rows))
            # All at once, and the first alone: another batch is another program.
            for name, reference in ((modality, expected), (f"{modality}_one", expected[:1])):
                difference = float(np.abs(found[name] - reference).max())
                if found[name].shape != reference.shape or not difference <= tolerance:
                    raise InputError(
                        f"{file_name(modality)}, read back in another process, embeds {len(reference)} {modality} "
                        f"images differently (by up to {difference}; {tolerance} is allowed); nothing was kept."
                    )


def _embed_elsewhere(folder: Path, images: Mapping[Modality, np.ndarray]) -> dict[str, np.ndarray]:
    """Embeddings of a process that can import JAX and NumPy, and nothing of this package."""
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "images.npz", Path(scratch) / "embeddings.npz"
        np.savez(asked, **images)
        # On the CPU: this process may hold the accelerator.
        process = subprocess.run(
            [sys.executable, "-I", str(_READER), str(folder), str(asked), str(answered)],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            reason = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise InputError(
                f"The StableHLO files cannot be read in a process without this package: {reason}. Nothing was kept."
            )
        with np.load(answered, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}


def _cpu() -> jax.Device | None:
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names others only
        return None


def _require_flatbuffers() -> None:
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise InputError(
            "StableHLO files are written with flatbuffers, which is not installed: pip install flatbuffers, or choose "
            "another --format."
        ) from error
