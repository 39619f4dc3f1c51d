"""kill -9, again and again: the run ends in the same bits, and nothing torn or double is left."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, flags_of
from tests.small_runs import assert_same_run, run


def start(config, workdir: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "icre_jax.train", *flags_of(config), "--workdir", str(workdir)]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


class Started:
    """A process whose output is read while it runs."""

    def __init__(self, config, workdir: Path):
        self.process = start(config, workdir)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines += self.process.stdout  # grows while it is read

    def wait_for(self, words: str, count: int = 1) -> bool:
        """Whether so many lines with the words came before the end."""
        while self.process.poll() is None:
            if sum(words in line for line in list(self.lines)) >= count:
                return True
            time.sleep(0.001)
        return False

    def end(self) -> int:
        code = self.process.wait(timeout=300)
        self._reader.join()
        self.process.stdout.close()
        return code


def kill_at(moment: str, started: Started, workdir: Path, random_numbers: random.Random) -> bool:
    """Kill at a random moment of that kind; whether it was still running."""
    if moment == "anywhere":
        with_delay = random_numbers.uniform(0, 20)
        deadline = time.monotonic() + with_delay
        while time.monotonic() < deadline and started.process.poll() is None:
            time.sleep(0.01)
    elif moment == "training":
        started.wait_for("epoch ")
        time.sleep(random_numbers.uniform(0, 3))
    else:  # while a checkpoint is being written, or an old one deleted
        started.wait_for(" | lr ", random_numbers.randint(1, 9))  # a line is a step, the first saves or later ones
        while started.process.poll() is None and all(p.name.isdigit() for p in (workdir / "checkpoints").iterdir()):
            pass
        time.sleep(random_numbers.uniform(0, 0.05))
    running = started.process.poll() is None
    started.process.send_signal(signal.SIGKILL) if running else None
    code = started.end()
    assert code in (0, -signal.SIGKILL), "".join(started.lines)
    return code != 0


def endure(config, num_kills: int, seed: int, tmp_path: Path) -> None:
    """Kill so many times, in one workdir after the other; each of them must end like a run in peace."""
    reference = tmp_path / "reference"
    run(config, reference)
    random_numbers = random.Random(seed)
    moments = ["saving", "training", "anywhere"]
    killed, number = 0, 0
    while killed < num_kills:
        number += 1
        workdir = tmp_path / f"killed_{number}"
        unfinished = True
        while unfinished and killed < num_kills:
            started = Started(config, workdir)
            unfinished = kill_at(moments[killed % 3], started, workdir, random_numbers)
            print(f"{number}: {moments[killed % 3]}, {started.lines[-1:]}, {unfinished=}", flush=True)
            killed += unfinished
        if unfinished:
            last = Started(config, workdir)
            assert last.end() == 0, "".join(last.lines)
        assert_same_run(workdir, reference)


@pytest.mark.slow
def test_killed_in_a_save_a_run_ends_in_the_same_bits(config, tmp_path):
    config.schedule.num_epochs = 5
    config.evaluation.every_epochs = 2
    endure(config, 1, seed=0, tmp_path=tmp_path)


@pytest.mark.slow
def test_killed_thirty_times(config, tmp_path):
    config.schedule.num_epochs = 15
    config.evaluation.every_epochs = 5
    endure(config, 30, seed=int(time.time()), tmp_path=tmp_path)
