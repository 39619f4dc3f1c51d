"""JSON: configs, results, logs, calibrations, and what a rendered tree says of itself."""

import contextlib
import importlib
import json
from pathlib import Path

import pytest

from icre_jax.data.labelled import read_rendered_seed
from icre_jax.data.verification import verify
from icre_jax.datasets import RENDERED_MARK
from icre_jax.engine.stored import read_settings
from icre_jax.evals.results import METRICS, ProtocolResult, read_results, write_results
from icre_jax.evals.tables import table
from icre_jax.machine.command import read_config
from icre_jax.retrieval.calibration import Calibration
from icre_jax.settings import parse, to_json
from icre_jax.training.log import RunLog
from tests.attacks.harness import Reader
from tests.page_server import calibrated


def make_config(folder: Path, _) -> None:
    settings = parse(importlib.import_module("configs.synthetic").get_config())
    (folder / "config.json").write_text(to_json(settings))


def read_both(folder: Path) -> None:
    """As `--config RUN/config.json`, and as what a workdir holds."""
    file = folder / "config.json"
    if file.is_file():
        read_config([f"--config={file}", "--config.seed=3"])
    read_settings(folder)


def result(**changes) -> ProtocolResult:
    known = dict.fromkeys(METRICS, 0.5)
    facts = {
        "dataset": "sysu_mm01", "setting": "all/single", "direction": "infrared to visible", "num_queries": 4,
        "num_valid_queries": 4, "num_trials": 2, "flip": False, "reranking": False,
        "mean": known, "std": known, "cmc": [0.5] * 20, "chance": 0.1,
    }  # fmt: skip
    names = ProtocolResult.__dataclass_fields__
    values = {name: facts.get(name, "x") for name in names}
    return ProtocolResult(**values | changes)


def make_results(folder: Path, _) -> None:
    write_results(folder, [result()], {"step": 3, "checkpoint": "last", "trial": 1})


def read_result(folder: Path) -> None:
    for found in read_results(folder)[0]:
        found.scalars()
    table(read_results(folder)[0])


def make_log(folder: Path, _) -> None:
    lines = [{"kind": "train", "step": step, "epoch": 0.5, "loss": 1.0 / step} for step in range(1, 9)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "timing.jsonl").write_text('{"step": 1, "seconds": 0.5}\n{"step": 4, "seconds": 1.5}\n')


def read_log(folder: Path) -> None:
    with contextlib.closing(RunLog(folder, 9, tensorboard=False)) as log:
        log.read_steps(), log.read_speed(), log.read_score_curve(), log.read_evaluations()


def make_mark(folder: Path, sound) -> None:
    for path in sound["sysu_mm01"].rglob("*"):
        target = folder / path.relative_to(sound["sysu_mm01"])
        if path.is_dir():
            target.mkdir(exist_ok=True)
        elif "0001" in path.name or path.suffix not in (".jpg", ".png", ".bmp"):
            target.write_bytes(path.read_bytes())


def read_mark(folder: Path) -> None:
    read_rendered_seed(folder)
    verify("sysu_mm01", folder, num_workers=1)


READERS = (
    Reader("configs (json)", make_config, read_both),
    Reader("results (json)", make_results, read_result),
    Reader("log of a run (json lines)", make_log, read_log, writes=True),
    Reader(
        "calibration (json)",
        lambda folder, _: (folder / "calibration.json").write_text(calibrated().to_json()),
        lambda folder: Calibration.read(folder / "calibration.json"),
    ),
    Reader("mark of a rendered tree (json)", make_mark, read_mark, attacked=(RENDERED_MARK,)),
)

DIGITS = b"9" * 5000
BY_HAND = {
    "nothing": b"", "a space": b" ", "null": b"null", "a number": b"7", "a list": b"[]", "an object": b"{}",
    "a number of 5,000 digits": DIGITS, "a list of it": b'{"format": ' + DIGITS + b', "seed": ' + DIGITS + b"}",
    "nested 100,000 deep": b"[" * 100_000, "nested and closed": b"[" * 100_000 + b"]" * 100_000,
    "objects in objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a name twice": b'{"format": 1, "format": 2}',
    "a hundred thousand names": b"{" + b",".join(b'"%d":1' % i for i in range(10**5)) + b"}",
    "NaN": b'{"threshold": NaN, "seed": NaN}', "infinity": b'{"threshold": -Infinity, "seed": 1e999}',
    "half a character": b'{"a": "\xff"}', "a surrogate": b'{"seed": "\\ud800", "layout": "\\udfff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"), "a byte order mark": b"\xef\xbb\xbf{}",
    "orders to a terminal": b'{"\\u001b]0;x\\u0007": "\\u001b[2J"}', "raw orders": b'{"\x1b[2J": 1}',
    "40 MB of spaces": b" " * 4 * 10**7, "a text of 10 MB": b'"' + b"a" * 10**7 + b'"', "zeros": b"\0" * 4096,
    "an object in its own prototype": b'{"__proto__": {}, "__class__": "x", "__reduce__": "os.system"}',
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files(reader, attack):
    attacks = attack(reader)
    attacks.places()
    few = reader.writes or "rendered" in reader.name
    for number in range(8 if "rendered" in reader.name else 50):
        attacks.mutant(number)
    for name, content in BY_HAND.items():
        if not (few and len(content) > 10**6):
            attacks.by_hand(name, attacks.files[0], content)
    assert attacks.failures == {}
