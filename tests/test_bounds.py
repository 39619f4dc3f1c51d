"""Absurd values: refused with the value, what is allowed and the fix, before memory is taken; names as text alone."""

import argparse
import errno
import importlib
import os
import subprocess
import sys

import pytest

import icre_jax
from icre_jax.__main__ import COMMANDS
from icre_jax.errors import InputError
from icre_jax.experiments.arguments import read_seeds
from icre_jax.machine import command
from icre_jax.machine.screen import Screen
from icre_jax.settings import parse
from tests.conftest import ROOT

BILLION = 10**9


def altered(**changes):
    """The values of a config, with some that are other ones; two underscores are a dot."""
    values = importlib.import_module("configs.synthetic").get_config().to_dict()
    for name, value in changes.items():
        *groups, field = name.split("__")
        group = values
        for part in groups:
            group = group[part]
        group[field] = value
    return values


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("data__num_workers", 1_000_000, "256"),
        ("data__num_threads", 1_000_000, "256"),
        ("data__synthetic__num_workers", 1_000_000, "256"),
        ("data__image_size", (BILLION, BILLION), "1024"),
        ("data__image_size", (1024, 1024), "262,144 pixels"),
        ("data__synthetic__num_train_ids", BILLION, "9999"),
        ("data__synthetic__num_images_per_camera", 10**30, "9999"),
        ("sampling__num_ids_per_batch", 1_000_000, "4096"),
        ("sampling__num_images_per_id", 1_000_000, "4096"),
        ("augment__pad", BILLION, "1024"),
        ("model__width", 1_000_000, "256"),
        ("model__mpfr__channels", 1_000_000, "8192"),
        ("model__sdce__width", 1_000_000, "8192"),
        ("model__sdce__num_heads", 1_000_000, "8192"),
        ("model__sdce__mlp_ratio", 1_000_000, "64"),
        ("model__non_local_blocks", (0, 10**6, 0, 0), "64"),
        ("model__non_local_channels", 1_000_000, "8192"),
        ("model__gem_p", 7.0, "less than or equal to 6"),
        ("model__gem_p", 1e-3, "greater than or equal to 0.01"),
        ("data__image_size", 384, "tuple"),
        ("model__mpfr__taps", 1, "tuple"),
        ("schedule__boundaries", None, "tuple"),
        ("data__data_dir", "~nobody_of_this_name/data", "home folder that is known"),
        ("optimizer__accumulate_steps", 1_000_000, "4096"),
        ("schedule__num_epochs", BILLION, "100000"),
        ("schedule__warmup_epochs", BILLION, "100000"),
        ("evaluation__batch_size", 1_000_000, "4096"),
        ("evaluation__num_trials", 1_000_000, "4096"),
        ("checkpoint__keep_latest", 10**30, "1000000000"),
        ("checkpoint__best_metric", "a" * 5000, "200 characters"),
        ("seed", int("9" * 4000), str(2**31)),
        ("name", "a" * 5000, "at most 100 letters"),
        ("data__data_dir", "a" * 5000, "at most 4,095 bytes, and 255 in each part"),
        ("data__prepared_dir", "a" * 300, "255 in each part of it, is needed; this has 300 and 300"),
        ("data__data_dir", "a\0b", "without NUL"),
        ("pretrained", "/" * 5000, "at most 4,095 bytes"),
        ("init_from", "é" * 200, "this has 400 and 400"),
        ("logging__every_steps", int("9" * 4000), "1000000000"),
    ],
)
def test_a_config_of_absurd_values(field, value, allowed):
    with pytest.raises(InputError) as caught:
        parse(altered(**{field: value}))
    said = str(caught.value)
    assert field.replace("__", ".").removeprefix("data.synthetic.") in said
    assert allowed in said
    assert len(said) < 1000


