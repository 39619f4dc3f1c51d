"""One list says what is sourced: the docs show it whole, it names real fields, and it knows what a config changes."""

import re
from typing import Literal, get_args, get_origin

import pytest

from configs import synthetic, sysu_mm01
from icre_jax.settings import parse
from icre_jax.settings.fields import Settings
from icre_jax.sourced import CHOICES, TAGS, choices_of, value_of
from tests.conftest import ROOT


def icre(**changes):
    """Full ICRE on SYSU-MM01 with fields changed, as `model__mpfr__mask="softmax"`."""
    config = sysu_mm01.get_config()
    for name, value in changes.items():
        *groups, field = name.split("__")
        group = config
        for key in groups:
            group = group[key]
        group[field] = value
    return parse(config)


def tags(settings):
    """What a choice says -> its tag."""
    return {row.choice.what: row.tag for row in choices_of(settings)}


def markdown_table() -> str:
    """The whole list as `docs/sourced.md` has it. A part is named in its first row."""
    lines = ["| part | what | tag | field |", "|---|---|---|---|"]
    part = ""
    for choice in CHOICES:
        fields = ", ".join(f"`{name}`" for name in choice.fields)
        lines.append(f"| {choice.part if choice.part != part else ''} | {choice.what} | {choice.tag} | {fields} |")
        part = choice.part
    return "\n".join(lines)


def test_the_docs_show_the_list():
    text = (ROOT / "docs" / "sourced.md").read_text(encoding="utf-8")
    assert markdown_table() in text, (
        f"docs/sourced.md has drifted from icre_jax/sourced.py; its table is now:\n{markdown_table()}"
    )


def test_who_has_the_paper_finds_every_inferred_field_with_its_value():
    """`docs/matching_the_paper.md`: a row for each, with its value in `configs/sysu_mm01.py`, and the others."""
    text = (ROOT / "docs" / "matching_the_paper.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| [^|]+ \| `([\w.]+)` \| (`[^`]*` \| [^|]+) \|", text, re.MULTILINE))
    inferred = {name for choice in CHOICES if choice.tag == "I" for name in choice.fields}
    assert set(rows) == inferred
    for name, row in rows.items():
        now, instead = row.split(" | ")
        assert now == f"`{value_of(icre(), name)!r}`", name
        for allowed in choices_that_a_field_has(name) - {value_of(icre(), name)}:
            assert f"`{allowed!r}`" in instead, (name, allowed)


def choices_that_a_field_has(name: str) -> set:
    """The words and numbers of a field that allows some alone."""
    *groups, field = name.split(".")
    model = Settings
    for group in groups:
        model = model.model_fields[group].annotation
    kind = model.model_fields[field].annotation
    return set(get_args(kind)) if get_origin(kind) is Literal else {True, False} if kind is bool else set()


def test_tags_and_fields_exist():
    settings = icre()
    assert {choice.tag for choice in CHOICES} == set(TAGS)
    assert len({(choice.part, choice.what) for choice in CHOICES}) == len(CHOICES)
    for choice in CHOICES:
        for name in choice.fields:
            value_of(settings, name)
        assert set(choice.sourced) <= set(choice.fields)
        assert not choice.sourced or choice.tag in ("P", "S")


def test_every_field_of_the_method_is_in_the_list():
    """A new switch of network, loss or recipe must say where it comes from."""
    named = {name for choice in CHOICES for name in choice.fields}

    def fields(tree, prefix):
        for key, value in tree.items():
            yield from fields(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]

    groups = ("model", "loss", "optimizer", "schedule", "sampling", "augment")
    assert set(fields(icre().model_dump(include=set(groups)), "")) <= named


def test_every_part_of_the_method_is_there_and_full_icre_departs_nowhere():
    assert {choice.part for choice in CHOICES} >= {"backbone", "MPFR", "SDCE", "head", "loss", "ICG loss", "recipe"}
    rows = choices_of(icre())
    assert "-" not in {row.tag for row in rows}
    taps = next(row for row in rows if "model.mpfr.taps" in row.values)
    assert (taps.tag, taps.values["model.mpfr.taps"]) == ("I", (1, 2, 3))
    order = next(row for row in rows if "model.sdce.cross_attention" in row.values)
    assert order.tag == "S"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model__depth": 18}, "dual-stream ResNet-50"),
        ({"model__sdce__self_attention": False}, "cross-attention, then self-attention"),
        ({"loss__triplet_weight": 1.0}, "ID loss and ICG loss"),
        ({"model__mpfr__enabled": False}, "aggregates shallow features"),
    ],
)
def test_another_value_than_the_sourced_one_is_not_the_papers(changes, what):
    def tag(settings):
        return next(tag for text, tag in tags(settings).items() if text.startswith(what))

    assert tag(icre()) in ("P", "S")
    assert tag(icre(**changes)) == "-"


def test_what_does_not_apply_is_not_listed():
    baseline = tags(parse(sysu_mm01.get_config("baseline")))
    assert not any("mask" in what or "modality-aware" in what or "GELU" in what for what in baseline)
    assert any("what the paper compares with" in what for what in baseline)
    assert any(
        "keys and values from the projected layer3" in what for what in tags(parse(sysu_mm01.get_config("sdce")))
    )
    assert any("the map is added to the deep features" in what for what in tags(parse(sysu_mm01.get_config("mpfr"))))
    agw = tags(parse(sysu_mm01.get_config("agw")))
    assert agw["AGW's non-local blocks"] == "-"
    assert any("1 in AGW's released code" in what for what in agw)
    assert not any("AGW's released code" in what for what in baseline)
    people = tags(parse(synthetic.get_config()))
    assert people["rendered people in the layout of a data set"] == "-"
    assert "SYSU-MM01, LLCM, RegDB" not in people
