"""What is looked at: networks, and test images that none of them has learned from."""

import argparse
import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax.data.images import decode
from icre_jax.data.listener import Listener
from icre_jax.data.stand_ins import write_strangers
from icre_jax.datasets import Modality
from icre_jax.engine import elsewhere
from icre_jax.engine.elsewhere import OtherData, open_elsewhere, open_to_score
from icre_jax.engine.evaluator import Evaluator, Measure
from icre_jax.engine.provenance import dataset_label
from icre_jax.engine.sources import sources_of
from icre_jax.engine.stored import first_variables, hash_network, place_of, read_stored
from icre_jax.engine.trained import Trained
from icre_jax.engine.unseen import require_unseen
from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import ProtocolResult


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A network before the test images.

    Attributes:
      label: as figures call it.
      trained: the network and the data; "sources" of `elsewhere` says what it has learned from, in every case.
    """

    label: str
    trained: Trained

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """The test images, as this network takes them."""
        return self._evaluator(Measure())

    @functools.cached_property
    def sides(self) -> dict[Modality, Embedded]:
        """All test images, embedded."""
        return self.evaluator.embed(self.trained.variables)

    @functools.cached_property
    def results(self) -> list[ProtocolResult]:
        """Scores by the protocol of the data."""
        return self.evaluator.score(self.sides)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) that it takes."""
        return self.trained.settings.data.image_size

    def features(self, without: str | None = None) -> dict[Modality, np.ndarray]:
        """Pooled features f of all test images, [N, D], with a part taken out if one is named."""
        embedded = self._evaluator(Measure(feature="features", without=without)).embed(self.trained.variables)
        return {modality: side.features for modality, side in embedded.items()}

    def images(self, modality: Modality, rows: Sequence[int], size: tuple[int, int] | None = None) -> np.ndarray:
        """Test images at `rows` of their side, [N, H, W, 3] uint8; at the network's size if None is given."""
        source = self.evaluator.sources[modality]
        return np.stack([decode(source.image_bytes(row), size or self.image_size) for row in rows])

    def describe(self) -> dict[str, Any]:
        """JSON-able: which network this is."""
        trained = self.trained
        return {
            "label": self.label,
            "config": trained.settings.name,
            "step": trained.step,
            "network_sha256": hash_network(trained.settings, trained.variables),
            "trained_on": (trained.elsewhere or {})["sources"],
        }

    def _evaluator(self, measure: Measure) -> Evaluator:
        return Evaluator(self.trained.network, self.trained.prepared, self.trained.settings, measure)


@dataclasses.dataclass(frozen=True, eq=False)
class Subjects:
    """All that is looked at together.

    Attributes:
      network: the one that figures are of.
      baseline: that it is shown beside; None for none.
      untrained: the network before its first step; None where it started from other weights than random ones.
      others: further ones, for their scores.
      data: what the test images are called; the name of a real data set only for the real one.
    """

    network: Subject
    baseline: Subject | None
    untrained: Subject | None
    others: tuple[Subject, ...]
    data: str

    @property
    def states(self) -> dict[str, Subject]:
        """Label -> network, from the untrained to the one that figures are of."""
        shown = (self.untrained, self.baseline, self.network)
        return {subject.label: subject for subject in shown if subject is not None}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `open_subjects` takes; the command has `--out` beside them."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", type=Path, help="work folder of a run, shown on its own test images")
    which.add_argument("--network", help="a run, an export or 'synthetic', shown on rendered people or --data_dir")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="saved step of a run; default: the latest")
    parser.add_argument("--baseline", metavar="NETWORK", help="a run or export to show beside it")
    compare_help = "a further run or export, for the figure cmc; any number of times"
    parser.add_argument("--compare", metavar="NETWORK", action="append", default=[], help=compare_help)
    elsewhere.add_flags(parser)


@contextlib.contextmanager
def open_subjects(flags: argparse.Namespace, listener: Listener) -> Iterator[Subjects]:
    """Open networks and data, which are there until the block ends.

    Args:
      flags: of `add_flags`.
      listener: who is told how it goes.

    Raises:
      InputError: no such network or data, or data with people whom one of the networks has learned from.
    """
    place, step = str(flags.workdir or flags.network), flags.checkpoint
    places = [place, *([] if flags.baseline is None else [flags.baseline]), *flags.compare]
    labels = _labels(places)
    with contextlib.ExitStack() as stack:
        other = elsewhere.read_flags(flags)
        if flags.workdir is not None:
            trained = open_to_score(flags.workdir.expanduser(), other, step=step, listener=listener)
        else:
            other = other or stack.enter_context(_strangers(listener))
            trained = open_elsewhere(place, other, step=step, listener=listener)
        if trained.elsewhere is None:
            trained = dataclasses.replace(trained, elsewhere=_sources(trained))
        first = Subject(labels[0], trained)
        rest = [_open_beside(trained, *pair, listener) for pair in zip(places[1:], labels[1:], strict=True)]
        yield Subjects(
            network=first,
            baseline=None if flags.baseline is None else rest.pop(0),
            untrained=_untrained(first),
            others=tuple(rest),
            data=dataset_label(trained.prepared),
        )


def _open_beside(first: Trained, place: str, label: str, listener: Listener) -> Subject:
    """Another network before the same data, with its own size of images."""
    stored, data = read_stored(place), first.settings.data
    size = stored.settings.data.image_size
    if data.store_resized and size != data.image_size:
        raise InputError(
            f"{place} takes images of {size}, and the records of {data.data_dir} hold them resized to "
            f"{data.image_size}. Give the data with --data_dir, --dataset and another --prepared_dir."
        )
    if stored.about["data_fingerprint"] != first.prepared.fingerprint:
        require_unseen(stored, data, first.prepared, listener)
    values = {"data": data.model_copy(update={"image_size": size}), "evaluation": first.settings.evaluation}
    settings = stored.settings.model_copy(update=values)
    facts: dict[str, Any] = vars(stored) | {"settings": settings}
    return Subject(label, Trained(**facts, prepared=first.prepared, elsewhere=_sources(stored)))


def _sources(stored: Any) -> dict[str, Any]:
    return {"sources": [source.to_facts() for source in sources_of(stored.settings, stored.about)]}


def _untrained(subject: Subject) -> Subject | None:
    trained = subject.trained
    if trained.about.get("pretrained") or trained.about.get("init_from"):
        return None
    first = dataclasses.replace(trained, variables=first_variables(trained), step=0, elsewhere={"sources": []})
    return Subject("untrained", first)


def _labels(places: Sequence[str]) -> list[str]:
    """The last name of each path, or as many of its names as tell it from the others."""
    parts = [place_of(place).resolve().parts for place in places]
    repeated = sorted({place for place, own in zip(places, parts, strict=True) if parts.count(own) > 1})
    if repeated:
        raise InputError(f"{', '.join(repeated)} cannot be told apart. Give each network once, by its path.")

    def is_clear(own: tuple[str, ...], length: int) -> bool:
        alike = sum(other[-length:] == own[-length:] for other in parts)
        return alike == 1 and own[-length:] != ("untrained",)

    return ["/".join(own[-next(n for n in range(1, 1 + len(own)) if is_clear(own, n)) :]) for own in parts]


@contextlib.contextmanager
def _strangers(listener: Listener) -> Iterator[OtherData]:
    """Rendered people whom no network knows, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="icre_jax_people_") as folder:
        people = Path(folder) / "people"
        layout = write_strangers(people, lambda done, total: listener.advance("rendering people", done, total))
        yield OtherData(layout, people)
