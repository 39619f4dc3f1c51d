"""A run that is disturbed for minutes or hours ends in the bits of one that was not, and its memory stays flat.

    pytest -m slow -n 0 -s tests/test_soak.py --soak-minutes 60

What disturbs it: SIGKILL and SIGTERM at random moments, a disk that is full, files that a process which was killed
would leave, a clock that jumps by a day and back, and a disk that is slow. Some of it comes from
tests/disturbed/sitecustomize.py, which every Python process of the run reads first.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import theilslopes

from tests.conftest import ROOT, flags_of
from tests.small_runs import assert_same_run, run, saved_steps


def memory_of(pid: int) -> int:
    """RSS of a process and its children, in KiB."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if pid in (int(folder.name), parent):
                total += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return total


class Disturbed:
    """One start of the command, with what it is disturbed by."""

    def __init__(self, config, workdir: Path, kind: str, seed: int):
        self.kind = kind
        environment = os.environ | {
            "JAX_NUM_CPU_DEVICES": "1",
            "PYTHONPATH": str(ROOT / "tests" / "disturbed"),
            "ICRE_JAX_DISTURBED": kind,
            "ICRE_JAX_DISTURBED_SEED": str(seed),
        }
        command = [sys.executable, "-m", "icre_jax.train", *flags_of(config), "--workdir", str(workdir)]
        self.output = (workdir.parent / "output.txt").open("ab")
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=self.output, stderr=self.output)
        self.workdir, self.began, self.most, self.memory = workdir, time.monotonic(), 0, []
        self.lines_before = self.num_lines()

    def watch(self, seconds: float) -> None:
        """Until the process ends, or so many seconds have passed; memory is sampled once it trains."""
        while self.process.poll() is None and time.monotonic() < self.began + seconds:
            self.most = max(self.most, memory := memory_of(self.process.pid))
            if self.num_lines() > self.lines_before + 30:  # after compiling, and after a first evaluation
                self.memory.append((time.monotonic() - self.began, memory))
            time.sleep(0.5)

    def num_lines(self) -> int:
        """Of the log of the run."""
        metrics = self.workdir / "metrics.jsonl"
        return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0

    def end(self, number: int) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=300)
        self.output.close()
        return code


def slope(samples: list[tuple[float, int]]) -> float | None:
    """KiB a second that memory grows by, the median over all pairs of samples; None of less than 30 seconds."""
    if not samples or samples[-1][0] - samples[0][0] < 30:
        return None
    times, memory = np.array(samples, float).T
    return float(theilslopes(memory, times)[0])


def leave_rubbish(workdir: Path, draw: random.Random) -> str:
    """What a killed process, or somebody who tidies up, may leave or take away; nothing of it may matter."""
    torn = workdir / "checkpoints" / "999999.orbax-checkpoint-tmp"
    what = draw.choice(["a torn folder", "half a line", "no timing", "a partial file"])
    if what == "a torn folder" and torn.parent.is_dir():
        torn.mkdir(exist_ok=True)
        (torn / "half").write_bytes(b"x" * 1000)
    elif what == "half a line" and (workdir / "metrics.jsonl").is_file():
        with (workdir / "metrics.jsonl").open("ab") as file:
            file.write(b'{"kind": "train", "st')
    elif what == "no timing":
        (workdir / "timing.jsonl").unlink(missing_ok=True)
    elif workdir.is_dir():
        (workdir / ".results.json.partial").write_bytes(b"{")
    return what


@pytest.mark.slow
def test_a_disturbed_run_ends_in_the_same_bits(config, tmp_path, request):
    minutes = request.config.getoption("--soak-minutes")
    config.schedule.num_epochs = 60
    config.evaluation.every_epochs = 10
    reference, workdir = tmp_path / "reference", tmp_path / "disturbed" / "run"
    workdir.parent.mkdir()
    run(config, reference)
    seed = int(time.time())
    draw = random.Random(seed)
    print(f"seed {seed}", flush=True)
    deadline, ends, memories, finished = time.monotonic() + 60 * minutes, [], [], 0
    while True:
        last = time.monotonic() > deadline
        kind = "" if last else draw.choice(["", "clock", "slow_disk", "full_disk"])
        started = Disturbed(config, workdir, kind, draw.randrange(2**31))
        started.watch(600 if last else draw.uniform(5, 90))
        number = draw.choice([signal.SIGKILL, signal.SIGTERM])
        code = started.end(signal.SIGTERM if last else number)
        memories.append(slope(started.memory))
        print(f"{kind or 'nothing'}: exit {code}, most {started.most / 1024:.0f} MiB, slope {memories[-1]}", flush=True)
        said = (workdir.parent / "output.txt").read_text(errors="replace")
        allowed = {0, 75, -signal.SIGKILL, -signal.SIGTERM} | ({2, 4} if kind == "full_disk" else set())
        assert code in allowed, said[-3000:]
        assert "Traceback" not in said, said[-3000:]
        ends.append((kind, code))
        if code == 0:
            check(workdir, reference)
            finished += 1
            if last:
                break
            workdir = workdir.with_name(f"run_{finished}")
        elif not last:
            print(f"  then {leave_rubbish(workdir, draw)}", flush=True)
    codes = [code for _, code in ends]
    print(f"{len(ends)} starts in {minutes:g} minutes, {finished} runs to the end; exit codes {sorted(codes)}")
    slopes = [value for value in memories if value is not None]
    if slopes:
        print(f"memory: {np.median(slopes):.0f} KiB/s in the middle, {max(slopes):.0f} at most")
        assert np.median(slopes) < 200, slopes


@pytest.mark.slow
def test_memory_of_a_run_that_is_left_in_peace_grows_by_its_saves_alone(config, tmp_path, request):
    """By less than half a MiB for each; docs/attacks.md says where it goes."""
    minutes = request.config.getoption("--soak-minutes")
    config.schedule.num_epochs = 50_000
    config.evaluation.every_epochs = 100
    (tmp_path / "steady").mkdir()
    started = Disturbed(config, tmp_path / "steady" / "run", "", 0)
    started.watch(60 * minutes)
    assert started.process.poll() is None, (tmp_path / "steady" / "output.txt").read_text()[-3000:]
    num_lines = started.num_lines()
    assert started.end(signal.SIGTERM) == 75
    samples = np.array(started.memory, float)
    for part in np.array_split(samples, 6):
        print(f"from {part[0, 0]:.0f} s: {np.median(part[:, 1]) / 1024:.1f} MiB in the middle")
    growth = slope(list(samples[len(samples) // 4 :]))
    assert growth is not None
    saves_per_second = num_lines / 3 / samples[-1, 0]
    print(f"{num_lines} lines in {minutes:g} minutes, {growth:.1f} KiB/s after the first quarter")
    print(f"{growth / saves_per_second:.0f} KiB for each of {num_lines // 3} saves")
    assert growth / saves_per_second < 512


def check(workdir: Path, reference: Path) -> None:
    """As `assert_same_run`, but for what counts seconds, and what was put there."""
    (workdir / ".results.json.partial").unlink(missing_ok=True)
    assert_same_run(workdir, reference)
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert saved_steps(workdir)
