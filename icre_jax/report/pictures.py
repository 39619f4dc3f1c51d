"""Rank lists as small JPEG pictures inside the page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from icre_jax.report.numbers import significant
from icre_jax.report.records import RankedPicture, RankedQuery

_LARGEST_HEIGHT = 192  # pixels; shown at about half of that, sharp on dense screens
_SMALLEST_HEIGHT = 48
# All pictures of a report together, so that many rank lists make smaller pictures rather than a huge file.
_PIXEL_BUDGET = 1_400_000


@dataclass(frozen=True)
class Shown:
    """A picture as the template wants it; `mark` is "right", "wrong" or "", `similarity` is text or ""."""

    source: str
    alt: str
    pid: int
    camid: int
    similarity: str
    mark: str


@dataclass(frozen=True)
class ShownList:
    """One rank list: the query, the ranked pictures, and a sentence on how it went."""

    query: Shown
    ranked: list[Shown]
    summary: str


def show_rank_lists(rank_lists: list[RankedQuery]) -> list[ShownList]:
    """Encode every picture, none larger than needed; nothing is dropped.

    Raises:
      ValueError: an image that is not [H, W, 3] uint8.
    """
    num_pictures = sum(1 + len(ranked.ranked) for ranked in rank_lists)
    return [
        ShownList(
            query=_show(item.query, f"Query: identity {item.query.pid}, camera {item.query.camid}", num_pictures),
            ranked=[
                _show(picture, f"Rank {rank}: identity {picture.pid}, camera {picture.camid}", num_pictures)
                for rank, picture in enumerate(item.ranked, start=1)
            ],
            summary=_summary(item),
        )
        for item in rank_lists
    ]


def _show(picture: RankedPicture, alt: str, num_pictures: int) -> Shown:
    mark = "" if picture.correct is None else ("right" if picture.correct else "wrong")
    similarity = "" if picture.similarity is None else _similarity(picture.similarity)
    return Shown(
        source=_data_uri(picture.image, _PIXEL_BUDGET // num_pictures),
        alt=", ".join(part for part in (alt, similarity and f"similarity {similarity}", mark) if part),
        pid=picture.pid,
        camid=picture.camid,
        similarity=similarity,
        mark=mark,
    )


def _similarity(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else significant(value)


def _summary(item: RankedQuery) -> str:
    marks = [picture.correct for picture in item.ranked]
    if not marks:
        return "no picture ranked"
    if True not in marks:
        return f"no match among the first {len(marks)}"
    return f"first match at rank {marks.index(True) + 1}, {marks.count(True)} of {len(marks)} right"


def _data_uri(image: np.ndarray, num_pixels: int) -> str:
    """[H, W, 3] uint8 as a JPEG data URI of at most about `num_pixels`; small pictures keep their size."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"A picture must be [H, W, 3] uint8, not {list(image.shape)} {image.dtype}.")
    height, width = image.shape[:2]
    target = min(height, _LARGEST_HEIGHT, max(_SMALLEST_HEIGHT, int((num_pixels * height / width) ** 0.5)))
    small = Image.fromarray(image)
    if target < height:
        small = small.resize((max(1, round(width * target / height)), target), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    # Full colour resolution: clothes are the very thing to look at.
    small.save(stream, "JPEG", quality=85, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
