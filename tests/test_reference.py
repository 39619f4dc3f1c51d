"""The reference says what the code says: every field with type and default, every command with its flags."""

import importlib.util
import re

import pytest

from configs import synthetic
from icre_jax.__main__ import COMMANDS
from icre_jax.settings import flatten, parse
from icre_jax.settings.fields import Settings
from tests.conftest import ROOT

MAKE = "run python docs/generate.py"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(name):
    return (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")


def test_the_page_of_fields_is_that_of_the_code(generate):
    text = page("settings")
    assert text == generate.with_body(text, generate.settings_tables(text)), MAKE


def test_the_page_of_commands_is_that_of_the_code(generate):
    text = page("commands")
    assert text == generate.with_body(text, generate.command_sections()), MAKE


def test_every_field_and_every_command_is_there_once():
    fields = flatten(parse(synthetic.get_config()))
    assert sorted(re.findall(r"^\| `([\w.]+)` \|", page("settings"), re.MULTILINE)) == sorted(fields)
    assert re.findall(r"^## (\w+)$", page("commands"), re.MULTILINE) == list(COMMANDS)


def test_types_by_hand(generate):
    kinds = dict(generate._fields(Settings.model_json_schema()))
    assert kinds["sampling.num_ids_per_batch"] == "whole number > 0 and ≤ 4,096"
    assert kinds["loss.label_smoothing"] == "number ≥ 0 and < 1"
    assert kinds["model.mpfr.mask"] == "`'sigmoid'`, `'softmax'`"
    assert kinds["data.trial"] == "whole number or `None`"
    assert kinds["data.image_size"] == "(whole number > 0 and ≤ 1,024, whole number > 0 and ≤ 1,024)"


def test_flags_by_hand(generate):
    parser = generate.parser_of("score")
    names = "sysu_mm01\\|llcm\\|regdb\\|hitsz_vcm\\|manifest"
    assert f"| `--protocol {names}` | whose rules (required) |" in page("commands")
    assert {"--query", "--gallery", "--json"} <= set(parser._option_string_actions)


def test_a_field_without_a_meaning_is_named(generate):
    text = page("settings")
    meaningless = re.sub(r"^\| `loss\.icg_weight` .*\n", "", text, flags=re.MULTILINE)
    assert meaningless != text
    with pytest.raises(ValueError, match=r"what these mean: loss\.icg_weight$"):
        generate.settings_tables(meaningless)
