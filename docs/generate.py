"""Write what the code knows best into the reference: `python docs/generate.py`, from the root of the repository.

`docs/reference/settings.md` has a row for every field of a config. Type and default are read from
`icre_jax.settings.fields` and `configs/base.py`; the last column, what a field means, is kept as it stands in the page.
`docs/reference/commands.md` has every command with its flags, as its own parser knows them. `tests/test_reference.py`
compares both pages with what this would write.
"""

import argparse
import importlib
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

DOCS = Path(__file__).resolve().parent
ROW = re.compile(r"^\| `([\w.]+)` \| .* \| (.*) \|$", re.MULTILINE)


def settings_tables(page: str) -> str:
    """The tables of docs/reference/settings.md, with the meanings that `page` holds.

    Raises:
      ValueError: a field has no meaning there.
    """
    from configs import base, synthetic
    from icre_jax.settings import flatten
    from icre_jax.settings.fields import Settings

    meanings = dict(ROW.findall(page))
    defaults = flatten(base.get_config().to_dict())
    defaults |= flatten(synthetic.get_config().data.synthetic.to_dict(), "data.synthetic.")
    lines: list[str] = []
    group = None
    missing = []
    for name, kind in _fields(Settings.model_json_schema()):
        if name.rpartition(".")[0] != group:
            group = name.rpartition(".")[0]
            lines += ["", f"## {group or 'The run'}", "", "| field | type | default | meaning |", "|---|---|---|---|"]
        if not meanings.get(name):
            missing.append(name)
        lines.append(f"| `{name}` | {kind} | `{defaults[name]!r}` | {meanings.get(name, '')} |")
    if missing:
        raise ValueError(f"docs/reference/settings.md does not say what these mean: {', '.join(missing)}")
    return "\n".join(lines).lstrip("\n") + "\n"


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every field by its full name and its type in words, groups after what stands beside them."""

    def resolve(value: dict[str, Any]) -> dict[str, Any]:
        options = [value, *value.get("anyOf", [])]
        found = next((option["$ref"] for option in options if "$ref" in option), None)
        return schema["$defs"][found.rpartition("/")[2]] if found else value

    def walk(group: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
        members = {f"{prefix}{name}": value for name, value in group["properties"].items()}
        for name, value in members.items():
            if "properties" not in resolve(value):
                yield name, _words(value)
        for name, value in members.items():
            if "properties" in resolve(value):
                yield from walk(resolve(value), f"{name}.")

    yield from walk(schema, "")


def _words(kind: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in kind:
        return " or ".join(_words(option) for option in kind["anyOf"])
    if "enum" in kind:
        return ", ".join(f"`{value!r}`" for value in kind["enum"])
    if "const" in kind:
        return f"`{kind['const']!r}`"
    if kind["type"] == "array":
        if "prefixItems" in kind:
            return f"({', '.join(_words(item) for item in kind['prefixItems'])})"
        return f"tuple of {_words(kind['items'])}"
    word = {"integer": "whole number", "number": "number", "boolean": "`True`, `False`", "string": "text"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {kind[name]:,.12g}" for name, sign in signs.items() if name in kind]
    if kind.get("exclusiveMaximum") == 2**31:
        limits[-1] = "< 2³¹"
    return f"{word.get(kind['type'], 'None')} {' and '.join(limits)}".rstrip() if kind["type"] != "null" else "`None`"


def command_sections() -> str:
    """A section for every command: what it is for, its flags, how to start it."""
    from icre_jax.__main__ import COMMANDS

    return "\n".join(_section(name) for name in COMMANDS)


class _ParserSeenError(Exception):
    """A command has made its parser."""


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a command, which is as far as the command gets."""
    seen: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        seen.append(parser)
        raise _ParserSeenError

    door = importlib.import_module(f"icre_jax.{name}")
    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop):
        try:
            door.main([])
        except _ParserSeenError:
            return seen[0]
    raise AssertionError(f"icre_jax.{name} has no parser")


def _section(name: str) -> str:
    doc = importlib.import_module(f"icre_jax.{name}").__doc__ or ""
    first, _, more = doc.strip().partition("\n")
    title, _, start = first.rstrip(".").partition(": `")
    paragraphs = [f"{title}.", f"    {start.rstrip('`')}" if start else "", *map(_paragraph, more.split("\n\n"))]
    lines = [f"## {name}", *(paragraph for paragraph in paragraphs if paragraph)]
    table = ["| flag | what |", "|---|---|"]
    # argparse offers no other way to its flags.
    for action in parser_of(name)._actions:
        if not isinstance(action, argparse._HelpAction):
            table.append(f"| {_flag(action)} | {_help(action)} |")
    return "\n\n".join([*lines, "\n".join(table)]) + "\n"


def _paragraph(text: str) -> str:
    """A paragraph of a docstring as Markdown; commands, which are indented, as they are."""
    if text.strip("\n").startswith("    "):
        return text.strip("\n")
    return textwrap.fill(
        _as_markdown(" ".join(text.split())), width=118, break_long_words=False, break_on_hyphens=False
    )


def _as_markdown(text: str) -> str:
    """Flags as code, so that two hyphens stay two hyphens; `<` stays what it is."""
    pieces = text.split("`")
    pieces[::2] = [re.sub(r"(?<![\w-])(--[a-z_][\w.=]*\w)", r"`\1`", piece) for piece in pieces[::2]]
    pieces = "`".join(pieces).split("`")
    pieces[::2] = [piece.replace("<", "\\<") for piece in pieces[::2]]
    return "`".join(pieces)


def _flag(action: argparse.Action) -> str:
    name = action.option_strings[-1] if action.option_strings else action.dest
    if isinstance(action, argparse.BooleanOptionalAction):
        return " or ".join(f"`{option}`" for option in action.option_strings)
    if action.nargs == 0:
        return f"`{name}`"
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    many = " ..." if action.nargs in ("+", "*") else ""
    return f"`{name} {value}{many}`".replace("|", "\\|")


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    return _as_markdown(f"{text} (required)" if action.required else text).replace("|", "\\|")


def with_body(page: str, body: str) -> str:
    """A page with what follows its introduction replaced: everything from the first heading of a section on."""
    return page[: page.index("\n## ") + 1] + body


def main() -> None:
    """Write both pages."""
    settings, commands = DOCS / "reference" / "settings.md", DOCS / "reference" / "commands.md"
    old = settings.read_text(encoding="utf-8")
    settings.write_text(with_body(old, settings_tables(old)), encoding="utf-8")
    old = commands.read_text(encoding="utf-8")
    commands.write_text(with_body(old, command_sections()), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent))
    main()
