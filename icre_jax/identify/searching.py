"""Images to search for, and the answers: candidates, or "not in the gallery"."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax.data.collection import collect
from icre_jax.data.images import SUFFIXES
from icre_jax.data.listener import Listener
from icre_jax.datasets import Modality
from icre_jax.engine.device_search import search_on_devices
from icre_jax.engine.host_search import search_index
from icre_jax.errors import InputError
from icre_jax.identify.enrolment import load_network
from icre_jax.retrieval.calibration import Calibration, Held
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.open_set import Rate
from icre_jax.retrieval.search import Found
from icre_jax.retrieval.storage import Entry

# Who searches: embeddings [Q, D], index, number of results. All give the same, bit for bit, and all compare the rows
# that they use with their sums.
Engine = Callable[[np.ndarray, GalleryIndex, int], Found]


def _on_host(vectors: np.ndarray, index: GalleryIndex, top: int) -> Found:
    index.require_whole()
    return search_index(vectors, index, top=top)


def _on_devices(vectors: np.ndarray, index: GalleryIndex, top: int) -> Found:
    index.require_whole()
    return search_on_devices(vectors, index.embeddings, top=top)


ENGINES: dict[str, Engine] = {"host": _on_host, "devices": _on_devices}
CANDIDATES = "candidates"
NOT_THERE = "not in the gallery"
CAUTION = "Candidates, not identifications: a person has to decide who is on the images."


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An image of the gallery that may show the person.

    Attributes:
      rank: from 1.
      similarity: cosine.
      entry: what the index says of it.
    """

    rank: int
    similarity: float
    entry: Entry


