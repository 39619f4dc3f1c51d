"""The benchmark of the step starts, prints its table, and refuses what it cannot do."""

import pytest

from benchmarks.interleaved import Timed, ratios, run_in_turns
from tests.conftest import run_command
from tests.test_commands import refused


def test_a_small_network_is_timed():
    process = run_command(
        "benchmarks.train_step", "--config", "configs/synthetic.py", "--image_size", "32", "16", "--batch", "8",
        "--rounds", "1", "--rows", "plain", "baseline", "--task", "embed", "--config.model.width=8",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    for word in ("matrix product", "baseline / plain:", "CPU time"):
        assert word in process.stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--batch", "6"), ("--batch is 6", "8, 12, 16")),
        (("--rounds", "0"), ("--rounds is 0", "1 or more")),
        (("--rows", "torch"), ("row torch", "baseline")),
        (("--rows", "resnet"), ("resnet", "baseline")),
    ],
)
def test_what_cannot_be_timed_is_refused(flags, words):
    refused(run_command("benchmarks.train_step", *flags), *words)


def test_turns_and_ratios():
    order: list[str] = []
    timed = run_in_turns({name: lambda name=name: order.append(name) for name in "ab"}, rounds=2)
    assert order == ["a", "b"] * 3  # once untimed
    assert len(timed["a"].seconds) == 2
    ours, reference = (Timed(seconds, seconds) for seconds in ((2.0, 9.0, 4.0), (1.0, 1.0, 4.0)))
    assert ratios(ours, reference) == (2.0, 1.0, 9.0)  # of a round, not of medians
