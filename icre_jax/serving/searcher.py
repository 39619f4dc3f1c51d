"""Images in, ranked people and a verdict out: what the page asks for, as plain values.

The index is looked at again before every answer, so that whoever is deleted from it is gone from the page at once.
"""

import dataclasses
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icre_jax.data.images import decode_checked
from icre_jax.data.reading import ANY_SIZE, decode_file
from icre_jax.datasets import MODALITIES, Modality
from icre_jax.engine.host_search import search_index
from icre_jax.engine.loaded import LoadedNetwork
from icre_jax.errors import InputError
from icre_jax.identify.enrolment import load_network
from icre_jax.identify.searching import CANDIDATES, CAUTION, NOT_THERE, Answers, describe_rate
from icre_jax.retrieval.calibration import Calibration, Held
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.storage import Entry, read_header
from icre_jax.serving.limits import Limits

IMAGES_PER_PAGE = 24  # of the gallery
IMAGES_PER_PERSON = 4  # of an answer
LARGEST_TOP = 50
_THUMBNAIL_HEIGHT = 192  # pixels; shown at half of that, sharp on dense screens
_FIRST_IMAGES = 8  # of the gallery for each person that is wanted, before more are asked for


class UnusableError(Exception):
    """The image cannot be searched for; the message says why."""


class GoneError(Exception):
    """There is no such row, or the gallery has changed since the page learned of it."""


class UnreadableFileError(GoneError):
    """The row is there, but its file is not, or cannot be read."""


