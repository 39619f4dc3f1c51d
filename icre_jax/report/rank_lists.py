"""Rank lists as small JPEG images inside the page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from icre_jax.report.numbers import significant
from icre_jax.report.records import RankedImage, RankedQuery

_LARGEST_HEIGHT = 192  # pixels; shown at about half of that, sharp on dense screens
_SMALLEST_HEIGHT = 48
# All images of a report together, so that many rank lists make smaller images rather than a huge file.
_PIXEL_BUDGET = 1_400_000


@dataclass(frozen=True)
class Shown:
    """An image as the template wants it; `mark` is "right", "wrong" or "", `similarity` is text or ""."""

    source: str
    alt: str
    pid: int
    camid: int
    similarity: str
    mark: str


@dataclass(frozen=True)
class ShownList:
    """One rank list: the query, the ranked images, and a sentence on how it went."""

    query: Shown
    ranked: list[Shown]
    summary: str


def show_rank_lists(rank_lists: list[RankedQuery]) -> list[ShownList]:
    """Encode every image, none larger than needed; nothing is dropped.

    Raises:
      ValueError: an image that is not [H, W, 3] uint8.
    """
    num_images = sum(1 + len(ranked.ranked) for ranked in rank_lists)
    return [
        ShownList(
            query=_show(item.query, f"Query: identity {item.query.pid}, camera {item.query.camid}", num_images),
            ranked=[
                _show(image, f"Rank {rank}: identity {image.pid}, camera {image.camid}", num_images)
                for rank, image in enumerate(item.ranked, start=1)
            ],
            summary=_summary(item),
        )
        for item in rank_lists
    ]


def _show(image: RankedImage, alt: str, num_images: int) -> Shown:
    mark = "" if image.correct is None else ("right" if image.correct else "wrong")
    similarity = "" if image.similarity is None else _similarity(image.similarity)
    return Shown(
        source=_data_uri(image.image, _PIXEL_BUDGET // num_images),
        alt=", ".join(part for part in (alt, similarity and f"similarity {similarity}", mark) if part),
        pid=image.pid,
        camid=image.camid,
        similarity=similarity,
        mark=mark,
    )


def _similarity(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else significant(value)


def _summary(item: RankedQuery) -> str:
    marks = [image.correct for image in item.ranked]
    if not marks:
        return "no image ranked"
    if True not in marks:
        return f"no match among the first {len(marks)}"
    return f"first match at rank {marks.index(True) + 1}, {marks.count(True)} of {len(marks)} right"


def _data_uri(image: np.ndarray, num_pixels: int) -> str:
    """[H, W, 3] uint8 as a JPEG data URI of at most about `num_pixels`; small images keep their size."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"An image must be [H, W, 3] uint8, not {list(image.shape)} {image.dtype}.")
    height, width = image.shape[:2]
    target = min(height, _LARGEST_HEIGHT, max(_SMALLEST_HEIGHT, int((num_pixels * height / width) ** 0.5)))
    small = Image.fromarray(image)
    if target < height:
        small = small.resize((max(1, round(width * target / height)), target), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    # Full colour resolution: clothes are the very thing to look at.
    small.save(stream, "JPEG", quality=85, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
