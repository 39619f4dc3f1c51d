"""A config in JSON, as a run leaves it: the same run again, with overrides, checked like any other."""

import importlib
import json

import pytest

from icre_jax.errors import InputError
from icre_jax.machine.command import read_config
from icre_jax.settings import flatten, parse, to_config, to_json

CONFIGS = [
    (name, variant) for name in ("synthetic", "manifest", "sysu_mm01", "llcm", "regdb") for variant in ("", "agw")
]


def settings_of(name, variant=""):
    return parse(importlib.import_module(f"configs.{name}").get_config(variant))


@pytest.mark.parametrize(("name", "variant"), CONFIGS)
def test_what_a_run_writes_is_read_as_the_same_run(name, variant, tmp_path):
    settings = settings_of(name, variant)
    assert parse(to_config(settings)) == settings
    file = tmp_path / "config.json"
    file.write_text(to_json(settings))
    assert read_config([f"--config={file}"]) == settings


def test_fields_are_overridden(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(to_json(settings_of("synthetic")))
    changes = {
        "seed": 7,
        "pretrained": "weights.safetensors",  # None before
        "model.non_local_channels": 2,  # as well
        "data.image_size": (64, 32),
        "schedule.boundaries": (3,),
        "schedule.factors": (0.5,),
        "model.mpfr.mask": "softmax",
        "augment.flip_probability": 0.25,
    }
    settings = read_config([f"--config={file}", *(f"--config.{name}={value}" for name, value in changes.items())])
    assert flatten(settings) == flatten(settings_of("synthetic")) | changes


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("hitsz_vcm", ["data.frames_per_track=None"], {"data.frames_per_track": None}),
        ("hitsz_vcm", ["data.frames_per_track=None", "data.frames_per_track=3"], {"data.frames_per_track": 3}),
        ("hitsz_vcm", ["data.frames_per_track=3", "data.frames_per_track=None"], {"data.frames_per_track": None}),
        ("synthetic", ["data.synthetic=None", "pretrained=None"], {"data.synthetic": None, "pretrained": None}),
        ("sysu_mm01", ["model.non_local_channels=None"], {"model.non_local_channels": None}),
        (
            "manifest",
            ["data.dataset=llcm", "data.train_splits=('train',)", "evaluation.exclude_same_camera=None"],
            {"evaluation.exclude_same_camera": None},
        ),
        ("regdb", ["data.dataset=llcm", "data.trial=None"], {"data.trial": None}),
    ],
)
def test_a_field_is_set_to_none_as_the_messages_say(name, given, expected, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(to_json(settings_of(name, "agw" if name == "sysu_mm01" else "")))
    found = flatten(read_config([f"--config={file}", *(f"--config.{each}" for each in given)]))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.seed=None", r"seed: .*integer|seed = None"),
        ("--config.sed=None", r"no such field: .*sed"),
        ("--config.seed.more=None", r"no such field: .*seed\.more"),
    ],
)
def test_none_is_refused_where_it_has_no_meaning(flag, words, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(to_json(settings_of("synthetic")))
    with pytest.raises(InputError, match=words):
        read_config([f"--config={file}", flag])


@pytest.mark.parametrize(
    ("change", "flag", "words"),
    [
        (lambda values: values | {"sed": 3}, None, "sed: unknown field"),
        (lambda values: {name: value for name, value in values.items() if name != "seed"}, None, "seed: missing"),
        (lambda values: values | {"seed": "3"}, None, "seed = '3'"),
        (lambda values: values | {"seed": 0.5}, None, "seed = 0.5"),
        (lambda values: [values], None, "must hold an object"),
        (lambda values: values, "--config.model.depth=51", "model.depth = 51"),
        (lambda values: values, "--config.model.width=None", "width"),
        (lambda values: values, "--config.seed=x", "seed=x: invalid literal"),
        (lambda values: values, "--config.init_from=a --config.pretrained=b", "both say where the backbone starts"),
    ],
)
def test_what_cannot_be_used_is_named(change, flag, words, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(change(json.loads(to_json(settings_of("synthetic"))))))
    with pytest.raises(InputError, match=words):
        read_config([f"--config={file}", *(flag or "").split()])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        (" " * 2**21, "2,097,152 bytes; at most 1,048,576 are read"),
        ("\xff", "JSON"),
    ],
)
def test_what_is_no_config_at_all(content, words, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=words):
        read_config([f"--config={file}"])


def test_a_run_has_no_variants(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(to_json(settings_of("synthetic")))
    with pytest.raises(InputError, match="is the config of one run and has no variant 'agw'"):
        read_config([f"--config={file}:agw"])


def test_a_config_from_before_init_from_is_read(tmp_path):
    values = json.loads(to_json(settings_of("synthetic")))
    del values["init_from"]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(values))
    assert read_config([f"--config={file}"]) == settings_of("synthetic")
