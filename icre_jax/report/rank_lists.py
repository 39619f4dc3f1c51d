"""Rank lists and heat maps as small JPEG images inside the page."""

import base64
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from icre_jax.figures.heat import lay_over
from icre_jax.report.numbers import significant
from icre_jax.report.records import ExplainedPair, RankedImage, RankedQuery

_LARGEST_HEIGHT = 192  # pixels; shown at about half of that, sharp on dense screens
_SMALLEST_HEIGHT = 48
# All images of a report together, so that many rank lists make smaller images rather than a huge file.
_PIXEL_BUDGET = 1_400_000


@dataclass(frozen=True)
class Shown:
    """An image as the template wants it; `mark` is "right", "wrong" or "", `similarity` is text or "".

    `name` is the last part of the file's path `path`; both are "" where names are not shown.
    """

    source: str
    alt: str
    pid: int
    camid: int
    similarity: str
    mark: str
    name: str
    path: str
    person: str


@dataclass(frozen=True)
class ShownList:
    """One rank list: the query, the ranked images, and a sentence on how it went."""

    query: Shown
    ranked: list[Shown]
    summary: str


@dataclass(frozen=True)
class ShownPair:
    """Each image of a pair as it is and with its heat, infrared first."""

    similarity: str
    images: list[tuple[str, Shown]]


def show_rank_lists(rank_lists: Sequence[RankedQuery], num_images: int) -> list[ShownList]:
    """Encode every image, none larger than needed; nothing is dropped.

    Args:
      rank_lists: to show.
      num_images: in the whole page; they share its size.

    Raises:
      ValueError: an image that is not [H, W, 3] uint8.
    """
    return [
        ShownList(
            query=_show(item.query, f"Query: {_who(item.query)}", num_images),
            ranked=[
                _show(image, f"Rank {rank}: {_who(image)}", num_images)
                for rank, image in enumerate(item.ranked, start=1)
            ],
            summary=_summary(item),
        )
        for item in rank_lists
    ]


def show_hardest(hardest: Sequence[RankedQuery], num_images: int) -> list[ShownList]:
    """As `show_rank_lists`, of queries with one right and one wrong image: which comes first, and by how much."""
    shown = []
    for item, view in zip(hardest, show_rank_lists(hardest, num_images), strict=True):
        similarity = {image.correct: image.similarity for image in item.ranked}
        ahead = (similarity[False] or 0.0) - (similarity[True] or 0.0)
        words = f"the {'wrong' if ahead > 0 else 'right'} image is ahead by {abs(ahead):.3f}"
        shown.append(dataclasses.replace(view, summary=words))
    return shown


def count_images(rank_lists: Sequence[RankedQuery]) -> int:
    """How many images are in the lists."""
    return sum(1 + len(ranked.ranked) for ranked in rank_lists)


def show_pairs(pairs: Sequence[ExplainedPair], num_images: int) -> list[ShownPair]:
    """Images and heat, laid over them as all figures of the package do; arguments as of `show_rank_lists`."""
    shown = []
    for pair in pairs:
        images = []
        for side, (modality, image) in enumerate((("infrared", pair.infrared), ("visible", pair.visible))):
            warm = dataclasses.replace(image, image=lay_over(image.image, pair.heat[side]))
            who = f"{modality} image of {_who(image)}"
            images += [
                (modality, _show(image, f"{who[0].upper()}{who[1:]}", num_images)),
                ("heat", _show(warm, f"Grad-CAM of the {who}", num_images)),
            ]
        shown.append(ShownPair(_similarity(pair.similarity), images))
    return shown


def _who(image: RankedImage) -> str:
    return f"identity {image.pid}" + (f" ({image.person})" if image.person else "") + f", camera {image.camid}"


def _show(image: RankedImage, alt: str, num_images: int) -> Shown:
    mark = "" if image.correct is None else ("right" if image.correct else "wrong")
    similarity = "" if image.similarity is None else _similarity(image.similarity)
    return Shown(
        source=_data_uri(image.image, _PIXEL_BUDGET // num_images),
        alt=", ".join(part for part in (alt, similarity and f"similarity {similarity}", mark, image.name) if part),
        pid=image.pid,
        camid=image.camid,
        similarity=similarity,
        mark=mark,
        name=PurePosixPath(image.name).name,
        path=image.name,
        person=image.person,
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
