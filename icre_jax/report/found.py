"""What searches found, as one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined


@dataclass(frozen=True)
class FoundImage:
    """An image with its words.

    Attributes:
      source: a data URI; None where the file is not there any more, which the page says.
      name: of the file.
      person: "" where nobody knows.
      rank: place and similarity, "" for the image that was searched for.
    """

    source: str | None
    name: str
    person: str
    rank: str


@dataclass(frozen=True)
class FoundList:
    """One search.

    Attributes:
      query: what was searched for.
      answer: in a few words.
      note: beside the answer.
      candidates: best first.
    """

    query: FoundImage
    answer: str
    note: str
    candidates: Sequence[FoundImage]


def render_found(lists: Sequence[FoundList], *, facts: Mapping[str, str], caution: str) -> str:
    """The page. The same arguments give the same bytes.

    Args:
      lists: the searches, in order.
      facts: what the answers rest on, name -> words.
      caution: what whoever reads it must know; stands above everything.
    """
    # No user's text gets into the page unescaped; a name missing here is an error, not an empty space.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((resources.files(__package__) / "found.html").read_text(encoding="utf-8"))
    return template.render(lists=lists, facts=facts, caution=caution)
