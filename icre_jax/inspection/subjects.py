"""What is looked at: networks, and test images that none of them has learned from."""

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax import rendering
from icre_jax.data.images import decode
from icre_jax.data.prepared import PreparedDataset
from icre_jax.data.ready import Listener
from icre_jax.datasets import SYSU_MM01, Modality
from icre_jax.engine.elsewhere import OtherData, open_elsewhere, open_to_score
from icre_jax.engine.evaluator import Evaluator, Measure
from icre_jax.engine.provenance import dataset_label
from icre_jax.engine.stored import Stored, first_variables, hash_network, read_stored
from icre_jax.engine.unseen import require_unseen, sources_of
from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import ProtocolResult
from icre_jax.settings import Settings

# Nobody trains on rendered people of this seed by chance; a network that did is refused.
STAND_INS = rendering.SyntheticSettings(
    seed=20_512_522,
    difficulty="default",
    num_train_ids=1,
    num_val_ids=1,
    num_test_ids=40,
    num_images_per_camera=2,
    image_size=(128, 64),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A network before the test images.

    Attributes:
      label: as figures call it.
      stored: the network; its settings are those of its run.
      prepared: the data set.
      evaluation: settings by which it is read and scored: the first network's, with this one's size of images.
    """

    label: str
    stored: Stored
    prepared: PreparedDataset
    evaluation: Settings

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """The test images, as this network takes them."""
        return Evaluator(self.stored.network, self.prepared, self.evaluation)

    @functools.cached_property
    def sides(self) -> dict[Modality, Embedded]:
        """All test images, embedded."""
        return self.evaluator.embed(self.stored.variables)

    @functools.cached_property
    def results(self) -> list[ProtocolResult]:
        """Scores by the protocol of the data."""
        return self.evaluator.score(self.sides)

    def features(self, without: str | None = None) -> dict[Modality, np.ndarray]:
        """Pooled features f of all test images, [N, D], with a part taken out if one is named."""
        measure = Measure(feature="features", without=without)
        evaluator = Evaluator(self.stored.network, self.prepared, self.evaluation, measure)
        embedded = evaluator.embed(self.stored.variables)
        return {modality: side.features for modality, side in embedded.items()}

    def images(self, modality: Modality, rows: Sequence[int], size: tuple[int, int] | None = None) -> np.ndarray:
        """Test images at `rows` of their side, [N, H, W, 3] uint8; at the network's size if None is given."""
        source = self.evaluator.sources[modality]
        return np.stack([decode(source.image_bytes(row), size or self.evaluation.data.image_size) for row in rows])

    def describe(self) -> dict[str, Any]:
        """JSON-able: which network this is."""
        return {
            "label": self.label,
            "config": self.stored.settings.name,
            "step": self.stored.step,
            "network_sha256": hash_network(self.stored.settings, self.stored.variables),
            "trained_on": [source.to_facts() for source in sources_of(self.stored)] if self.stored.step else [],
        }


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


@contextlib.contextmanager
def open_subjects(
    place: str,
    *,
    own_data: bool,
    other: OtherData | None,
    step: int | None,
    baseline: str | None,
    compare: Sequence[str],
    listener: Listener,
) -> Iterator[Subjects]:
    """Open networks and data, which are there until the block ends.

    Args:
      place: of the network: a workdir, an export, or the name of a network in the box.
      own_data: whether it is a workdir whose own data is looked at, if no other is given.
      other: data to look at.
      step: which checkpoint of the network; None for the latest.
      baseline, compare: of other networks.
      listener: who is told how it goes.

    Raises:
      InputError: no such network or data, or data with people whom one of the networks has learned from.
    """
    with contextlib.ExitStack() as stack:
        if other is None and not own_data:
            other = stack.enter_context(_stand_ins(listener))
        if own_data:
            trained = open_to_score(Path(place), other, step=step, listener=listener)
        else:
            assert other is not None
            trained = open_elsewhere(place, other, step=step, listener=listener)
        places = [place, *([] if baseline is None else [baseline]), *compare]
        labels = _labels(places)
        first = Subject(labels[0], trained, trained.prepared, trained.settings)
        rest = [_open_beside(first, *pair, listener) for pair in zip(places[1:], labels[1:], strict=True)]
        yield Subjects(
            network=first,
            baseline=None if baseline is None else rest.pop(0),
            untrained=_untrained(first),
            others=tuple(rest),
            data=dataset_label(trained.prepared),
        )


def _open_beside(first: Subject, place: str, label: str, listener: Listener) -> Subject:
    stored = read_stored(place)
    settings, size = first.evaluation, stored.settings.data.image_size
    if settings.data.store_resized and size != settings.data.image_size:
        raise InputError(
            f"{place} takes images of {size}, and the records of {settings.data.data_dir} hold them resized to "
            f"{settings.data.image_size}. Give the data with --data_dir, --dataset and another --prepared_dir."
        )
    if stored.about["data_fingerprint"] != first.prepared.fingerprint:
        require_unseen(stored, settings.data, first.prepared, listener)
    data = settings.data.model_copy(update={"image_size": size})
    return Subject(label, stored, first.prepared, settings.model_copy(update={"data": data}))


def _untrained(subject: Subject) -> Subject | None:
    settings, stored = subject.stored.settings, subject.stored
    if settings.pretrained is not None or stored.about.get("pretrained") or stored.about.get("init_from"):
        return None
    first: dict[str, Any] = {"variables": first_variables(stored), "step": 0}
    return dataclasses.replace(subject, label="untrained", stored=dataclasses.replace(stored, **first))


def _labels(places: Sequence[str]) -> list[str]:
    """The last part of each path, or as much of it as tells them apart."""
    for length in range(1, 1 + max(len(Path(place).parts) for place in places)):
        labels = ["/".join(Path(place).parts[-length:]) for place in places]
        if len(set(labels)) == len(places) and "untrained" not in labels:
            return labels
    repeated = sorted({place for place in places if places.count(place) > 1})
    raise InputError(f"{', '.join(repeated or places)} is given more than once. Name each network once.")


@contextlib.contextmanager
def _stand_ins(listener: Listener) -> Iterator[OtherData]:
    """Rendered people whom no network knows, laid out as SYSU-MM01, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="icre_jax_people_") as folder:
        rendering.write_tree(
            SYSU_MM01.name,
            Path(folder) / "people",
            STAND_INS,
            progress=lambda done, total: listener.advance("rendering people", done, total),
        )
        yield OtherData(SYSU_MM01.name, Path(folder) / "people")
