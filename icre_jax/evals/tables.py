"""Results for people: a table in percent, for the terminal.

Published numbers stand below ours, but only for the real data set and only in the setting they were measured in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from icre_jax.datasets import CARDS, Card, Published
from icre_jax.errors import printable
from icre_jax.evals.results import METRIC_NAMES, METRICS, ProtocolResult

# Of `condition_parts`: direction, gallery and draws. Re-ranking is not among them, as its rows must say so themselves.
_SETTING_PARTS = (1, 2, 3)


def condition_parts(result: ProtocolResult) -> list[str]:
    """What two numbers must share beside the setting to be comparable, piece by piece; as many for every result."""
    return [
        result.dataset if result.dataset == result.protocol else f"{result.dataset} ({result.protocol} protocol)",
        result.direction,
        f"gallery: {result.gallery_source}",
        f"{result.num_trials} trial{'s' if result.num_trials != 1 else ''}",
        result.feature,
        "flip" if result.flip else "no flip",
        "WITH RE-RANKING" if result.reranking else "no re-ranking",
    ]


@dataclass(frozen=True)
class Conditions:
    """The conditions of several results, each said once and as far up as it can be.

    Attributes:
      shared: by all of them, in one line.
      of_setting: what else always goes with a setting (who asks whom, which gallery, how many draws).
      own: for each result what is left, "" for nothing.
    """

    shared: str
    of_setting: dict[str, str]
    own: list[str]


def split_conditions(results: Sequence[ProtocolResult]) -> Conditions:
    """Sort out the conditions of results that are shown together."""
    columns = list(zip(*map(condition_parts, results), strict=True))
    settings = [result.setting for result in results]
    differing = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    follows = [len({*zip(settings, column, strict=True)}) == len({*settings}) for column in columns]
    implied = [i for i in differing if i in _SETTING_PARTS and follows[i]]
    left = [i for i in differing if i not in implied]
    return Conditions(
        shared=", ".join(column[0] for i, column in enumerate(columns) if i not in differing),
        of_setting={
            setting: ", ".join(columns[i][row] for i in implied) for row, setting in enumerate(settings) if implied
        },
        own=[", ".join(columns[i][row] for i in left) for row in range(len(results))],
    )


def is_comparable(card: Card, paper: Published, result: ProtocolResult) -> bool:
    """Whether a paper's numbers may stand beside a result.

    Same data, same setting of its own protocol, either both re-ranked or neither, and as many trials: where a data set
    has several divisions the papers' numbers are means over all of them; other trials are draws of one run.
    """
    ours = (result.dataset, result.protocol, result.setting, result.reranking)
    enough = not card.trials or result.num_trials == len(card.trials)
    return enough and ours == (card.title, card.title, paper.setting, paper.reranking)


def table(results: Sequence[ProtocolResult]) -> Table:
    """In percent, mean ± standard deviation over the trials, one row per result; the conditions are the title.

    Conditions that do not follow from the setting get a column. The papers' numbers stand below the last of our results
    that they are comparable with, if there is one.

    Args:
      results: at least one.

    Raises:
      ValueError: no result.
    """
    if not results:
        raise ValueError("There is no result to show.")
    conditions = split_conditions(results)
    own = conditions.own
    lines = [conditions.shared, *(f"{setting}: {words}" for setting, words in conditions.of_setting.items())]
    # Text, because rich would read square brackets in a data set's name as markup.
    title = Text(printable("\n".join(line for line in lines if line))) if any(lines) else None
    view = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    # Narrow terminals break lines inside the cells ("fold").
    if any(own):
        view.add_column("Conditions", overflow="fold")
    view.add_column("Setting", overflow="fold")
    for header in [*METRIC_NAMES.values(), "Chance", "Queries"]:
        view.add_column(header, justify="right", overflow="fold")
    below = {
        (card, paper): max((i for i, r in enumerate(results) if is_comparable(card, paper, r)), default=None)
        for card in CARDS.values()
        for paper in card.published
    }
    for i, result in enumerate(results):
        cells = [_percent(result.mean[m], result.std[m] if result.num_trials > 1 else None) for m in METRICS]
        queries = f"{result.num_valid_queries} of {result.num_queries}"
        lead = [Text(printable(own[i]))] if any(own) else []
        view.add_row(*lead, Text(printable(result.setting)), *cells, _percent(result.chance), queries)
        for paper in (paper for (_, paper), row in below.items() if row == i):
            numbers = {"rank1": paper.rank1, "mAP": paper.mAP}
            cells = [_percent(numbers.get(metric)) for metric in METRICS]
            lead = [Text("WITH RE-RANKING" if paper.reranking else "no re-ranking")] if any(own) else []
            view.add_row(*lead, f"{paper.method}, published", *cells, "-", "-")
    shown = dict.fromkeys(card.note for (card, _), row in below.items() if row is not None)
    if shown:
        notes = ["Published: as printed in the papers.", *shown]
        notes.append("Most papers pick the epoch on the test set.")
        view.caption, view.caption_justify = " ".join(note for note in notes if note), "left"
    return view


def _percent(value: float | None, std: float | None = None) -> str:
    if value is None:
        return "-"
    # No space after ±, so that a narrow terminal breaks the line before it.
    return f"{100 * value:.2f}" if std is None else f"{100 * value:.2f} ±{100 * std:.2f}"
