"""Score features of any code base: `python -m icre_jax.score --protocol NAME --query q.npz --gallery g.npz`.

Both files hold `features` [N, D], `pid` [N] and `camid` [N]. The gallery is ranked as given, nothing is drawn from it;
the protocol decides what a query may not see and how the CMC counts. Prints a table; --json FILE keeps the numbers.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from icre_jax import command
from icre_jax.errors import InputError
from icre_jax.evals import llcm, sysu_mm01
from icre_jax.evals.features import read_features
from icre_jax.evals.ranking import Exclusion, Scores, exclude_nothing, exclude_same_id_and_camera, score
from icre_jax.evals.reranking import rerank
from icre_jax.evals.results import replace_file, summarize
from icre_jax.evals.tables import table


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a protocol says once the gallery is given.

    Attributes:
      title: of the protocol.
      excluded: which gallery images a query may not see; `left_out` says it in words.
      deduplicate_ids: whether the CMC counts an id once.
      query_cameras, gallery_cameras: those that may occur; None for any.
      choices: flags that may change it, because the literature has both or because it is the user's to say.
    """

    title: str
    excluded: Exclusion
    left_out: str
    deduplicate_ids: bool
    query_cameras: tuple[int, ...] | None = None
    gallery_cameras: tuple[int, ...] | None = None
    choices: tuple[str, ...] = ()

    @property
    def needs_camid(self) -> bool:
        """Whether cameras matter at all."""
        return self.excluded is not exclude_nothing


_NOTHING = "nothing left out"
_SAME_ID_AND_CAMERA = "same id and camera left out"
# A given gallery does not say which modality it is of: LLCM's cameras are those of either.
RULES = {
    "sysu_mm01": Rule(
        title=sysu_mm01.PROTOCOL.name,
        excluded=sysu_mm01.exclude_same_place,
        left_out="same place left out",
        deduplicate_ids=True,
        query_cameras=sysu_mm01.PROTOCOL.cameras["infrared"],
        gallery_cameras=sysu_mm01.PROTOCOL.cameras["visible"],
    ),
    "llcm": Rule(
        title=llcm.PROTOCOL.name,
        excluded=exclude_same_id_and_camera,
        left_out=_SAME_ID_AND_CAMERA,
        deduplicate_ids=True,
        query_cameras=llcm.CAMERAS,
        gallery_cameras=llcm.CAMERAS,
    ),
    "regdb": Rule(
        title="RegDB",
        excluded=exclude_nothing,
        left_out=_NOTHING,
        deduplicate_ids=False,
        choices=("deduplicate_ids",),
    ),
    "manifest": Rule(
        title="manifest",
        excluded=exclude_same_id_and_camera,
        left_out=_SAME_ID_AND_CAMERA,
        deduplicate_ids=False,
        choices=("exclude_same_camera", "deduplicate_ids"),
    ),
}


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
        rule = dataclasses.replace(rule, excluded=exclude_nothing, left_out=_NOTHING)
    if deduplicate_ids is not None:
        rule = dataclasses.replace(rule, deduplicate_ids=deduplicate_ids)
    return rule


def score_files(rule: Rule, query_file: Path, gallery_file: Path, *, reranking: bool = False) -> Scores:
    """Rank the features of one file for each of another, refined by k-reciprocal neighbours if `reranking`.

    Raises:
      InputError: a file that cannot be scored (see `read_features`), feature sizes that differ, or no query with a true
        match.
    """
    query = read_features(query_file, side="query", cameras=rule.query_cameras, needs_camid=rule.needs_camid)
    gallery = read_features(gallery_file, side="gallery", cameras=rule.gallery_cameras, needs_camid=rule.needs_camid)
    similarity = rerank(query, gallery) if reranking else None
    return score(query, gallery, excluded=rule.excluded, deduplicate_ids=rule.deduplicate_ids, similarity=similarity)


def to_document(rule: Rule, scores: Scores, query_file: Path, gallery_file: Path, *, reranking: bool) -> dict[str, Any]:
    """The content of --json: fractions, Rank-1 first, and by which rule they were measured."""
    return {
        "protocol": rule.title,
        "left_out": rule.left_out,
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


def _print(rule: Rule, scores: Scores, query_file: Path, gallery_file: Path, *, reranking: bool) -> None:
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
    # Which network output the features are, and whether flipped pictures are in them, is not known here.
    counts = "each id once" if rule.deduplicate_ids else "pictures"
    refined = "WITH RE-RANKING" if reranking else "no re-ranking"
    # Two lines, because rich would break one longer than the table wherever it ends.
    view.title = f"{rule.title} protocol, gallery as given, {rule.left_out}\nCMC counts {counts}, {refined}"
    # Not `runlog.open_console`: that room needs jax, which takes longer to load than this command to run.
    Console(width=None if sys.stdout.isatty() else 132).print(view)


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m icre_jax.score", description=__doc__.split("\n")[0])
    parser.add_argument("--protocol", required=True, choices=RULES, help="whose rules")
    parser.add_argument("--query", required=True, type=Path, metavar="FILE.npz", help="features, pid, camid")
    parser.add_argument("--gallery", required=True, type=Path, metavar="FILE.npz", help="features, pid, camid")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the numbers as well")
    parser.add_argument(
        "--deduplicate_ids",
        action=argparse.BooleanOptionalAction,
        help="CMC: count each id once, or pictures (regdb, manifest; default: pictures)",
    )
    parser.add_argument(
        "--exclude_same_camera",
        action=argparse.BooleanOptionalAction,
        help="leave out pictures of the query's id by the query's camera, or nothing (manifest; default: leave out)",
    )
    parser.add_argument("--reranking", action="store_true", help="k-reciprocal re-ranking (k1 20, k2 6, lambda 0.3)")
    flags = parser.parse_args(arguments)
    rule = choose_rule(
        flags.protocol, exclude_same_camera=flags.exclude_same_camera, deduplicate_ids=flags.deduplicate_ids
    )
    scores = score_files(rule, flags.query, flags.gallery, reranking=flags.reranking)
    _print(rule, scores, flags.query, flags.gallery, reranking=flags.reranking)
    if flags.json:
        document = to_document(rule, scores, flags.query, flags.gallery, reranking=flags.reranking)
        try:
            replace_file(flags.json, json.dumps(document, indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise InputError(f"The scores cannot be written to {flags.json}: {error}. Name another --json.") from error
        print(f"Scores: {flags.json}")
    return 0


if __name__ == "__main__":
    command.run(main)
