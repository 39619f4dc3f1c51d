"""What a protocol is: named settings over the embedded test images of both modalities, scored by one function.

Images are embedded once, each by the stem of its own modality. A direction is only who asks whom.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from icre_jax.datasets import OTHER, Modality
from icre_jax.errors import InputError
from icre_jax.evals.galleries import Folders, group_into_folders
from icre_jax.evals.ranking import (
    Embedded,
    Exclusion,
    Float32Array,
    IntArray,
    RankList,
    Scores,
    cosine_similarity,
    rank_list,
    score,
)
from icre_jax.evals.results import METRICS, ProtocolResult, summarize
from icre_jax.evals.tracks import single_frames

# (the gallery's folders, trial from 0) -> [G] int64 indices into the gallery.
Draw = Callable[[Folders, int], IntArray]
# Of all images with all: 1 GiB of float32, four times LLCM's.
_MOST_SIMILARITIES = 2**28


@dataclass(frozen=True)
class Setting:
    """One way to ask: who are the queries, what is the gallery, what counts.

    Attributes:
      name: e.g. "all/single"; part of the names of its scores.
      query: modality of the queries; the gallery is of the other one.
      excluded: which gallery images a query may not see.
      deduplicate_ids: whether the CMC counts an id once; mAP and mINP never do.
      gallery_source: who decides on the gallery; stands in every result.
      draw: the gallery of a trial; None for all images, in one single trial.
      transposed: the drawn images are the queries instead, and all images of the other side their gallery.
      by_split: only images of the query split ask, and only those of the gallery split are searched; otherwise any.
      single_frames: of tracks, one frame of each is compared; otherwise the mean of its frames.
    """

    name: str
    query: Modality
    excluded: Exclusion
    deduplicate_ids: bool
    gallery_source: str
    draw: Draw | None = None
    transposed: bool = False
    by_split: bool = False
    single_frames: bool = False

    @property
    def direction(self) -> str:
        """For example "infrared->visible", query first."""
        return f"{self.query}->{OTHER[self.query]}" + (" (transposed)" if self.transposed else "")


@dataclass(frozen=True)
class Protocol:
    """How a data set is scored.

    Attributes:
      name: stands in every result.
      settings: what `evaluate` gives, in order; the first is the headline.
      cameras: modality -> the cameras its test images may be of.
    """

    name: str
    settings: tuple[Setting, ...]
    cameras: Mapping[Modality, tuple[int, ...]]

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of all scores, for choosing a checkpoint by one of them."""
        return tuple(f"{setting.name}/{metric}" for setting in self.settings for metric in METRICS)

    def restrict(self, present: Collection[tuple[str, Modality]]) -> "Protocol":
        """The settings for which there are images, where the split of an image says whether it asks.

        Args:
          present: the (split, modality) of which there is a test image.
        """
        settings = tuple(
            setting
            for setting in self.settings
            if not setting.by_split or {("query", setting.query), ("gallery", OTHER[setting.query])} <= {*present}
        )
        return replace(self, settings=settings)


def evaluate(
    protocol: Protocol,
    sides: Mapping[Modality, Embedded],
    *,
    dataset: str,
    num_trials: int,
    feature: str = "embeddings",
    flip: bool = False,
    reranking: bool = False,
) -> list[ProtocolResult]:
    """Every setting of a protocol: one result each, in the protocol's order.

    The similarity of all infrared with all visible images is computed once (float32, 103 MB on SYSU-MM01, twice 249 MB
    on LLCM, which asks both ways); every trial of every setting takes its rows and columns. Where it would be more than
    1 GiB, a trial computes its own, some queries at a time. Re-ranking works on each trial's own queries and gallery,
    hence is much slower.

    Args:
      protocol: what to score.
      sides: every test image of each modality, or every track. pid must ascend as the ids of the data set do.
      dataset: the label of the results. The published name of a data set is reserved for the real one.
      num_trials: gallery draws per setting that draws.
      feature: label, which output of the network was embedded.
      flip: label, whether the mirrored image was averaged in.
      reranking: refine every ranking by k-reciprocal neighbours (`icre_jax.evals.reranking`).

    Raises:
      InputError: cameras on the wrong side, nothing to draw from, or no query with a true match.
    """
    if num_trials < 1:
        raise InputError(f"num_trials must be at least 1, not {num_trials}.")
    for modality, allowed in protocol.cameras.items():
        _check_cameras(protocol.name, modality, sides[modality], allowed)
    # By whether single frames are compared.
    compared = {
        single: {modality: single_frames(side) for modality, side in sides.items()} if single else sides
        for single in dict.fromkeys(setting.single_frames for setting in protocol.settings)
    }
    similarity: dict[tuple[bool, Modality], Float32Array] = {}
    for single, both in compared.items():
        if not reranking and len(both["infrared"]) * len(both["visible"]) <= _MOST_SIMILARITIES:
            similarity[single, "infrared"] = cosine_similarity(both["infrared"], both["visible"])
            if any(setting.query == "visible" for setting in protocol.settings):
                # In one piece: taking the columns of a trial from rows that are columns copies all, ten times over.
                similarity[single, "visible"] = np.ascontiguousarray(similarity[single, "infrared"].T)
    pools = {OTHER[setting.query] for setting in protocol.settings if setting.draw}
    folders = {modality: group_into_folders(sides[modality]) for modality in pools}
    results = []
    for setting in protocol.settings:
        searched = _searched(setting, sides[OTHER[setting.query]])
        trials = []
        for trial in range(num_trials if setting.draw else 1):
            drawn = _draw(setting, folders[OTHER[setting.query]], trial) if setting.draw else searched
            matrix = similarity.get((setting.single_frames, setting.query))
            both = compared[setting.single_frames]
            trials.append(_score_trial(setting, both, drawn, matrix, reranking=reranking))
        results.append(
            summarize(
                trials,
                protocol=protocol.name,
                setting=setting.name,
                dataset=dataset,
                gallery_source=setting.gallery_source,
                direction=setting.direction,
                feature=feature,
                flip=flip,
                reranking=reranking,
            )
        )
    return results