@dataclasses.dataclass(frozen=True)
class Answer:
    """What was found for one image.

    Attributes:
      file: the image.
      best: similarity of the most similar image of the gallery.
      candidates: best first; with a calibration only those at or above its threshold.
      words: "candidates" or "not in the gallery".
    """

    file: Path
    best: float
    candidates: tuple[Candidate, ...]

    @property
    def words(self) -> str:
        """The answer in short."""
        return CANDIDATES if self.candidates else NOT_THERE


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What was found for several images, and on what it rests.

    Attributes:
      index: what was searched.
      modality: of the images that were searched for.
      network: where it was loaded from.
      calibration, held: the threshold, and what it promises for this gallery; None without.
      answers: of every image, in order.
    """

    index: GalleryIndex
    modality: Modality
    network: str
    calibration: Calibration | None
    held: Held | None
    answers: tuple[Answer, ...]


def search_for(
    folder: Path,
    images: Sequence[Path],
    modality: Modality,
    *,
    top: int,
    calibration: Path | None = None,
    network: str | None = None,
    max_pixels: int | None = None,
    engine: Engine = ENGINES["host"],
    listener: Listener,
) -> Answers:
    """Search the index in `folder` for every image.

    Args:
      folder: of the index.
      images: files, folders of them, lists, or manifests, of which training images are not taken.
      modality: of the images.
      top: candidates of an image at most.
      calibration: file of one, below whose threshold nobody is a candidate; None for no threshold.
      network: what `icre_jax.load` takes; None for the place where the index says it is.
      max_pixels: as of `icre_jax.load`.
      engine: who searches.
      listener: who is told how it goes.

    Raises:
      InputError: no index, another network than that of the index or the calibration, other modalities or a much
        larger gallery than were calibrated, or an image that cannot be used.
    """
    if top < 1:
        raise InputError(f"--top is {top}; it must be 1 or more.")
    index = GalleryIndex.open(folder, compare=False)  # the engine does, after what is quicker to say
    # All that needs no network first.
    known = None if calibration is None else Calibration.read(calibration)
    held = None
    if known is not None:
        known.require_model(index.header.model_hash, f"that of the index {index.folder}")
        known.require_flip(bool(index.header.preprocessing.get("flip")))
        known.require_modalities(modality, {entry.modality for entry in index.entries})
        held = known.at(index.num_persons, len(index))
    files = [file for path in images for file in _files(path, modality)]
    net = load_network(index, network, max_pixels=max_pixels)
    vectors = net.embed(
        files,
        modality=modality,
        flip=bool(index.header.preprocessing.get("flip")),
        progress=functools.partial(listener.advance, "embedding images"),
    )
    found = engine(vectors, index, top)
    threshold = float("-inf") if known is None else known.threshold
    answers = [
        Answer(
            file,
            best=float(similarities[0]),
            candidates=tuple(
                Candidate(rank, float(similarity), index.entries[row])
                for rank, (row, similarity) in enumerate(zip(rows.tolist(), similarities, strict=True), start=1)
                if similarity >= threshold
            ),
        )
        for file, rows, similarities in zip(files, found.indices, found.similarities, strict=True)
    ]
    return Answers(index, modality, net.origin, known, held, tuple(answers))


def _files(path: Path, modality: Modality) -> list[Path]:
    is_image = path.suffix.lower() in SUFFIXES and path.is_file()
    return [path] if is_image else collect(path, modality, with_training=False).files


def describe_rate(answers: Answers) -> str:
    """What a "not in the gallery" rests on, in a sentence or two."""
    known, held = answers.calibration, answers.held
    if known is None or held is None:
        return "No calibration: whoever is searched for gets candidates, also if they are not in the gallery."
    index = answers.index
    size = f"{index.num_persons} persons, {len(index)} images"
    rate = _in_words(held.fpir)
    calibrated = f"{known.num_enrolled} persons, {known.num_images:.0f} images"
    said = {
        "measured": f"FPIR {rate}, measured at this size of gallery ({size})",
        "smaller": f"FPIR at most {rate}, that of a larger gallery ({calibrated}) than this ({size})",
        "rescaled": (
            f"FPIR at most {rate}, rescaled from a gallery of {calibrated} to one of {size} as if comparisons were "
            "independent"
        ),
    }[held.how]
    return (
        f'Threshold {known.threshold:.4f}, below which the answer is "{NOT_THERE}". {said}; '
        f"FNIR {_in_words(known.fnir)}. Intervals of {percent(known.confidence)} %, over the {known.num_strangers} "
        f"strangers and the {known.num_mated} enrolled persons of one draw."
    )


def _in_words(rate: Rate) -> str:
    return f"{percent(rate.value)} % ({percent(rate.low)} to {percent(rate.high)} %)"


def percent(share: float) -> str:
    """A share in percent: whole from 10 % on, two significant digits below, and never with an exponent."""
    value = 100 * share
    return f"{value:.0f}" if value >= 9.95 else f"{Decimal(f'{value:.2g}'):f}"


def to_document(answers: Answers) -> dict[str, Any]:
    """The content of --json."""
    known, held = answers.calibration, answers.held
    return {
        "caution": CAUTION,
        "index": str(answers.index.folder),
        "network": answers.network,
        "model_hash": answers.index.header.model_hash,
        "modality": answers.modality,
        "num_persons": answers.index.num_persons,
        "num_images": len(answers.index),
        "calibration": known
        and held
        and {
            "threshold": known.threshold,
            "fpir": {**dataclasses.asdict(held.fpir), "how": held.how},
            "fnir": dataclasses.asdict(known.fnir),
            "confidence": known.confidence,
            "calibrated_for_persons": known.num_enrolled,
        },
        "searches": [
            {
                "image": str(answer.file),
                "answer": answer.words,
                "best_similarity": answer.best,
                "candidates": [
                    {
                        "rank": candidate.rank,
                        "similarity": candidate.similarity,
                        "person": candidate.entry.person,
                        "path": candidate.entry.path,
                        "camid": candidate.entry.camid,
                        "modality": candidate.entry.modality,
                        "file": str(candidate.entry.file),
                    }
                    for candidate in answer.candidates
                ],
            }
            for answer in answers.answers
        ],
    }