class UnavailableError(Exception):
    """The index cannot be searched any more."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Opened:
    index: GalleryIndex
    num_persons: int
    held: Held | None
    no_verdict: str  # "" where there is one

    @property
    def state(self) -> str:
        """Changes with every change of the rows."""
        return self.index.header.entries_sha256[:16]


class Searcher:
    """An index, its network and perhaps a calibration. Threads may share it."""

    def __init__(self, folder: Path, net: LoadedNetwork, calibration: Calibration | None, *, top: int, limits: Limits):
        """Open all of it.

        Args:
          folder: of the index.
          net: the network that made it.
          calibration: None where nobody is ever said not to be in the gallery.
          top: people of an answer at most.
          limits: of images that are sent.

        Raises:
          InputError: they do not belong together.
        """
        self._folder, self._net, self._calibration = folder, net, calibration
        self._top, self._limits = top, limits
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._opened = self._open()
        if calibration is not None and self._opened.no_verdict:
            raise InputError(self._opened.no_verdict)

    @staticmethod
    def load(folder: Path, *, network: str | None, calibration: Path | None, top: int, limits: Limits) -> "Searcher":
        """From files.

        Args:
          folder: of the index.
          network: what `icre_jax.load` takes; None for the place where the index says it is.
          calibration: file of one, or None.
          top, limits: as above.

        Raises:
          InputError: no index, another network than that of the index or the calibration, or a larger gallery than it
            holds for.
        """
        if not 1 <= top <= LARGEST_TOP:
            raise InputError(f"--top is {top}; 1 to {LARGEST_TOP} people fit on the page.")
        index = GalleryIndex.open(folder)
        known = None if calibration is None else Calibration.read(calibration)
        if known is not None:  # what needs no network first
            _hold(known, index, index.num_persons)
        return Searcher(folder, load_network(index, network), known, top=top, limits=limits)

    def warm_up(self) -> None:
        """Compile the programs of both modalities, so that the first search is as quick as any other."""
        height, width = self._net.image_size
        for modality in MODALITIES:
            self._embed(np.zeros((height, width, 3), np.uint8), modality, self._opened.index)

    def about(self) -> dict[str, Any]:
        """What the page says of the gallery, and the limits that it keeps by itself."""
        opened, known = self._current(), self._calibration
        return {
            "caution": CAUTION,
            "images": len(opened.index),
            "persons": opened.num_persons,
            "model": opened.index.header.model_hash[:12],
            "calibrated": None if known is None or opened.no_verdict else known.query_modality,
            "rates": opened.no_verdict or self._rates(opened),
            "max_bytes": self._limits.body_bytes,
        }

    def gallery(self, start: int) -> dict[str, Any]:
        """Some images of the gallery, from row `start` on."""
        opened = self._current()
        rows = range(start, min(start + IMAGES_PER_PAGE, len(opened.index)))
        return {
            "state": opened.state,
            "total": len(opened.index),
            "per_page": IMAGES_PER_PAGE,
            "images": [_describe(row, opened.index.entries[row]) for row in rows],
        }

    def thumbnail(self, state: str, row: int) -> bytes:
        """A small JPEG of an image of the gallery, with nothing of its file but pixels.

        Raises:
          GoneError: no such row, or its file cannot be read any more (UnreadableFileError).
        """
        height, width = self._net.image_size
        size = (_THUMBNAIL_HEIGHT, max(1, round(_THUMBNAIL_HEIGHT * width / height)))
        stream = io.BytesIO()
        Image.fromarray(self._read(self._entry(self._current(), state, row), size)).save(stream, "JPEG", quality=85)
        return stream.getvalue()

    def find_image(self, data: bytes, modality: Modality) -> dict[str, Any]:
        """The people most alike to an image, and the verdict where the calibration is for its modality.

        Args:
          data: the bytes of an image file, or of anything else.
          modality: of the image.

        Raises:
          UnusableError: it is none, or too large.
        """
        pixels = self._decode(data)
        opened = self._current()
        vector = self._embed(pixels, modality, opened.index)
        known, reason = self._calibration, opened.no_verdict
        if known is not None and not reason and modality != known.query_modality:
            reason = f"No verdict: the calibration is for {known.query_modality} images, and this one is {modality}."
        return self._answer(opened, vector, modality, reason)

    def find_row(self, state: str, row: int) -> dict[str, Any]:
        """The people most alike to an image of the gallery, which itself is left out.

        Raises:
          GoneError: no such row.
        """
        opened = self._current()
        entry = self._entry(opened, state, row)
        vector = np.asarray(opened.index.embeddings[row], np.float32)
        reason = "No verdict: this image is of the gallery. It is left out of the answer itself."
        return self._answer(opened, vector, entry.modality, reason, left_out=row)

    def explain_image(self, data: bytes, modality: Modality, state: str, row: int) -> dict[str, Any]:
        """Where the similarity of an image and one of the gallery comes from: Grad-CAM, see `icre_jax.engine.saliency`.

        Args:
          data, modality: as of `find_image`.
          state, row: of the image of the gallery.

        Returns:
          "similarity", and "heat", of the image and of the one of the gallery: rows of numbers from 0 to 1, each image
          on its own scale. Mirrored images, which some indexes average in, are not looked at.

        Raises:
          UnusableError: it is no image, or too large.
          GoneError: no such row, or its file cannot be read any more (UnreadableFileError).
        """
        entry = self._entry(self._current(), state, row)
        return self._explain(self._decode(data), modality, entry)

    def explain_row(self, state: str, asked: int, row: int) -> dict[str, Any]:
        """The same of two images of the gallery."""
        opened = self._current()
        first = self._entry(opened, state, asked)
        return self._explain(self._read(first, self._net.image_size), first.modality, self._entry(opened, state, row))

    def _explain(self, pixels: np.ndarray, modality: str, entry: Entry) -> dict[str, Any]:
        other = self._read(entry, self._net.image_size)
        modalities: Any = (modality, entry.modality)
        seen = self._net.explain(pixels, other, modalities=modalities)
        if not (np.isfinite(seen.similarity) and np.isfinite(seen.heat).all()):
            raise UnusableError("the network gives no finite numbers for it")
        heat = [(part / max(float(part.max()), 1e-12)).round(3).tolist() for part in seen.heat.astype(np.float64)]
        return {"similarity": seen.similarity, "heat": heat}

    def _decode(self, data: bytes) -> np.ndarray:
        """The pixels of what was sent, as the network takes them."""
        pixels = decode_checked(data, self._net.image_size, max_pixels=self._limits.pixels)
        if isinstance(pixels, str):
            raise UnusableError(pixels)
        return pixels

    def _read(self, entry: Entry, size: tuple[int, int]) -> np.ndarray:
        """The pixels of an image of the gallery, which may be as large as any that can be indexed.

        One at a time, whichever thread asks: the largest takes hundreds of megabytes.
        """
        with self._reading:
            pixels = decode_file(entry.file, size, ANY_SIZE)
        if isinstance(pixels, str):
            raise UnreadableFileError
        return pixels

    def _answer(
        self, opened: _Opened, vector: np.ndarray, modality: str, no_verdict: str, left_out: int | None = None
    ) -> dict[str, Any]:
        threshold = float("-inf") if no_verdict or self._calibration is None else self._calibration.threshold
        people = []
        for found in self._ranked(opened.index, vector, left_out):
            entry = opened.index.entries[found[0][0]]
            people.append(
                {
                    "person": entry.person,
                    "similarity": float(found[0][1]),
                    "candidate": bool(found[0][1] >= threshold),
                    "images": [
                        {**_describe(row, opened.index.entries[row]), "similarity": float(similarity)}
                        for row, similarity in found[:IMAGES_PER_PERSON]
                    ],
                }
            )
        there = any(person["candidate"] for person in people)
        return {
            "state": opened.state,
            "modality": modality,
            "verdict": None if no_verdict else CANDIDATES if there else NOT_THERE,
            "no_verdict": no_verdict,
            "threshold": None if no_verdict else threshold,
            "rates": "" if no_verdict else self._rates(opened),
            "caution": CAUTION,
            "people": people,
        }

    def _ranked(
        self, index: GalleryIndex, vector: np.ndarray, left_out: int | None
    ) -> list[list[tuple[int, np.float32]]]:
        """(row, similarity) of the first images, by person; a person stands where their most similar image does."""
        number = self._top * _FIRST_IMAGES
        while True:
            found = search_index(vector[None], index, top=number)
            people: dict[tuple[str, int], list[tuple[int, np.float32]]] = {}
            for row, similarity in zip(found.indices[0].tolist(), found.similarities[0], strict=True):
                if row != left_out:
                    person = index.entries[row].person
                    people.setdefault((person, -1) if person else ("", row), []).append((row, similarity))
            if len(people) >= self._top or number >= len(index):
                return list(people.values())[: self._top]
            number *= 4

    def _embed(self, pixels: np.ndarray, modality: Modality, index: GalleryIndex) -> np.ndarray:
        flip = bool(index.header.preprocessing.get("flip"))
        try:
            return self._net.embed(pixels[None], modality=modality, flip=flip)[0]
        except InputError as error:
            raise UnusableError("the network gives no finite numbers for it") from error

    def _entry(self, opened: _Opened, state: str, row: int) -> Entry:
        if state != opened.state or not 0 <= row < len(opened.index):
            raise GoneError
        return opened.index.entries[row]

    def _current(self) -> _Opened:
        """The index as it is now.

        Raises:
          UnavailableError: another network's lies there now, or none.
        """
        with self._lock:
            try:
                if read_header(self._folder.expanduser().resolve()) != self._opened.index.header:
                    self._opened = self._open()
            except (InputError, OSError) as error:
                raise UnavailableError from error
            return self._opened

    def _open(self) -> _Opened:
        index = GalleryIndex.open(self._folder)
        index.require_model(self._net.model_hash, self._net.origin)
        num_persons = index.num_persons
        if self._calibration is None:
            words = "No verdict: no calibration was given. Whoever is searched for gets people, in the gallery or not."
            return _Opened(index, num_persons, None, words)
        try:
            return _Opened(index, num_persons, _hold(self._calibration, index, num_persons), "")
        except InputError as error:
            return _Opened(index, num_persons, None, f"No verdict: {error}")

    def _rates(self, opened: _Opened) -> str:
        known = self._calibration
        if known is None:
            return opened.no_verdict
        return describe_rate(Answers(opened.index, known.query_modality, self._net.origin, known, opened.held, ()))


def _hold(known: Calibration, index: GalleryIndex, num_persons: int) -> Held:
    """What a calibration promises for an index.

    Raises:
      InputError: nothing.
    """
    known.require_model(index.header.model_hash, f"that of the index {index.folder}")
    known.require_flip(bool(index.header.preprocessing.get("flip")))
    known.require_modalities(known.query_modality, {entry.modality for entry in index.entries})
    return known.at(num_persons, len(index))


def _describe(row: int, entry: Entry) -> dict[str, Any]:
    """What the page says of an image; never where its folder is."""
    return {
        "row": row,
        "person": entry.person,
        "camera": entry.camid,
        "modality": entry.modality,
        "path": entry.path,
    }
