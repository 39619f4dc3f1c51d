"""What a verification found."""

import dataclasses


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