def test_a_number_that_python_does_not_write():
    with pytest.raises(InputError, match=r"seed = a number of thousands of digits: .*less than"):
        parse(altered(seed=10**5000))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"sampling__num_ids_per_batch": 4096, "sampling__num_images_per_id": 4096},
            ("sampling.num_ids_per_batch 4096 x sampling.num_images_per_id 4096 x 2", "at most 1,073,741,824", "Lower"),
        ),
        (
            {"evaluation__batch_size": 4096, "data__image_size": (512, 512)},
            ("evaluation.batch_size 4096 x 512 x 512 pixels are 3,221,225,472 bytes", "at most 1,073,741,824", "Lower"),
        ),
        (
            {"data__synthetic__num_train_ids": 9000, "data__synthetic__num_images_per_camera": 9000},
            ("people with 9,000 images per camera", "at most 1,000,000", "Lower"),
        ),
    ],
)
def test_values_that_are_absurd_together(changes, words):
    with pytest.raises(InputError) as caught:
        parse(altered(**changes))
    assert all(word in str(caught.value) for word in words)


def test_every_number_of_a_config_has_an_upper_bound():
    """Or is a rate, a weight or a margin, which takes no memory."""

    def numbers(schema, groups, prefix=""):
        for name, field in schema["properties"].items():
            kinds = [field, *field.get("anyOf", []), *field.get("prefixItems", []), field.get("items", {})]
            for kind in kinds:
                reference = kind.get("$ref", "").rpartition("/")[2]
                if reference:
                    yield from numbers(groups[reference], groups, f"{prefix}{name}.")
                elif kind.get("type") == "integer" and not {"maximum", "exclusiveMaximum"} & kind.keys():
                    yield f"{prefix}{name}"

    schema = importlib.import_module("icre_jax.settings.fields").Settings.model_json_schema()
    # One of a few each, as a literal, a validator or icre_jax.settings.consistency says.
    assert {*numbers(schema, schema["$defs"])} == {"data.trial", "model.depth", "model.last_stride", "model.mpfr.taps"}


@pytest.mark.parametrize("text", ["0", "257", "-1", "9" * 5000, "1e3", "٣", "1_0", "", " 7", "0x10", "7.0", "nan"])
def test_whole_numbers_of_flags(text):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        command.whole_number(1, 256)(text)
    assert "give a whole number from 1 to 256" in str(caught.value)
    assert len(str(caught.value)) < 200
    assert command.whole_number(1, 256)("256") == 256


