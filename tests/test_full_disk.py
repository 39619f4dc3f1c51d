"""A disk that is full when a checkpoint is due: training goes on, nothing old is lost, and the end says the truth."""

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console

from icre_jax.engine.checkpoint import folder as checkpoint_folder
from icre_jax.engine.checkpoint import opening
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.state import TrainState
from icre_jax.errors import NotSavedError
from icre_jax.machine import hosts
from icre_jax.machine.stop import StopRequest
from icre_jax.settings import parse
from icre_jax.training import session
from icre_jax.training.log import RunLog
from icre_jax.training.session import open_session
from tests.conftest import ROOT, flags_of
from tests.small_runs import assert_same_run, run, saved_steps

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def make_state(step: int, size: int = 1000) -> TrainState:
    kernel = jax.random.normal(jax.random.key(step), (size,))
    return TrainState(jnp.int32(step), {"kernel": kernel}, {"mean": jnp.ones(3)}, {"count": jnp.zeros(2)})


@pytest.fixture
def finished(small, reference, tmp_path_factory):
    """A run that was not disturbed: 9 steps with saves after 0, 3, 6 and 9."""
    if not reference:
        reference.append(tmp_path_factory.mktemp("reference"))
        run(small, reference[0])
    return reference[0]


def full_at(monkeypatch, *steps: int) -> None:
    """A save of these steps leaves a torn folder and fails, as orbax does on a full disk."""
    real = ocp.CheckpointManager.save

    def save(self, step, **arguments):
        if step in steps:
            torn = Path(self.directory) / f"{step}.orbax-checkpoint-tmp" / "params"
            torn.mkdir(parents=True)
            (torn / "half").write_bytes(b"x" * 1000)
            raise FULL
        return real(self, step, **arguments)

    monkeypatch.setattr(ocp.CheckpointManager, "save", save)


def test_training_goes_on_and_the_next_save_makes_up_for_it(small, finished, tmp_path, monkeypatch):
    full_at(monkeypatch, 3)
    outcome, screen = run(small, tmp_path)
    assert outcome is not None
    assert "The checkpoint of step 3 could not be written" in screen
    assert "No space left on device" in screen
    assert "Older checkpoints are intact: [0]. Training goes on; the next save tries again." in screen
    assert (tmp_path / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert 9 in saved_steps(tmp_path)


def test_a_host_without_room_keeps_the_others_from_saving(small, finished, tmp_path, monkeypatch):
    """Saving is a common act: this process has room, and must not begin to wait for one that has none."""
    begun, asked = [], []
    real_save, real_space = ocp.CheckpointManager.save, Checkpoints.require_space
    real_exchange = hosts.exchange

    def save(self, step, **arguments):
        begun.append(step)
        return real_save(self, step, **arguments)

    def require_space(self, state):
        asked.append(int(state.step))
        real_space(self, state)

    def exchange(value):
        if asked[-1:] == [3]:
            asked.append(None)
            return [value, [True, "The disk of /elsewhere has 0 MiB free."]]
        return real_exchange(value)

    monkeypatch.setattr(ocp.CheckpointManager, "save", save)
    monkeypatch.setattr(Checkpoints, "require_space", require_space)
    monkeypatch.setattr(hosts, "exchange", exchange)
    _, screen = run(small, tmp_path)
    assert begun == [0, 6, 9]
    assert "process 1: The disk of /elsewhere has 0 MiB free." in screen
    assert "Training goes on" in screen
    assert (tmp_path / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


@pytest.mark.long
def test_a_last_state_that_was_never_saved_is_an_error(small, finished, tmp_path, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        full_at(patch, 6, 9)
        with pytest.raises(NotSavedError, match=r"step 9 could not be written.*intact: \[.*3\]"):
            run(small, tmp_path)
    assert max(saved_steps(tmp_path)) == 3
    # With space again the same command ends as if nothing had happened.
    run(small, tmp_path)
    assert_same_run(tmp_path, finished)


def test_a_first_state_that_cannot_be_saved_stops_at_once(small, tmp_path, monkeypatch):
    full_at(monkeypatch, 0)
    with pytest.raises(NotSavedError, match="step 0 could not be written"):
        run(small, tmp_path)
    assert saved_steps(tmp_path) == set()


def test_scores_of_a_state_whose_save_failed_come_with_the_retry(small, tmp_path, monkeypatch):
    """Asked to stop where a save has just failed, the retry is of the same step: it stays a candidate for the best."""
    real, failed = Checkpoints.save, []

    def save(self, state, facts, scores=None):
        if int(state.step) == 3 and not failed:
            failed.append(scores)
            raise NotSavedError("The disk was full.")
        if failed:
            assert scores == failed[0]
        real(self, state, facts, scores)

    monkeypatch.setattr(Checkpoints, "save", save)
    asked = iter([False, False, False, True])
    stop = property(lambda self: next(asked), lambda *_: None)
    monkeypatch.setattr(StopRequest, "requested", stop, raising=False)
    outcome, screen = run(small, tmp_path)
    assert outcome is None
    assert "step 3 is saved" in screen
    assert failed[0]


def test_why_the_last_act_of_a_save_failed_is_known_to_who_asks_meanwhile(tmp_path, monkeypatch):
    """Of several processes the library would wait for the others before it says so."""

    def full(*_, **__):
        raise FULL

    checkpoints = Checkpoints(tmp_path, best_metric="m")
    checkpoints.save(make_state(0), {}, {"m": 0.9})
    assert checkpoints.failed_last() is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "write_sums", full)
        with pytest.raises(NotSavedError) as caught:
            checkpoints.save(make_state(1), {}, {"m": 0.1})
    assert checkpoints.failed_last() == str(caught.value)
    assert "No space left on device. Older checkpoints are intact: [0]." in str(caught.value)
    checkpoints.save(make_state(1), {}, {"m": 0.1})
    assert checkpoints.failed_last() is None
    checkpoints.close()


@pytest.fixture
def disk(tmp_path):
    """Makes a file system of so many MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)]
        process = subprocess.run(command, capture_output=True, check=False)
        if process.returncode:
            pytest.skip(f"cannot mount a small file system here: {process.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write until nothing more goes in."""
    file = folder / "filler"
    with file.open("wb", buffering=0) as opened:
        while True:
            try:
                opened.write(b"x" * 2**12)
            except OSError:
                return file


def test_a_save_that_a_really_full_disk_cuts_off(disk, monkeypatch):
    monkeypatch.setattr(checkpoint_folder, "_SPARE_BYTES", -(10**9))  # so that it is not refused beforehand
    workdir = disk(3) / "work"
    checkpoints = Checkpoints(workdir, best_metric="m")
    checkpoints.save(make_state(0), {}, {"m": 0.9})
    checkpoints.save(make_state(1), {}, {"m": 0.1})
    free = os.statvfs(workdir).f_bavail
    for _ in range(2):
        with pytest.raises(NotSavedError, match=r"step 2 could not be written.*No space left.*intact: \[0, 1\]"):
            checkpoints.save(make_state(2, size=2_000_000), {}, {"m": 0.5})
        assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"0", "1"}
        assert os.statvfs(workdir).f_bavail == free  # the space is there again
    np.testing.assert_array_equal(
        checkpoints.restore(1, like=make_state(7)).params["kernel"], make_state(1).params["kernel"]
    )
    checkpoints.save(make_state(2), {}, {"m": 0.5})
    assert checkpoints.steps == [0, 2]  # the best and the latest, as if nothing had been
    checkpoints.close()


def test_the_log_keeps_its_lines_until_there_is_space(disk):
    folder = disk(1)
    log = RunLog(folder, None, tensorboard=False)
    log.write_step({"step": 1, "loss": 0.5})
    filler = fill(folder)
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - 2**12)  # some lines still go in, one is cut off in its middle
    for step in range(2, 400):
        log.write_step({"step": step, "loss": 0.5})
    before = (folder / "metrics.jsonl").read_bytes()
    assert before.endswith(b"}\n")
    with pytest.raises(NotSavedError, match=r"metrics\.jsonl could not be written"):
        log.require_written()
    assert (folder / "metrics.jsonl").read_bytes() == before
    filler.unlink()
    log.require_written()
    assert [line["step"] for line in log.read_steps()] == list(range(1, 400))
    log.close()


