"""Nested plain data as something a template can show: nothing is left out, whatever its keys are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from icre_jax.report.numbers import duration, memory, significant


@dataclass(frozen=True)
class Node:
    """A piece of nested data.

    Attributes:
      kind: "text" (one value), "items" (values or pieces in order), "group" (named pieces), "table".
      text: of a "text".
      entries: (name, piece) of a "group"; names are "" in "items".
      header, rows: of a "table": column names, and per row its name and cells.
    """

    kind: Literal["text", "items", "group", "table"]
    text: str = ""
    entries: list[tuple[str, "Node"]] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    rows: list[tuple[str, list[str]]] = field(default_factory=list)


def describe(value: Any, key: str = "") -> Node:
    """Arrange any plain value; mappings of alike mappings become a table.

    Args:
      value: mapping, sequence or scalar; anything else is shown by its `str`.
      key: its name, whose unit decides how a number is written: num_..., ..._seconds, ..._bytes.
    """
    if isinstance(value, Mapping) and value:
        items = {str(name): item for name, item in value.items()}
        if len(items) > 1 and _is_table(list(items.values())):
            return _table(list(items.items()))
        return Node("group", entries=[(name, describe(item, name)) for name, item in items.items()])
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and value:
        if _is_table(value):
            return _table([(str(i), item) for i, item in enumerate(value, start=1)])
        if all(_is_scalar(item) for item in value):
            return Node("text", text=", ".join(_text(item, key) for item in value))
        return Node("items", entries=[("", describe(item, key)) for item in value])
    return Node("text", text=_text(value, key))


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _is_table(values: Sequence[Any]) -> bool:
    """Whether these are mappings of scalars that share a column."""
    if not all(isinstance(value, Mapping) and value for value in values):
        return False
    return set.intersection(*(set(value) for value in values)) != set() and all(
        _is_scalar(cell) for value in values for cell in value.values()
    )


def _table(items: list[tuple[str, Mapping[Any, Any]]]) -> Node:
    columns = list(dict.fromkeys(column for _, item in items for column in item))
    rows = [(name, [_text(item[c], str(c)) if c in item else "" for c in columns]) for name, item in items]
    return Node("table", header=[str(column) for column in columns], rows=rows)


def _text(value: Any, key: str) -> str:
    if value is None or value == "" or (isinstance(value, (Mapping, Sequence)) and not value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        if key.endswith("_seconds"):
            return f"{duration(value)} ({value} s)" if value >= 59.95 else f"{value} s"
        if key.endswith("_bytes"):
            return f"{memory(value)} ({value} B)"
        if key.startswith("num_"):
            return significant(value)
    return str(value)
