"""A trained network before other data than its own: which data, and that it is of people whom it has not seen."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from icre_jax.data.listener import Listener
from icre_jax.data.ready import prepare_data
from icre_jax.datasets import CARDS
from icre_jax.engine.sources import sources_of
from icre_jax.engine.stored import read_stored
from icre_jax.engine.trained import Trained, open_trained
from icre_jax.engine.unseen import require_unseen
from icre_jax.errors import InputError
from icre_jax.settings import parse
from icre_jax.settings.fields import Data, Settings


@dataclasses.dataclass(frozen=True)
class OtherData:
    """Data to be scored on.

    Attributes:
      dataset: a name of `icre_jax.datasets`.
      data_dir: the data set as it was delivered.
      prepared_dir: where its records are, or go; None for a folder beside it.
      trial: one of RegDB's ten; None for the others.
      exclude_same_camera: of own images, whether a query may not see its identity's images of its own camera; None for
        what the configs have, which is so.
    """

    dataset: str
    data_dir: Path
    prepared_dir: Path | None = None
    trial: int | None = None
    exclude_same_camera: bool | None = None

    @property
    def label(self) -> str:
        """A name for a folder, e.g. "on_regdb_trial_2"."""
        return f"on_{self.dataset}" + ("" if self.trial is None else f"_trial_{self.trial}")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `read_flags` reads."""
    group = parser.add_argument_group("other data", "score on data that the network was not trained on")
    group.add_argument("--data_dir", type=Path, help="that data, as it was delivered")
    group.add_argument("--dataset", choices=tuple(CARDS), help="its layout and protocol")
    group.add_argument("--prepared_dir", type=Path, help="for its records; default: DATA_DIR_prepared, beside it")
    group.add_argument("--trial", type=int, help="of regdb, 1 to 10")
    group.add_argument(
        "--exclude_same_camera",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="of manifest: leave out the query's identity and camera (default: yes)",
    )


def read_flags(flags: argparse.Namespace) -> OtherData | None:
    """The data that the flags name; None if they name none.

    Raises:
      InputError: one of them is missing, or does not fit the data set.
    """
    names = ("data_dir", "dataset", "prepared_dir", "trial", "exclude_same_camera")
    given = [name for name in names if getattr(flags, name) is not None]
    if not given:
        return None
    if not {"data_dir", "dataset"} <= {*given}:
        raise InputError(
            f"{', '.join(f'--{name}' for name in given)} is of other data, which --data_dir and --dataset name "
            "together. Give both, or none to score on the run's own."
        )
    if flags.out is None and not (flags.workdir / "checkpoints").is_dir():
        raise InputError(
            f"{flags.workdir} is not the workdir of a run, where results go by themselves. Name a folder for those of "
            "an export with --out."
        )
    values: dict[str, Any] = {name: getattr(flags, name) for name in names}
    places = {name: value.expanduser() for name, value in values.items() if isinstance(value, Path)}
    return OtherData(**{**values, **places})


def open_to_score(workdir: Path, other: OtherData | None, *, step: int | None, listener: Listener) -> Trained:
    """A network with its own data, or with data that is given; see `open_trained` and `open_elsewhere`."""
    if other is None:
        return open_trained(workdir, step=step, listener=listener)
    return open_elsewhere(str(workdir), other, step=step, listener=listener)


def open_elsewhere(path: str, other: OtherData, *, step: int | None, listener: Listener) -> Trained:
    """A network with data that is given with it; the data is prepared if it is not.

    If that is the data set of the network itself, wherever it lies now, then its test identities are scored as always.

    Args:
      path: a workdir, an export, or the name of a network that comes with the package; see `icre_jax.load`.
      other: the data.
      step: which checkpoint of a workdir; None for the latest.
      listener: who is told how it goes.

    Raises:
      InputError: no such network; the data cannot be used; or it holds people that the network was trained on.
    """
    stored = read_stored(path, step=step)
    settings = _settings(stored.settings, other)
    prepared = prepare_data(settings.data, listener)
    if prepared.fingerprint == stored.about["data_fingerprint"]:
        own = _at_another_place(stored.settings, settings.data, other.exclude_same_camera)
        return Trained(**vars(stored) | {"settings": own}, prepared=prepared)
    compared = require_unseen(stored, settings.data, prepared, listener)
    sources = sources_of(stored.settings, stored.about)
    facts = {
        "trained_on": sources[0].describe(),
        "sources": [source.to_facts() for source in sources],
        "training_images_compared": compared,
    }
    return Trained(**vars(stored) | {"settings": settings}, prepared=prepared, elsewhere=facts)


def _at_another_place(own: Settings, given: Data, exclude_same_camera: bool | None) -> Settings:
    """The settings of a run with the place where its data is now, and what was said of the protocol."""
    places = {name: getattr(given, name) for name in ("data_dir", "prepared_dir", "synthetic", "store_resized")}
    evaluation = own.evaluation
    if exclude_same_camera is not None:
        evaluation = evaluation.model_copy(update={"exclude_same_camera": exclude_same_camera})
    return own.model_copy(update={"data": own.data.model_copy(update=places), "evaluation": evaluation})


def _settings(settings: Settings, other: OtherData) -> Settings:
    """Those of the run, with other data to be scored on."""
    values = settings.model_dump()
    place = other.data_dir.resolve()
    beside = place.parent / f"{place.name or 'root'}_prepared"
    values["data"] |= {
        "dataset": other.dataset,
        "trial": other.trial,
        "data_dir": str(other.data_dir),
        "prepared_dir": str(other.prepared_dir or beside),
        "synthetic": None,
        "train_splits": ("train",),
        "store_resized": False,
        "frames_per_track": CARDS[other.dataset].frames_per_track,
    }
    exclude = other.exclude_same_camera
    if exclude is None and CARDS[other.dataset].own_images:
        exclude = True
    values["evaluation"]["exclude_same_camera"] = exclude
    return parse(values)
