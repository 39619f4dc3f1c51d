"""Rank a gallery for every query and score the ranking: CMC, mAP, mINP.

Nothing here knows a data set. A protocol says which gallery images a query may not see (`excluded`), whether the CMC
counts an id once (`deduplicate_ids`) and which columns of the gallery pool belong to the trial (`columns`).

Shape letters: Q queries, G gallery images, D feature size, N either. All scores are fractions in [0, 1].
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icre_jax.errors import InputError, join_findings
from icre_jax.evals.ranks import BoolArray, Float32Array, Float64Array, IntArray, measure, measure_keys, sort_keys

# (query pid [Q], query camid [Q], gallery pid [G], gallery camid [G]) -> [Q, G], True where the query may not see the
# item.
Exclude = Callable[[IntArray, IntArray, IntArray, IntArray], BoolArray]


@dataclass(frozen=True)
class Exclusion:
    """Which gallery images a query may not see.

    Attributes:
      words: for tables and files, e.g. "same place left out".
      exclude: the rule itself; an `Exclusion` is called like it.
    """

    words: str
    exclude: Exclude

    def __call__(
        self, query_pid: IntArray, query_camid: IntArray, gallery_pid: IntArray, gallery_camid: IntArray
    ) -> BoolArray:
        """[Q, G], True where the query may not see the item."""
        return self.exclude(query_pid, query_camid, gallery_pid, gallery_camid)


def excluding(words: str) -> Callable[[Exclude], Exclusion]:
    """Make a rule of the function below, with words for it."""
    return lambda exclude: Exclusion(words, exclude)


# Elements of one [queries, gallery] block: some 10 MB with its keys, masks and the sort; larger ones are not faster.
_BLOCK_ELEMENTS = 2**18
# Of a product that is computed here: 256 MiB, many rows of queries for each reading of the gallery.
_PRODUCT_ELEMENTS = 2**26


@excluding("nothing left out")
def exclude_nothing(
    query_pid: IntArray, query_camid: IntArray, gallery_pid: IntArray, gallery_camid: IntArray
) -> BoolArray:
    """[Q, G], all False: every query sees the whole gallery (RegDB)."""
    return np.zeros((len(query_pid), len(gallery_pid)), bool)


@excluding("same id and camera left out")
def exclude_same_id_and_camera(
    query_pid: IntArray, query_camid: IntArray, gallery_pid: IntArray, gallery_camid: IntArray
) -> BoolArray:
    """[Q, G], True where the item shows the query's person in the query's camera (LLCM)."""
    return (query_pid[:, None] == gallery_pid) & (query_camid[:, None] == gallery_camid)


@dataclass(frozen=True, eq=False)
class Embedded:
    """The images of one side (query or gallery) after the network.

    Attributes:
      features: [N, D] float32, finite, not necessarily normalised.
      pid: [N] int64, the person.
      camid: [N] int64, the camera.
      path: [N] str, where the image came from.
      split: [N] str, "query" or "gallery", where the data set says which images ask; None where any may.
      frames: [N, D] float32, of one frame of each track, where a row is a track (`icre_jax.evals.tracks`); else None.

    Raises:
      InputError: no image, lengths or types that do not fit, or a feature that is not finite.
    """

    features: Float32Array
    pid: IntArray
    camid: IntArray
    path: npt.NDArray[np.str_]
    split: npt.NDArray[np.str_] | None = None
    frames: Float32Array | None = None

    def __post_init__(self) -> None:
        findings = []
        if self.features.ndim != 2 or 0 in self.features.shape:
            findings.append(f"features must be [N, D] with N, D > 0, not {list(self.features.shape)}")
        for name, array, kind in (
            ("features", self.features, "float32"),
            ("pid", self.pid, "int64"),
            ("camid", self.camid, "int64"),
            ("path", self.path, "str"),
        ):
            if array.dtype != kind and not (kind == "str" and array.dtype.kind == "U"):
                findings.append(f"{name} must be {kind}, not {array.dtype}")
            if name != "features" and array.shape != self.features.shape[:1]:
                findings.append(f"{name} is {list(array.shape)}, features are {list(self.features.shape)}")
        if findings:
            raise InputError("These embedded images cannot be scored:\n" + join_findings(findings))
        broken = np.flatnonzero(~np.isfinite(self.features).all(axis=1))
        if broken.size:
            raise InputError(
                f"{broken.size} of {len(self)} images have features that are not finite, first {self.path[broken[0]]}. "
                "The network has diverged or the checkpoint is damaged: use an earlier one or a lower learning rate."
            )

    def __len__(self) -> int:
        return len(self.features)

    def subset(self, index: IntArray) -> "Embedded":
        """The images at `index` [M], in that order (an order, a subset, repeats: all allowed)."""
        split = None if self.split is None else self.split[index]
        frames = None if self.frames is None else self.frames[index]
        return Embedded(self.features[index], self.pid[index], self.camid[index], self.path[index], split, frames)


@dataclass(frozen=True, eq=False)
class Scores:
    """How well one gallery was ranked: fractions in [0, 1], means over the valid queries.

    Attributes:
      cmc: [max_rank] float64, entry k-1 is the share of queries whose first true match has rank <= k.
      mAP: mean over queries of the average precision.
      mINP: mean over queries of (true matches) / (rank of the last one).
      chance: the Rank-1 to expect of a random ranking: mean over queries of (true matches) / (items the query may see).
      num_queries: all queries.
      num_valid_queries: those that have a true match left; only they count.
    """

    cmc: Float64Array
    mAP: float  # noqa: N815  (the field's spelling)
    mINP: float  # noqa: N815
    chance: float
    num_queries: int
    num_valid_queries: int

    def rank(self, k: int) -> float:
        """Rank-k, k from 1 to max_rank; ValueError outside."""
        if not 1 <= k <= len(self.cmc):
            raise ValueError(f"Rank-{k} is not known: the CMC holds ranks 1 to {len(self.cmc)}.")
        return float(self.cmc[k - 1])


@dataclass(frozen=True, eq=False)
class RankList:
    """The best T gallery images of one query, best first: which, how similar (cosine), and whether it is the person."""

    gallery_index: IntArray  # [T]
    similarity: Float32Array  # [T]
    correct: BoolArray  # [T]


def normalize(features: Float32Array) -> Float32Array:
    """[N, D] scaled to L2 norm 1 per row, float32; a zero row stays zero (cosine 0 with everything)."""
    # The squares are summed in float64: in float32 they overflow from 1.8e19 on.
    norm = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    return (features / np.maximum(norm, 1e-12)[:, None].astype(np.float32)).astype(np.float32, copy=False)


def average_directions(first: Float32Array, second: Float32Array) -> Float32Array:
    """[N, D] of norm 1: the mean direction of two vectors per image, e.g. of an image and its mirror image."""
    return normalize(normalize(first) + normalize(second))


def cosine_similarity(query: Embedded, gallery: Embedded) -> Float32Array:
    """[Q, G] float32. Compute it once, then let every trial `score` its `columns`.

    Raises:
      InputError: the two sides have different feature sizes.
    """
    check_feature_sizes(query, gallery)
    return normalize(query.features) @ normalize(gallery.features).T


def score(
    query: Embedded,
    gallery: Embedded,
    *,
    excluded: Exclusion,
    deduplicate_ids: bool,
    max_rank: int = 20,
    similarity: Float32Array | None = None,
    columns: IntArray | None = None,
) -> Scores:
    """Score the ranking of the gallery by cosine similarity; equal similarities keep the gallery's order.

    Memory is bounded by blocks of queries; the result is exact (no approximate search).

    Args:
      query: Q images.
      gallery: G images, the whole pool if `columns` is given.
      excluded: which items a query may not see; they are dropped before ranks are counted.
      deduplicate_ids: count every id once in the CMC, at its first image. mAP and mINP always use the full list.
      max_rank: length of the CMC. With fewer gallery ids it stays at its last value.
      similarity: [Q, G] float32, `cosine_similarity(query, gallery)`; if None, that of the columns is computed here,
        for as many queries at a time as 256 MiB hold.
      columns: [M] the gallery of this trial as indices into `gallery`, each at most once, None for all. Ties follow
        this order.

    Raises:
      InputError: no query has a true match it may see, or the feature sizes differ.
      ValueError: arguments that do not fit each other.
    """
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1, not {max_rank}.")
    columns = _checked_columns(query, gallery, similarity, columns)
    # Columns of an id side by side: a query's true matches are a range, and the best column of each id one reduceat.
    position = np.argsort(gallery.pid[columns], kind="stable")
    columns = columns[position]
    pid, camid = gallery.pid[columns], gallery.camid[columns]
    id_starts = np.flatnonzero(np.append(True, pid[1:] != pid[:-1]))
    match_start = np.searchsorted(pid, query.pid)
    num_matches = np.searchsorted(pid, query.pid, side="right") - match_start

    def rate(rows: slice, block: Float32Array) -> Float64Array | None:
        """[4, Q]: rank of the first match, AP, INP and chance of the valid queries of a block; None if none is."""
        removed = excluded(query.pid[rows], query.camid[rows], pid, camid)
        nth = np.arange(num_matches[rows].max())
        match = np.minimum(match_start[rows, None] + nth, len(pid) - 1)
        seen = (nth < num_matches[rows, None]) & ~np.take_along_axis(removed, match, axis=1)
        valid = seen.any(axis=1)
        if not valid.any():
            return None
        if similarity is not None:
            block = block.take(columns, axis=1)
        query_pid = query.pid[rows]
        if not valid.all():
            block, query_pid = block[valid], query_pid[valid]
            removed, match, seen = removed[valid], match[valid], seen[valid]
        num_visible = np.full(len(block), len(pid))
        if removed.any():
            np.copyto(block, -np.inf, where=removed)
            num_visible -= np.count_nonzero(removed, axis=1)
        first, ap, inp, tied = measure(block, match, seen, id_starts if deduplicate_ids else None)
        if tied.any():
            is_match = (query_pid[tied, None] == pid) & ~removed[tied]
            keys = sort_keys(block[tied], removed[tied], is_match, position)
            first[tied], ap[tied], inp[tied] = measure_keys(keys, id_starts if deduplicate_ids else None)
        return np.stack([first, ap, inp, np.count_nonzero(seen, axis=1) / num_visible])

    per_query = []
    # NumPy sorts and takes outside of the interpreter's lock; blocks come back in their order, whoever did them.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for begin, product in _products(query, gallery, columns) if similarity is None else [(0, similarity)]:
            starts = range(0, len(product), max(1, _BLOCK_ELEMENTS // len(columns)))
            parts = [product[start : start + starts.step] for start in starts]
            rows = [slice(begin + start, begin + start + len(part)) for start, part in zip(starts, parts, strict=True)]
            per_query += [rated for rated in pool.map(rate, rows, parts) if rated is not None]
    if not per_query:
        raise InputError(
            f"None of the {len(query)} queries has a true match among the {len(columns)} gallery images it may see. "
            "Query and gallery must show the same people: check the id lists and the cameras of both sides."
        )
    first, ap, inp, chance = np.concatenate(per_query, axis=1)
    cmc = (first[:, None] <= np.arange(1, max_rank + 1)).mean(axis=0)
    return Scores(cmc, float(ap.mean()), float(inp.mean()), float(chance.mean()), len(query), len(first))


def _products(query: Embedded, gallery: Embedded, columns: IntArray) -> Iterator[tuple[int, Float32Array]]:
    """(first query, cosine similarities with the columns [R, M] float32) of R queries at a time."""
    query_unit, gallery_unit = normalize(query.features), normalize(gallery.features[columns])
    step = max(1, _PRODUCT_ELEMENTS // len(columns))
    for start in range(0, len(query), step):
        yield start, query_unit[start : start + step] @ gallery_unit.T


def rank_list(
    query: Embedded,
    gallery: Embedded,
    *,
    excluded: Exclusion,
    query_index: int,
    top: int,
    similarity: Float32Array | None = None,
    columns: IntArray | None = None,
) -> RankList:
    """The `top` gallery images of one query (fewer where it may see fewer), ids not de-duplicated.

    `similarity` and `columns` as in `score`; the indices that come back always point into `gallery`.
    """
    columns = _checked_columns(query, gallery, similarity, columns)
    row = np.array([query_index])
    pid, camid = gallery.pid[columns], gallery.camid[columns]
    removed = excluded(query.pid[row], query.camid[row], pid, camid)
    match = (query.pid[row, None] == pid) & ~removed
    if similarity is None:
        block = normalize(query.features[row]) @ normalize(gallery.features[columns]).T
    else:
        block = similarity[row[:, None], columns]
    ranked = np.sort(sort_keys(block, removed, match, np.arange(len(columns)))[0])[: min(top, int((~removed).sum()))]
    position = (ranked & np.uint64(0xFFFFFFFF)).astype(np.int64) >> 1
    return RankList(columns[position], block[0, position], match[0, position])


def check_feature_sizes(query: Embedded, gallery: Embedded) -> None:
    """Raise `InputError` if the two sides cannot be compared."""
    if query.features.shape[1] != gallery.features.shape[1]:
        raise InputError(
            f"Query features have {query.features.shape[1]} dimensions, gallery features {gallery.features.shape[1]}: "
            "embed both sides with the same checkpoint."
        )


def _checked_columns(
    query: Embedded, gallery: Embedded, similarity: Float32Array | None, columns: IntArray | None
) -> IntArray:
    check_feature_sizes(query, gallery)
    if similarity is not None and (similarity.shape != (len(query), len(gallery)) or similarity.dtype != np.float32):
        raise ValueError(
            f"similarity must be float32 {[len(query), len(gallery)]}, not {similarity.dtype} {list(similarity.shape)}."
        )
    if columns is None:
        return np.arange(len(gallery))
    if columns.ndim != 1 or not columns.size or columns.min() < 0 or columns.max() >= len(gallery):
        raise ValueError(f"columns must be [M], M > 0, of indices from 0 to {len(gallery) - 1}.")
    if np.unique(columns).size != columns.size:
        raise ValueError("columns names a gallery image twice.")
    return columns
