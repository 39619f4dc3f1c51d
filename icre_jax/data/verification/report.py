"""What a verification found."""

import dataclasses
import json
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from icre_jax.data.records import Record
from icre_jax.datasets import MODALITIES, Counts
from icre_jax.errors import printable


@dataclasses.dataclass(frozen=True)
class Count:
    """One row of the table of counts.

    Attributes:
      part: what was counted, e.g. "test, infrared, camera 3".
      what: "identities", "images" or "lines".
      expected: as published; None where nothing is published, or the tree is not the published one.
      found: here.
    """

    part: str
    what: str
    expected: int | None
    found: int


@dataclasses.dataclass
class Report:
    """What is wrong (errors), what is odd (warnings), what is good to know (notes), and what was counted."""

    dataset: str
    data_dir: str
    errors: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    counts: list[Count] = dataclasses.field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def count(self, part: str, what: str, found: int, expected: int | None = None) -> None:
        """Add a row to the table; an error if it is not as expected."""
        self.counts.append(Count(part, what, expected, found))
        if expected not in (None, found):
            self.errors.append(f"{part}: {found:,} {what}, {expected:,} expected")

    def count_part(self, part: str, records: Sequence[Record], published: Counts | None) -> None:
        """Add the rows of a part of the data set: its identities, and its images by modality."""
        expected = {} if published is None else {name: published.of(name) for name in MODALITIES}
        num_ids = None if published is None else published.identities
        self.count(part, "identities", len({record.pid for record in records}), num_ids)
        for modality in MODALITIES:
            found = sum(record.modality == modality for record in records)
            self.count(f"{part}, {modality}", "images", found, expected.get(modality))

    def table(self) -> Table:
        """The counts, for the terminal; what is not as expected is marked."""
        view = Table(title=Text(printable(f"{self.dataset} at {self.data_dir}")))
        for column in ("part", "counted", "expected", "found"):
            view.add_column(column, justify="left" if column in ("part", "counted") else "right")
        for row in self.counts:
            expected = "-" if row.expected is None else f"{row.expected:,}"
            wrong = row.expected not in (None, row.found)
            found = f"{row.found:,}" + (" !" if wrong else "")
            view.add_row(Text(printable(row.part)), row.what, expected, found, style="red" if wrong else "")
        return view

    def to_json(self) -> str:
        """Findings and counts."""
        return json.dumps({"sound": self.sound} | dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"
