"""Results for people: a table in percent, for the terminal (rich) and as Markdown for logs and the README.

Published numbers stand below ours, but only for the real data set and only in the setting they were measured in.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from icre_jax.evals.results import METRICS, ProtocolResult

# Metric, as results name it -> column of a table.
HEADERS = {
    "rank1": "Rank-1",
    "rank5": "Rank-5",
    "rank10": "Rank-10",
    "rank20": "Rank-20",
    "mAP": "mAP",
    "mINP": "mINP",
}


@dataclass(frozen=True)
class Published:
    """A number from a paper (fractions) and the labels that decide what it may be compared with."""

    dataset: str
    setting: str
    method: str
    rank1: float
    mAP: float | None  # noqa: N815
    reranking: bool = False

    def is_comparable(self, result: ProtocolResult) -> bool:
        """Same data, same setting of its own protocol, either both re-ranked or neither, and as many trials.

        The papers' numbers on RegDB are means over its ten trials; the other data sets' trials are draws of one run.
        """
        ours = (result.dataset, result.protocol, result.setting, result.reranking)
        enough = self.dataset != "RegDB" or result.num_trials == 10
        return enough and ours == (self.dataset, self.dataset, self.setting, self.reranking)


PUBLISHED = (
    Published("SYSU-MM01", "all/single", "AGW", 0.4750, 0.4765),
    Published("SYSU-MM01", "all/single", "PMT", 0.6753, 0.6498),
    Published("SYSU-MM01", "all/single", "CAJ", 0.6988, 0.6689),
    Published("SYSU-MM01", "all/single", "ICRE (second-hand)", 0.7751, 0.7416),
    Published("SYSU-MM01", "all/single", "MSCMNet", 0.7853, 0.7420),
    Published("SYSU-MM01", "all/single", "IDKL", 0.8434, None, reranking=True),
    Published("SYSU-MM01", "all/single", "MCJA", 0.8951, 0.8758, reranking=True),
    Published("RegDB", "visible_to_infrared", "AGW", 0.7005, 0.6637),
    Published("RegDB", "visible_to_infrared", "CAJ", 0.8503, 0.7914),
    Published("LLCM", "infrared_to_visible", "AGW", 0.4913, 0.5580),
    Published("LLCM", "infrared_to_visible", "CAJ", 0.4986, 0.5640),
    Published("LLCM", "infrared_to_visible", "DEEN", 0.5552, 0.6207),
)
PUBLISHED_NOTES = {
    "SYSU-MM01": "The gallery draw moves Rank-1 by about 0.5.",
    "RegDB": "Means over the ten trials.",
    "LLCM": "",
}
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
    title = Text("\n".join(line for line in lines if line)) if any(lines) else None
    view = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    # Narrow terminals break lines inside the cells ("fold").
    if any(own):
        view.add_column("Conditions", overflow="fold")
    view.add_column("Setting", overflow="fold")
    for header in [*HEADERS.values(), "Chance", "Queries"]:
        view.add_column(header, justify="right", overflow="fold")
    below = {
        paper: max((i for i, r in enumerate(results) if paper.is_comparable(r)), default=None) for paper in PUBLISHED
    }
    for i, result in enumerate(results):
        cells = [_percent(result.mean[m], result.std[m] if result.num_trials > 1 else None) for m in METRICS]
        queries = f"{result.num_valid_queries} of {result.num_queries}"
        lead = [Text(own[i])] if any(own) else []
        view.add_row(*lead, Text(result.setting), *cells, _percent(result.chance), queries)
        for paper in (paper for paper, row in below.items() if row == i):
            numbers = {"rank1": paper.rank1, "mAP": paper.mAP}
            cells = [_percent(numbers.get(metric)) for metric in METRICS]
            lead = [Text("WITH RE-RANKING" if paper.reranking else "no re-ranking")] if any(own) else []
            view.add_row(*lead, f"{paper.method}, published", *cells, "-", "-")
    shown = dict.fromkeys(paper.dataset for paper, row in below.items() if row is not None)
    if shown:
        notes = ["Published: as printed in the papers.", *(PUBLISHED_NOTES[name] for name in shown)]
        notes.append("Most papers pick the epoch on the test set.")
        view.caption, view.caption_justify = " ".join(note for note in notes if note), "left"
    return view


def format_table(results: Sequence[ProtocolResult]) -> str:
    """`table` as plain text: the conditions, a Markdown table, the note on published numbers. No trailing newline."""
    view = table(results)
    title, caption = view.title, view.caption
    view.title = view.caption = None
    view.box, view.padding, view.pad_edge = box.MARKDOWN, (0, 1), True
    stream = io.StringIO()
    # Wide enough never to wrap, which would break the Markdown; rich uses only what it needs.
    Console(file=stream, width=400, color_system=None, force_terminal=False).print(view)
    body = "\n".join(line.rstrip() for line in stream.getvalue().splitlines() if line.strip())
    return "\n\n".join(str(part) for part in (title, body, caption) if part)


def _percent(value: float | None, std: float | None = None) -> str:
    if value is None:
        return "-"
    # No space after ±, so that a narrow terminal breaks the line before it.
    return f"{100 * value:.2f}" if std is None else f"{100 * value:.2f} ±{100 * std:.2f}"
