"""Scoring features of any code base by a protocol's rules: the gallery is ranked as given, nothing is drawn from it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from icre_jax.datasets import CARDS, OTHER
from icre_jax.errors import InputError
from icre_jax.evals import PROTOCOLS
from icre_jax.evals.features import read_features
from icre_jax.evals.ranking import Exclusion, Scores, exclude_nothing, score
from icre_jax.evals.results import summarize
from icre_jax.evals.tables import table


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a protocol says once the gallery is given.

    Attributes:
      title: of the protocol.
      excluded: which gallery images a query may not see.
      deduplicate_ids: whether the CMC counts an id once.
      query_cameras, gallery_cameras: those that may occur; None for any.
      choices: flags that may change it, because the literature has both or because it is the user's to say.
    """

    title: str
    excluded: Exclusion
    deduplicate_ids: bool
    query_cameras: tuple[int, ...] | None = None
    gallery_cameras: tuple[int, ...] | None = None
    choices: tuple[str, ...] = ()

    @property
    def needs_camid(self) -> bool:
        """Whether cameras matter at all."""
        return self.excluded is not exclude_nothing


def _rule_of(name: str) -> Rule:
    """The rule of the headline setting of a data set's protocol."""
    protocol, card = PROTOCOLS[name], CARDS[name]
    headline = protocol.settings[0]
    choices = ["exclude_same_camera"] if card.own_images else []
    if card.own_images or len({setting.deduplicate_ids for setting in protocol.settings}) > 1:
        choices.append("deduplicate_ids")
    rule = Rule(protocol.name, headline.excluded, headline.deduplicate_ids, choices=tuple(choices))
    if not rule.needs_camid or not protocol.cameras:
        return rule
    query, gallery = protocol.cameras[headline.query], protocol.cameras[OTHER[headline.query]]
    if len(card.directions) > 1:
        # A given gallery does not say which modality it is of.
        query = gallery = tuple(sorted({*query, *gallery}))
    return dataclasses.replace(rule, query_cameras=query, gallery_cameras=gallery)


RULES: Mapping[str, Rule] = {name: _rule_of(name) for name in CARDS}


def choose_rule(protocol: str, *, exclude_same_camera: bool | None = None, deduplicate_ids: bool | None = None) -> Rule:
    """The rule of a protocol with the user's choices; None leaves a choice as the protocol has it.

    Raises:
      InputError: an unknown protocol, or a choice that it does not leave open.
    """
    if protocol not in RULES:
        raise InputError(f"Unknown protocol {protocol!r}; allowed are {', '.join(RULES)}.")
    rule = RULES[protocol]
    for name, value in (("exclude_same_camera", exclude_same_camera), ("deduplicate_ids", deduplicate_ids)):
        if value is not None and name not in rule.choices:
            open_to = ", ".join(other for other, its in RULES.items() if name in its.choices)
            raise InputError(
                f"--{'' if value else 'no-'}{name} cannot be used with --protocol {protocol}, whose rule is fixed; it "
                f"is open for {open_to}. Leave it out."
            )
    if exclude_same_camera is False:
        rule = dataclasses.replace(rule, excluded=exclude_nothing)
    if deduplicate_ids is not None:
        rule = dataclasses.replace(rule, deduplicate_ids=deduplicate_ids)
    return rule


def score_files(
    rule: Rule,
    query_file: Path,
    gallery_file: Path,
    *,
    reranking: bool = False,
    warn: Callable[[str], object] = lambda words: None,
) -> Scores:
    """Rank the features of one file for each of another, refined by k-reciprocal neighbours if `reranking`.

    `warn` is called with what is odd and no error, in words.

    Raises:
      InputError: a file that cannot be scored (see `read_features`), feature sizes that differ, or no query with a true
        match.
    """
    query = read_features(query_file, side="query", cameras=rule.query_cameras, needs_camid=rule.needs_camid)
    gallery = read_features(gallery_file, side="gallery", cameras=rule.gallery_cameras, needs_camid=rule.needs_camid)
    for file, side in ((query_file, query), (gallery_file, gallery)):
        num_zero = int((~side.features.any(axis=1)).sum())
        if num_zero:
            warn(
                f"{num_zero} of {len(side)} rows of features in {file} are zero throughout: all images are equally far "
                "from them, and their ranks mean nothing. Look for the cause where they were computed."
            )
    similarity = None
    if reranking:
        from icre_jax.evals.reranking import rerank  # here: with it come sparse matrices, and few ask for it

        similarity = rerank(query, gallery)
    return score(query, gallery, excluded=rule.excluded, deduplicate_ids=rule.deduplicate_ids, similarity=similarity)


def to_document(rule: Rule, scores: Scores, query_file: Path, gallery_file: Path, *, reranking: bool) -> dict[str, Any]:
    """The content of --json: fractions, Rank-1 first, and by which rule they were measured."""
    return {
        "protocol": rule.title,
        "left_out": rule.excluded.words,
        "deduplicate_ids": rule.deduplicate_ids,
        "gallery_source": "as given",
        "reranking": reranking,
        "query": str(query_file),
        "gallery": str(gallery_file),
        "num_queries": scores.num_queries,
        "num_valid_queries": scores.num_valid_queries,
        "cmc": scores.cmc.tolist(),
        "mAP": scores.mAP,
        "mINP": scores.mINP,
        "chance": scores.chance,
    }


def to_table(rule: Rule, scores: Scores, query_file: Path, gallery_file: Path, *, reranking: bool) -> Table:
    """The numbers for the terminal, and by which rule they were measured."""
    result = summarize(
        [scores],
        protocol=rule.title,
        setting=f"{query_file.name} -> {gallery_file.name}",
        dataset="features as given",
        gallery_source="as given",
        direction="query->gallery",
        feature="as given",
        flip=False,
        reranking=reranking,
    )
    view = table([result])
    # Which network output the features are, and whether flipped images are in them, is not known here.
    counts = "each id once" if rule.deduplicate_ids else "images"
    refined = "WITH RE-RANKING" if reranking else "no re-ranking"
    # Two lines, because rich would break one longer than the table wherever it ends.
    view.title = f"{rule.title} protocol, gallery as given, {rule.excluded.words}\nCMC counts {counts}, {refined}"
    return view
