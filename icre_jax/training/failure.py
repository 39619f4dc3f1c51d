"""The replay file: a step that was not finite, as a run leaves it and as `train --replay` reads it.

It may come from anybody: the kind, the shape and the bounds of every field are looked at before a step is run with it.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax.errors import InputError, UnreadableError
from icre_jax.files import whole_file
from icre_jax.files.arrays import Archive, open_archive
from icre_jax.settings import LARGEST_CONFIG

LAST_STEP = 2**31 - 1
MOST_METRICS = 1_000  # a run has twenty
LARGEST_BATCH = 65_536  # images
# Characters that a text may have.
LONGEST = {"finding": 1_000, "settings": LARGEST_CONFIG, "data_fingerprint": 200, "numerics": 100_000}
_LONGEST_METRIC, _LONGEST_PATH = 200, 4_096


@dataclasses.dataclass(frozen=True, eq=False)
class Failure:
    """A step after which something was not finite; the content of a replay file.

    The state before the step is not in it. The step uses up the memory of its state, and a copy of every state, kept in
    case the next step fails, would cost its size in memory and a copy per step. It is not needed either: the plan and
    the augmentation of every batch are a function of (seed, position), so the steps after the checkpoint give that
    state again.

    Attributes:
      step: number of the step, the first of a run is 1.
      checkpoint_step: of the last good checkpoint, from which the state before the step is computed again.
      finding: what was not finite.
      image: [B, H, W, 3] uint8, augmented, as the step saw it.
      label: [B] int32.
      modality: [B] int32, 0 visible, 1 infrared.
      path: [B] str, files of the images, relative to the data's folder.
      metrics: numbers of the step by name.
      settings: of the run as JSON.
      data_fingerprint: of its data.
      numerics: where it ran, `icre_jax.engine.numerics.Numerics` as JSON; "" in files of versions that did not say it.
    """

    step: int
    checkpoint_step: int
    finding: str
    image: np.ndarray
    label: np.ndarray
    modality: np.ndarray
    path: np.ndarray
    metrics: dict[str, float]
    settings: str
    data_fingerprint: str
    numerics: str = ""

    def write(self, file: Path) -> None:
        """Write it, whole or not at all; an npz of arrays and text, nothing pickled.

        Raises:
          OSError: the file cannot be written.
        """
        values = dataclasses.asdict(self)
        metrics = values.pop("metrics")
        with whole_file(file, locked=True) as partial, partial.open("wb") as opened:
            np.savez(opened, metric_names=np.array([*metrics]), metric_values=np.array([*metrics.values()]), **values)


def read_failure(file: Path) -> Failure:
    """Inverse of `Failure.write`. Whether it fits a run is not asked here.

    Raises:
      InputError: no such file, or it is not one of ours: a field is absent, or of another kind, shape or size.
    """
    try:
        with open_archive(file) as values:
            step = _whole_number(values, "step", least=1, most=LAST_STEP)
            found: dict[str, Any] = {
                "step": step,
                "checkpoint_step": _whole_number(values, "checkpoint_step", least=0, most=step - 1),
                "metrics": _metrics(values),
            }
            found |= _batch(values)
            found |= {name: _text(values, name) for name in LONGEST if name != "numerics" or name in values.names}
            return Failure(**found)
    except (UnreadableError, ValueError) as error:
        raise no_replay_file(file, error.reason if isinstance(error, UnreadableError) else str(error)) from error


def no_replay_file(file: Path, reason: str) -> InputError:
    """What is raised of a file that no run has left."""
    return InputError(
        f"{file} is not a replay file ({reason}). Give the replay_step_<N>.npz that a diverged run left in its workdir."
    )


def _whole_number(values: Archive, name: str, *, least: int, most: int) -> int:
    array = values[name]
    _require(name, array, array.dtype.kind in "iu" and array.shape == (), "one whole number")
    number = int(array)
    if not least <= number <= most:
        raise ValueError(f"{name} is {number}; a whole number from {least} to {most:,} is needed")
    return number


def _text(values: Archive, name: str) -> str:
    array = values[name]
    _require(name, array, array.dtype.kind == "U" and array.shape == (), "one text")
    text = str(array)
    if len(text) > LONGEST[name]:
        raise ValueError(f"{name} has {len(text):,} characters; at most {LONGEST[name]:,} are read")
    return text


def _metrics(values: Archive) -> dict[str, float]:
    """Numbers by name; those that are not finite are what the file is about."""
    names, numbers = values["metric_names"], values["metric_values"]
    _require("metric_names", names, names.dtype.kind == "U" and names.ndim == 1, "text [N]")
    _require("metric_values", numbers, numbers.dtype == np.float64 and numbers.shape == names.shape, "float64 [N]")
    if not 1 <= len(names) <= MOST_METRICS or len({*names.tolist()}) != len(names):
        raise ValueError(f"it has {len(names):,} metrics; 1 to {MOST_METRICS:,} of different names are read")
    _require_lengths("metric_names", names, _LONGEST_METRIC)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


def _batch(values: Archive) -> dict[str, np.ndarray]:
    label, image, path = values["label"], values["image"], values["path"]
    _require("label", label, label.dtype == np.int32 and label.ndim == 1, "int32 [B]")
    if not 1 <= len(label) <= LARGEST_BATCH:
        raise ValueError(f"it has a batch of {len(label):,} images; 1 to {LARGEST_BATCH:,} are read")
    if label.min() < 0:
        raise ValueError(f"label holds {label.min()}; classes count from 0")
    fits = image.dtype == np.uint8 and image.ndim == 4 and image.shape[::3] == (len(label), 3) and image.size > 0
    _require("image", image, fits, f"uint8 [{len(label)}, H, W, 3]")
    modality = values["modality"]
    _require("modality", modality, modality.dtype == np.int32 and modality.shape == label.shape, "int32 [B], as label")
    if not np.isin(modality, (0, 1)).all():
        raise ValueError("modality holds other numbers than 0 (visible) and 1 (infrared)")
    _require("path", path, path.dtype.kind == "U" and path.shape == label.shape, "text [B], as label")
    _require_lengths("path", path, _LONGEST_PATH)
    return {"image": image, "label": label, "modality": modality, "path": path}


def _require(name: str, array: np.ndarray, fits: Any, needed: str) -> None:
    if not fits:
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}; {needed} is needed")


def _require_lengths(name: str, texts: np.ndarray, most: int) -> None:
    longest = int(np.strings.str_len(texts).max())
    if longest > most:
        raise ValueError(f"{name} holds a text of {longest:,} characters; at most {most:,} are read")