def rank_lists(
    setting: Setting, sides: Mapping[Modality, Embedded], query_indices: list[int], *, top: int
) -> list[RankList]:
    """The `top` best gallery images of some queries, in the gallery of trial 0; indices into the whole sides.

    The setting must not be transposed.
    """
    assert not setting.transposed
    query, gallery = sides[setting.query], sides[OTHER[setting.query]]
    columns = searched_columns(setting, gallery)
    return [
        rank_list(query, gallery, excluded=setting.excluded, query_index=index, top=top, columns=columns)
        for index in query_indices
    ]


def _score_trial(
    setting: Setting,
    sides: Mapping[Modality, Embedded],
    drawn: IntArray | None,
    similarity: Float32Array | None,
    *,
    reranking: bool,
) -> Scores:
    """`drawn` [G] of the searched side, None for all; `similarity` of all asking with all searched, if it is known."""
    query, gallery = sides[setting.query], sides[OTHER[setting.query]]
    rows = query_rows(setting, query)
    if len(rows) < len(query):
        query = query.subset(rows)
        similarity = None if similarity is None else similarity[rows]
    if reranking or setting.transposed:
        if drawn is not None:
            gallery = gallery.subset(drawn)
            similarity = None if similarity is None else similarity[:, drawn]
            drawn = None
        if setting.transposed:
            query, gallery = gallery, query
            similarity = None if similarity is None else np.ascontiguousarray(similarity.T)
    if reranking:
        from icre_jax.evals.reranking import rerank  # here: with it come sparse matrices, and few ask for it

        similarity = rerank(query, gallery)
    return score(
        query,
        gallery,
        excluded=setting.excluded,
        deduplicate_ids=setting.deduplicate_ids,
        similarity=similarity,
        columns=drawn,
    )


def searched_columns(setting: Setting, gallery: Embedded) -> IntArray | None:
    """[G] indices of the images of the searched side that are the gallery of trial 0; None for all."""
    return _draw(setting, group_into_folders(gallery), 0) if setting.draw else _searched(setting, gallery)


def query_rows(setting: Setting, query: Embedded) -> IntArray:
    """[Q] indices of the images of the asking side that are queries."""
    if not setting.by_split:
        return np.arange(len(query))
    assert query.split is not None
    return np.flatnonzero(query.split == "query")


def _searched(setting: Setting, gallery: Embedded) -> IntArray | None:
    """[G] indices of the images that are searched where nothing is drawn; None for all."""
    if not setting.by_split:
        return None
    assert gallery.split is not None
    return np.flatnonzero(gallery.split == "gallery")


def _draw(setting: Setting, folders: Folders, trial: int) -> IntArray:
    assert setting.draw is not None
    drawn = setting.draw(folders, trial)
    if not drawn.size:
        raise InputError(f"{setting.name} finds no {OTHER[setting.query]} test image of the cameras it draws from.")
    return drawn


def _check_cameras(protocol: str, modality: str, images: Embedded, allowed: tuple[int, ...]) -> None:
    wrong = sorted(set(images.camid.tolist()) - set(allowed))
    if wrong:
        raise InputError(
            f"The {modality} side holds images of camera {', '.join(map(str, wrong))}; {protocol} takes its {modality} "
            f"test images from camera {', '.join(map(str, allowed))}. Are the two sides swapped?"
        )