def test_the_log_is_on_the_disk_before_a_checkpoint_counts_on_it(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    log = RunLog(tmp_path, None, tensorboard=False)
    log.write_step({"step": 1, "loss": 0.5})
    assert synced == []  # a step does not wait for the disk
    log.require_written()
    assert synced == [tmp_path / "metrics.jsonl", tmp_path / "timing.jsonl"]

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NotSavedError, match=r"metrics\.jsonl could not be written: .*Input/output"):
        log.require_written()
    log.close()


def test_a_process_that_writes_no_log_needs_no_disk_for_one(small, tmp_path, monkeypatch):
    """Of several, all but the first: a host whose temporary folder is full must not keep the run from saving."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with open_session(parse(small), tmp_path / "w", Console(quiet=True)) as opened:
        monkeypatch.setattr(hosts, "is_first", lambda: False)
        log = session._open_log(opened.run, opened.checkpoints, opened.screen)
    log.write_step({"step": 1, "loss": 0.5})
    log.write_speed({"step": 1, "seconds": 1.0})
    log.require_written()
    assert log.read_steps() == log.read_speed() == log.read_score_curve() == []
    log.close()
    assert (tmp_path / "w" / "metrics.jsonl").read_bytes() == b""


def start(config, workdir: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "icre_jax.train", *flags_of(config), "--workdir", str(workdir)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_steps(process: subprocess.Popen, workdir: Path, count: int) -> None:
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count('"train"') >= count):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


@pytest.mark.long
def test_the_command_on_a_disk_that_fills_up_and_is_freed(config, disk, tmp_path):
    config.schedule.num_epochs = 12
    config.evaluation.every_epochs = 3
    folder = disk(64)
    process = start(config, folder / "run")
    wait_for_steps(process, folder / "run", 3)
    filler = fill(folder)
    assert process.stdout is not None
    for line in process.stdout:
        if "Training goes on; the next save tries again" in line:
            assert "warning: " in line
            break
    else:
        pytest.fail(process.communicate()[1])
    filler.unlink()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    steps = dict.fromkeys(json.loads(line)["step"] for line in lines)
    assert list(steps) == list(range(37))  # no line is missing


@pytest.mark.long
def test_the_command_on_a_disk_that_stays_full(config, disk):
    config.schedule.num_epochs = 6
    folder = disk(64)
    process = start(config, folder / "run")
    wait_for_steps(process, folder / "run", 3)
    fill(folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 4, out + err
    assert "Training goes on" in out
    assert "error: " in err
    assert "Free space and start the same command again." in err
    assert "Traceback" not in err
    assert saved_steps(folder / "run")  # and nothing torn
