"""Results for people: a table in percent, for the terminal (rich) and as Markdown for logs and the README.

Published numbers may stand below ours, but only for the real SYSU-MM01 and only in the setting they were measured in.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from icre_jax.evals.results import METRICS, ProtocolResult

_HEADERS = {
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

    method: str
    rank1: float
    mAP: float | None  # noqa: N815
    dataset: str = "SYSU-MM01"
    name: str = "all/single"
    direction: str = "infrared->visible"
    reranking: bool = False

    def is_comparable(self, result: ProtocolResult) -> bool:
        """Same data, setting and direction, and either both re-ranked or neither."""
        ours = (result.dataset, result.name, result.direction, result.reranking)
        return ours == (self.dataset, self.name, self.direction, self.reranking)


PUBLISHED = (
    Published("AGW", 0.4750, 0.4765),
    Published("PMT", 0.6753, 0.6498),
    Published("CAJ", 0.6988, 0.6689),
    Published("ICRE (second-hand)", 0.7751, 0.7416),
    Published("MSCMNet", 0.7853, 0.7420),
    Published("IDKL", 0.8434, None, reranking=True),
    Published("MCJA", 0.8951, 0.8758, reranking=True),
)
PUBLISHED_NOTE = (
    "Published: as printed in the papers. The gallery draw moves Rank-1 by about 0.5, and most papers pick the epoch "
    "on the test set."
)


def conditions(result: ProtocolResult) -> str:
    """Everything but the setting that two numbers must share to be comparable, in one line."""
    return ", ".join(
        [
            f"{result.dataset} {result.direction}",
            f"{result.gallery_source} gallery",
            f"{result.num_trials} trial{'s' if result.num_trials != 1 else ''}",
            result.feature,
            "flip" if result.flip else "no flip",
            "WITH RE-RANKING" if result.reranking else "no re-ranking",
        ]
    )


def table(results: Sequence[ProtocolResult], *, published: bool = False) -> Table:
    """In percent, mean ± standard deviation over the trials, one row per result; the conditions are the title.

    Results under different conditions get a column that tells them apart.

    Args:
      results: at least one.
      published: print the papers' numbers below ours. Only if the data is the real SYSU-MM01; results with another
        `dataset` stay alone even then.

    Raises:
      ValueError: no result.
    """
    if not results:
        raise ValueError("There is no result to show.")
    shared = len({conditions(result) for result in results}) == 1
    # Text, because rich would read square brackets in a data set's name as markup.
    title = Text(conditions(results[0])) if shared else None
    view = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    # Narrow terminals break lines inside the cells ("fold").
    if not shared:
        view.add_column("Conditions", overflow="fold")
    view.add_column("Setting", overflow="fold")
    for header in [*_HEADERS.values(), "Chance", "Queries"]:
        view.add_column(header, justify="right", overflow="fold")
    # A paper's number stands below the last of our results it is comparable with.
    below = {
        paper: max((i for i, result in enumerate(results) if paper.is_comparable(result)), default=None)
        for paper in PUBLISHED
        if published
    }
    for i, result in enumerate(results):
        cells = [_percent(result.mean[m], result.std[m] if result.num_trials > 1 else None) for m in METRICS]
        queries = f"{result.num_valid_queries} of {result.num_queries}"
        lead = [] if shared else [Text(conditions(result))]
        view.add_row(*lead, Text(result.name), *cells, _percent(result.chance), queries)
        for paper in (paper for paper, row in below.items() if row == i):
            numbers = {"rank1": paper.rank1, "mAP": paper.mAP}
            cells = [_percent(numbers.get(metric)) for metric in METRICS]
            lead = [] if shared else [Text("WITH RE-RANKING" if paper.reranking else "no re-ranking")]
            view.add_row(*lead, f"{paper.method}, published", *cells, "-", "-")
    if any(row is not None for row in below.values()):
        view.caption, view.caption_justify = PUBLISHED_NOTE, "left"
    return view


def format_table(results: Sequence[ProtocolResult], *, published: bool = False) -> str:
    """`table` as plain text: the conditions, a Markdown table, the note on published numbers. No trailing newline."""
    view = table(results, published=published)
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
