"""A trained network as a folder of its own, compared with the checkpoint it comes from before it appears."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import icre_jax
from icre_jax.data.images import decode
from icre_jax.data.listener import Listener
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.prepared import PreparedDataset, is_prepared, records_folder
from icre_jax.data.ready import prepare_data
from icre_jax.data.stand_ins import render_few
from icre_jax.datasets import MODALITIES, Modality
from icre_jax.engine.card import write_card
from icre_jax.engine.checkpoint.variables import write_variables
from icre_jax.engine.forward import embed_step
from icre_jax.engine.stablehlo import embed_elsewhere, write_stablehlo
from icre_jax.engine.stored import (
    CLASSES,
    CONFIG,
    PROVENANCE,
    TENSORS,
    VARIABLES,
    Stored,
    flatten,
    hash_network,
    read_run,
    read_stored,
)
from icre_jax.engine.tensors import write_tensors
from icre_jax.engine.trained import require_same_data
from icre_jax.errors import InputError
from icre_jax.evals.ranking import normalize
from icre_jax.files import new_folder
from icre_jax.settings import to_json, without_places
from icre_jax.settings.fields import Settings
from icre_jax.sums import write_sums

NUM_COMPARED = 16  # images of each modality
CARD = "README.md"
# Of each number of a vector of length 1, where the same bits are not asked for: of float32 products, and of those whose
# inputs are rounded to a few bits, which another program or device does in other places.
_TOLERANCE, _ROUNDED_TOLERANCE = 1e-5, 2e-2

# Images of one modality, [B, H, W, 3] uint8 -> vectors [B, D], not normalised.
Embed = Callable[[np.ndarray, Modality], np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Form:
    """One way to write a network into a folder.

    Attributes:
      write: (folder, what to write into it, whether kernels go into float16, where the form can do that).
      reopen: what stands in the folder now, as its user will read it; given by how much it may embed differently.
      same_bits: whether embeddings must be the same to the last bit, not only up to a tolerance.
    """

    write: Callable[[Path, Stored, bool], Any]
    reopen: Callable[[Path, float], Embed]
    same_bits: bool


def _embed_with(stored: Stored) -> Embed:
    def embed(images: np.ndarray, modality: Modality) -> np.ndarray:
        return np.asarray(embed_step(stored.variables, images, network=stored.network, modality=modality))

    return embed


_FORMS = {
    "orbax": _Form(
        write=lambda folder, stored, half: write_variables(folder / VARIABLES, stored.variables),
        reopen=lambda folder, tolerance: _embed_with(read_stored(folder / VARIABLES)),
        same_bits=True,
    ),
    "safetensors": _Form(
        write=lambda folder, stored, half: _write_safetensors(folder / TENSORS, stored, half=half),
        reopen=lambda folder, tolerance: _embed_with(read_stored(folder / TENSORS)),
        same_bits=False,
    ),
    "stablehlo": _Form(
        write=lambda folder, stored, half: write_stablehlo(folder, stored),
        reopen=lambda folder, tolerance: functools.partial(embed_elsewhere, folder, tolerance=tolerance),
        same_bits=False,
    ),
}
FORMATS = tuple(_FORMS)


@dataclasses.dataclass(frozen=True, eq=False)
class Exported(Stored):
    """What was exported.

    Attributes:
      compared: the images it was compared with, in words.
    """

    compared: str


def export(
    workdir: Path,
    out: Path,
    *,
    step: int | None,
    listener: Listener,
    formats: Sequence[str] = ("orbax",),
    half: bool = False,
) -> Exported:
    """Write one checkpoint of a run as a folder of its own; see `icre_jax.engine.stored` for what is in it.

    Its data need not be there: rendered people are compared with where it is not.

    Args:
      workdir: of the run.
      out: a new folder; it appears when it is complete, was read back in every form, and embedded images equally.
      step: which checkpoint; None for the latest.
      listener: who is told how it goes.
      formats: of `FORMATS`, each once.
      half: in network.safetensors, store kernels in float16: half the size, and embeddings that differ a little. By
        how much is measured and stands in its card.

    Raises:
      InputError: as `icre_jax.engine.stored.read_run`; `out` exists or cannot be written; a format that is not known;
        or what was written gives other embeddings.
    """
    if out.exists():
        raise InputError(f"{out} exists already. Choose another --out or delete it.")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats or len(set(formats)) < len(formats):
        raise InputError(f"--format is {','.join(formats)!r}; allowed are {', '.join(FORMATS)}, each at most once.")
    if half and "safetensors" not in formats:
        raise InputError(f"--half is of network.safetensors, and --format is {','.join(formats)!r}. Add safetensors.")
    stored = read_run(workdir, step=step)
    images, compared = images_to_compare(stored, listener)
    stored = dataclasses.replace(stored, settings=without_places(stored.settings))
    about = stored.about | {"icre_jax": icre_jax.__version__, "compared_on": compared}
    about["compared_within"] = tolerance = _tolerance(stored.settings)
    written = dict.fromkeys(formats, stored)
    if half:
        rounded = dataclasses.replace(stored, variables=_round_to_half(stored.variables))
        written["safetensors"] = rounded
        about["float16_cosine_distance"] = _largest_distance(_embed_with(stored), _embed_with(rounded), images)
    about["network_sha256"] = {name: hash_network(it.settings, it.variables) for name, it in written.items()}
    stored = dataclasses.replace(stored, about=about)
    facts = {"class_pids": stored.class_pids, "step": stored.step}
    try:
        with new_folder(out) as partial:
            (partial / CONFIG).write_text(to_json(stored.settings), encoding="utf-8")
            (partial / CLASSES).write_text(json.dumps(facts), encoding="utf-8")
            (partial / PROVENANCE).write_text(json.dumps(about, indent=2, allow_nan=False), encoding="utf-8")
            (partial / CARD).write_text(write_card(stored), encoding="utf-8")
            for name, it in written.items():
                _FORMS[name].write(partial, it, half)
            write_sums(partial, leave_out=(CARD,))
            for name, it in written.items():
                _require_equal(name, _embed_with(it), _FORMS[name].reopen(partial, tolerance), images, tolerance)
    except OSError as error:
        raise InputError(f"Cannot write {out}: {error}. Free space, or choose another --out.") from error
    return Exported(**vars(stored), compared=compared)


def images_to_compare(stored: Stored, listener: Listener) -> tuple[dict[Modality, np.ndarray], str]:
    """A few images of each modality, [B, H, W, 3] uint8, and what they are in words: of the test split of the data that
    the network was trained on, or rendered where that is gone. Nothing of that data is made anew."""
    data = stored.settings.data
    folder = records_folder(
        data.dataset, Path(data.prepared_dir).expanduser(), trial=data.trial, stored_size=data.stored_size
    )
    reason = "its data is not here"
    if is_prepared(folder) or Path(data.data_dir).expanduser().is_dir():
        try:
            prepared = prepare_data(data, listener)
            require_same_data(stored, prepared)
            return first_images(prepared, data.image_size), "test images"
        except InputError as error:
            reason = f"its data cannot be used: {str(error).splitlines()[0]}"
    listener.say(f"Compared on rendered people, as {reason}.")
    return render_few(NUM_COMPARED, data.image_size), "rendered images"


def first_images(prepared: PreparedDataset, image_size: tuple[int, int]) -> dict[Modality, np.ndarray]:
    """The first test images of each modality, [B, H, W, 3] uint8."""
    found: dict[Modality, np.ndarray] = {}
    for modality in MODALITIES:
        source = RecordSource(prepared, ("query", "gallery"), modality)
        if rows := range(min(NUM_COMPARED, len(source.index))):
            found[modality] = np.stack([decode(source.image_bytes(row), image_size) for row in rows])
    return found


def _write_safetensors(path: Path, stored: Stored, *, half: bool) -> None:
    arrays = {
        name: _half_if_kernel(leaf) if half else np.asarray(leaf) for name, leaf in flatten(stored.variables).items()
    }
    write_tensors(path, arrays, {"written_by": f"icre_jax {icre_jax.__version__}"})


def _round_to_half(variables: dict[str, Any]) -> dict[str, Any]:
    """Kernels as float16 holds them, as float32 again; what is small (scales, biases, statistics) stays as it is."""
    rounded = jax.tree.map(lambda leaf: np.asarray(_half_if_kernel(leaf), np.float32), variables)
    broken = [name for name, leaf in flatten(rounded).items() if not np.isfinite(leaf).all()]
    if broken:
        raise InputError(f"{', '.join(broken[:5])} does not fit into float16. Export without --half.")
    return jax.device_put(rounded, jax.devices()[0])


def _half_if_kernel(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    with np.errstate(over="ignore"):  # looked for after that
        return array.astype(np.float16) if array.ndim >= 2 else array


def _require_equal(
    name: str, expected: Embed, actual: Embed, images: dict[Modality, np.ndarray], tolerance: float
) -> None:
    for modality, batch in images.items():
        ours, theirs = expected(batch, modality), actual(batch, modality)
        if ours.tobytes() == theirs.tobytes():
            continue
        difference = float(np.abs(normalize(ours) - normalize(theirs)).max())
        if _FORMS[name].same_bits or not difference <= tolerance:
            raise InputError(
                f"What was written as {name} embeds {modality} images differently (by up to {difference:.1e}); nothing "
                "was kept. Is the disk sound?"
            )


def _tolerance(settings: Settings) -> float:
    exact = settings.model.precision == "highest" or jax.default_backend() == "cpu"
    return _TOLERANCE if exact and settings.model.dtype == "float32" else _ROUNDED_TOLERANCE


def _largest_distance(first: Embed, second: Embed, images: dict[Modality, np.ndarray]) -> float:
    """1 - cosine between the embeddings of two networks of one image, the largest."""
    pairs = [
        (normalize(first(batch, modality)), normalize(second(batch, modality))) for modality, batch in images.items()
    ]
    return max(float(1 - np.einsum("nd,nd->n", a, b, dtype=np.float64).min()) for a, b in pairs)
