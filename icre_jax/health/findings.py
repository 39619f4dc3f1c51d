"""What a check found."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
      what: what was looked at.
      state: "ok"; "note", not needed by this config; or "broken", training cannot work like this.
      detail: what was seen, and if it is not "ok" what to do.
    """

    what: str
    state: Literal["ok", "note", "broken"]
    detail: str