FLAGS = {
    "verify": ["--dataset", "llcm", "--data_dir", "x", "--num_workers"],
    "embed": ["--network", "synthetic", "--images", "x", "--modality", "visible", "--out", "x.npz", "--batch_size"],
    "calibrate": ["--network", "synthetic", "--images", "x", "--out", "x.json", "--seed"],
    "convert": ["--from_safetensors", "x", "--out", "y", "--width"],
    "describe": ["--measure_steps=0", "--config=configs/synthetic.py", "--measure_batch"],
    "search": ["--index", "x", "--images", "y", "--modality", "visible", "--top"],
    "serve": ["--index", "x", "--port"],
    "ablate": ["--config", "configs/synthetic.py", "--num_parallel"],
    "sweep": ["--config", "configs/synthetic.py", "--num_parallel"],
    "noise": ["--config", "configs/synthetic.py", "--runs"],
    "evaluate": ["--workdir", "x", "--checkpoint"],
    "export": ["--workdir", "x", "--out", "y", "--checkpoint"],
    "index": ["--index", "x", "--images", "y", "--modality", "visible", "--network", "synthetic", "--trial"],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")
@pytest.mark.parametrize("value", ["1000000000", "-7", "9" * 5000, "nan", ""], ids=lambda value: value[:12])
@pytest.mark.parametrize("name", FLAGS)
def test_flags_of_absurd_values(name, value, tmp_path, monkeypatch, capsys):
    """In this process: what a command says, and that it says it, is the same in one of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    *known, flag = FLAGS[name]
    try:
        importlib.import_module(f"icre_jax.{name}").main([*known, f"{flag}={value}"])
    except InputError as error:
        said = str(error)
    except SystemExit as error:
        said = capsys.readouterr().err if error.code == 2 else "no Traceback, but another exit code"
    else:
        pytest.fail("It was accepted.")
    assert "Traceback" not in said
    assert value[:12] in said or "missing" in said or "There is no" in said
    assert {path.name for path in tmp_path.iterdir()} <= {"configs", ".lock"}


@pytest.mark.parametrize(("text", "words"), [("9" * 5000, "is no seed"), (",".join(["1"] * 20_000), "at most 10,000")])
def test_seeds(text, words):
    with pytest.raises(InputError, match=words) as caught:
        read_seeds(text)
    assert len(str(caught.value)) < 1000


def test_names_that_are_no_text_are_refused_before_anything_is_done(monkeypatch, capsys):
    """Results, tables and pages are UTF-8."""
    monkeypatch.setattr(sys, "argv", ["icre_jax", "--query", os.fsdecode(b"\xff.npz")])
    codes = []
    command.run(pytest.fail, leave=codes.append)
    assert codes == [2]
    assert capsys.readouterr().err.startswith("error: The name b'\\xff.npz' is not valid UTF-8. Rename the file")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENAMETOOLONG, "Choose a shorter name: a path has at most 4,095 bytes, and a part of it 255."),
        (errno.ELOOP, "choose another folder"),
        (errno.ENOSPC, "Free space"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_a_disk_answers_is_said_in_one_sentence(number, words, capsys):
    def fail(_):
        raise OSError(number, os.strerror(number), f"\x1b[2J{'a' * 5000}")

    codes = []
    command.run(fail, leave=codes.append)
    said = capsys.readouterr().err
    assert codes == [2]
    assert words in said
    assert "\x1b" not in said
    assert len(said) < 600


def test_what_is_no_answer_of_a_disk_stays_an_error():
    def fail(_):
        raise OSError(errno.EBADF, "a bug")

    with pytest.raises(OSError, match="a bug"):
        command.run(fail)


def test_orders_to_a_terminal_are_shown_as_text(capsys):
    with Screen() as screen:
        screen.say("found \x1b]0;title\x07 and \u202e\x9b2J in a name\nsecond line")
    said = capsys.readouterr().out
    assert said == "found \\x1b]0;title\\x07 and \\u202e\\x9b2J in a name\nsecond line\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config.data.num_workers=1000000"], "data.num_workers = 1000000: Input should be less than or equal to 2"),
        (["--config.data.image_size=(1000000000,1000000000)"], "less than or equal to 1024"),
        (["--config.model.width=1000000"], "model.width = 1000000: Input should be less than or equal to 256"),
        (["--config.schedule.num_epochs=1000000000"], "less than or equal to 100000"),
        ([f"--config.seed={'9' * 5000}"], "cannot be used"),
        ([f"--config.data.data_dir={'a' * 5000}"], "at most 4,095 bytes"),
        ([f"--workdir={'a' * 5000}"], "Choose a shorter name"),
    ],
)  # fmt: skip
def test_training_refuses_them(flags, words, tmp_path):
    """With no more than 4 GiB of memory."""
    limited = "import resource, runpy; resource.setrlimit(resource.RLIMIT_DATA, (2**32, 2**32)); runpy."
    limited += "run_module('icre_jax.train', run_name='__main__', alter_sys=True)"
    process = subprocess.run(
        [sys.executable, "-c", limited, f"--config={ROOT / 'configs' / 'synthetic.py'}", *flags],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert process.returncode == 2, process.stderr
    assert words in process.stderr
    assert "Traceback" not in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_home_is_what_a_shell_would_make_of_it(tmp_path, monkeypatch):
    """bash expands ~ in `--flag ~/x` and not in `--flag=~/x`: an index was changed past its lock."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "gallery").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path}/home/gallery is not the index of a gallery"):
        importlib.import_module("icre_jax.index").main(["--index=~/gallery", "--delete", "anna"])
    with pytest.raises(InputError, match="~/nowhere holds no trained network"):
        icre_jax.load("~/nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_that_takes_a_path_knows_home(name):
    text = (ROOT / "icre_jax" / f"{name}.py").read_text(encoding="utf-8")
    assert "type=Path" not in text
