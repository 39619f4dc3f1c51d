"""Several processes train one network: two on this machine, which meet on its loopback."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from icre_jax.data.pipeline import RecordSource, evaluation_batches, training_batches
from icre_jax.data.plan import BalancedPlan
from icre_jax.engine.parallel import make_mesh
from icre_jax.errors import HostError, InputError, NotSavedError
from icre_jax.machine import hosts
from icre_jax.settings import parse
from tests.conftest import ROOT, flags_of, free_port, run_command


def start(
    config,
    workdir: Path,
    *extra: str,
    num_devices: int = 2,
    num_processes: int = 2,
    program: tuple[str, ...] = ("-m", "icre_jax.train"),
) -> list[subprocess.Popen]:
    """`icre_jax.train` in several processes; their output goes to files beside the workdir."""
    address = f"localhost:{free_port()}"
    started = []
    for process in range(num_processes):
        flags = ["--distributed", "--coordinator", address, "--num_processes", str(num_processes)]
        flags += ["--process_id", str(process)]
        command = [sys.executable, *program, *flags_of(config), "--workdir", str(workdir), *flags, *extra]
        with said(workdir, process).open("w") as file:
            started.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=os.environ | {"JAX_NUM_CPU_DEVICES": str(num_devices), "COLUMNS": "160"},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    return started


def said(workdir: Path, process: int) -> Path:
    return workdir.with_name(f"{workdir.name}.{process}")


def finish(started: list[subprocess.Popen], workdir: Path, *, timeout: float = 600) -> tuple[list[int], list[str]]:
    """Exit codes and output of each."""
    try:
        codes = [process.wait(timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    return codes, [said(workdir, process).read_text() for process in range(len(started))]


def wait_for_steps(workdir: Path, num_steps: int) -> None:
    metrics, deadline = workdir / "metrics.jsonl", time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count('"train"') > num_steps):
        assert time.monotonic() < deadline, said(workdir, 0).read_text()
        time.sleep(0.1)


def lines_of(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_numbers(workdir: Path, other: Path, rel: float = 1e-4) -> None:
    """Losses to `rel` of their size and scores to 0.02 (one query in 24 is 0.04): what is left is rounding."""
    ours, theirs = lines_of(workdir), lines_of(other)
    assert [(line["kind"], line["step"]) for line in ours] == [(line["kind"], line["step"]) for line in theirs]
    for a, b in zip(ours, theirs, strict=True):
        for name, value in a.items():
            if isinstance(value, float):
                tolerance = {"abs": 0.02} if a["kind"] == "evaluation" else {"rel": rel, "abs": 1e-6}
                assert value == pytest.approx(b[name], **tolerance), (a["step"], name)
    a, b = (json.loads((folder / "results.json").read_text()) for folder in (workdir, other))
    assert a["provenance"]["step"] == b["provenance"]["step"]
    for ours, theirs in zip(a["results"], b["results"], strict=True):
        assert ours["mean"] == pytest.approx(theirs["mean"], abs=0.02)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture
def short(config):
    config.schedule.num_epochs = 2
    config.checkpoint.keep_latest = 9
    return config


@pytest.fixture
def alone(short, folders) -> Path:
    """The run of one process, made once for this file."""
    if not (folders / "alone" / "results.json").exists():
        done = run_command("icre_jax.train", *flags_of(short), "--workdir", str(folders / "alone"))
        assert done.returncode == 0, done.stderr
    return folders / "alone"


@pytest.fixture
def together(short, folders) -> Path:
    """The run of two processes with two devices each, made once for this file."""
    if not (folders / "together" / "results.json").exists():
        codes, texts = finish(start(short, folders / "together"), folders / "together")
        assert codes == [0, 0], texts
    return folders / "together"


def halfway(workdir: Path, copy: Path) -> Path:
    """A run without its last checkpoint."""
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "checkpoints" / str(lines_of(copy)[-1]["step"]))
    return copy


@pytest.mark.long
def test_two_processes_start_from_the_network_of_another_run(short, alone, folders):
    short.schedule.num_epochs = 1
    workdir = folders / "heir"
    codes, outputs = finish(start(short, workdir, f"--config.init_from={alone}"), workdir)
    assert codes == [0, 0], outputs
    first = next(line for line in lines_of(workdir) if line["kind"] == "evaluation")
    last = [line for line in lines_of(alone) if line["kind"] == "evaluation"][-1]
    assert first["step"] == 0
    for name, value in first.items():
        if isinstance(value, float) and name != "epoch":
            assert value == pytest.approx(last[name], abs=0.02), name
    assert "and classifier, as the identities are the same" in " ".join(outputs[0].split())


@pytest.mark.long
def test_two_processes_give_what_one_gives(together, alone):
    assert_same_numbers(together, alone)
    text, other = said(together, 0).read_text(), said(together, 1).read_text()
    assert "on 4 x cpu" in text
    assert "process 1 of 2: meeting at localhost" in other
    assert "scores after" not in other  # process 0 alone talks
    assert {path.name for path in together.iterdir()} == {path.name for path in alone.iterdir()}


@pytest.mark.long
def test_one_process_continues_the_checkpoint_of_two(together, alone, short, tmp_path):
    workdir = halfway(together, tmp_path / "work")
    done = run_command("icre_jax.train", *flags_of(short), "--workdir", str(workdir))
    assert done.returncode == 0, done.stderr
    assert "Continuing after step" in done.stdout
    assert_same_numbers(workdir, alone)


@pytest.mark.slow
def test_two_processes_continue_the_checkpoint_of_one(alone, short, tmp_path):
    workdir = halfway(alone, tmp_path / "work")
    codes, texts = finish(start(short, workdir, "--config.parallel=pmap"), workdir)
    assert codes == [0, 0], texts
    assert "Continuing after step" in texts[0]
    assert_same_numbers(workdir, alone)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_one_step(short, tmp_path):
    short.schedule.num_epochs, short.evaluation.every_epochs = 500, 1000
    started = start(short, tmp_path / "work", num_devices=1)
    try:
        wait_for_steps(tmp_path / "work", 3)
        started[1].send_signal(signal.SIGTERM)
    finally:
        codes, texts = finish(started, tmp_path / "work", timeout=60)
    assert codes == [75, 75], texts
    step = int(texts[0].split("Stopped on request; step ")[1].split()[0])
    assert (tmp_path / "work" / "checkpoints" / str(step)).is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [1, 0])
def test_a_process_that_dies_ends_the_other_with_a_message(short, tmp_path, killed):
    short.schedule.num_epochs, short.evaluation.every_epochs = 500, 1000
    started = start(short, tmp_path / "work", num_devices=1)
    try:
        wait_for_steps(tmp_path / "work", 3)
        started[killed].kill()
    finally:
        codes, texts = finish(started, tmp_path / "work", timeout=hosts.HEARTBEAT_SECONDS + 45)
    assert codes[killed] == -signal.SIGKILL
    survivor = 1 - killed
    # Where our own words come first; else JAX ends the process with its own.
    assert codes[survivor] in (69, -signal.SIGABRT), texts
    assert "Start all of them again" in texts[survivor] or "another task died" in texts[survivor]


# `icre_jax.train` in a process whose disk is full when it writes the checkpoint of step 3, past the look beforehand.
FULL_DISK = """
import errno, os, sys
from icre_jax.engine.checkpoint import folder, opening
from icre_jax.machine import command, hosts
from icre_jax.train import main

def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

process, who = sys.argv[sys.argv.index("--process_id") + 1], os.environ["FULL_DISK_OF"]
if process == who == "0":  # the last act of a save, in a thread of orbax, when the others have written and wait
    real = opening.write_sums
    opening.write_sums = lambda step, **rest: full() if "3." in step.name else real(step, **rest)
elif process == who:
    real = folder.ocp.CheckpointManager.save
    save = lambda self, step, **rest: full() if step == 3 else real(self, step, **rest)
    folder.ocp.CheckpointManager.save = save
command.run(main, leave=hosts.leave)
"""


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_a_disk_that_fills_up_in_a_save_of_one_process_ends_all_with_its_words(short, tmp_path, monkeypatch, who):
    short.checkpoint.every_epochs = 1
    monkeypatch.setenv("FULL_DISK_OF", str(who))
    workdir = tmp_path / "work"
    codes, texts = finish(start(short, workdir, num_devices=1, program=("-c", FULL_DISK)), workdir)
    assert codes == [4, 4], texts
    for text in texts:
        said_last = " ".join(text.split())
        assert "The checkpoint of step 3 could not be written" in said_last
        assert "No space left on device. Older checkpoints are intact: [0]. All processes end" in said_last
        assert "Traceback" not in text
    assert f"process {who}: The checkpoint" in texts[1 - who]
    # Nothing torn, and the same commands continue.
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"0"}
    codes, texts = finish(start(short, workdir, num_devices=1), workdir)
    assert codes == [0, 0], texts


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [3, 4])
def test_more_processes_give_what_one_gives(num_processes, short, folders, tmp_path):
    short.sampling.num_ids_per_batch, short.sampling.num_images_per_id = 4, 3 if num_processes == 3 else 4
    # An epoch, after which differences of 1e-6 have become 1e-4: so small a network at so large a rate makes more of
    # rounding with every step.
    short.schedule.num_epochs, short.schedule.boundaries, short.schedule.factors = 1, (), ()
    done = run_command("icre_jax.train", *flags_of(short), "--workdir", str(tmp_path / "alone"))
    assert done.returncode == 0, done.stderr
    workdir = tmp_path / "work"
    codes, texts = finish(start(short, workdir, num_devices=1, num_processes=num_processes), workdir)
    assert codes == [0] * num_processes, texts
    assert f"on {num_processes} x cpu" in texts[0]
    assert_same_numbers(workdir, tmp_path / "alone", rel=1e-3)


@pytest.mark.long
def test_an_error_of_process_0_is_an_error_of_all(short, tmp_path):
    short.sampling.num_ids_per_batch = 64
    codes, texts = finish(start(short, tmp_path / "work", num_devices=1), tmp_path / "work", timeout=120)
    assert codes == [2, 2], texts
    assert all("num_ids_per_batch (P) is 64" in text for text in texts)


def flags(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    hosts.add_flags(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--process_id", "1"), r"need --distributed as well"),
        (("--distributed", "--process_id", "1"), r"--coordinator, --num_processes missing.*or none of them"),
        (
            ("--distributed", "--coordinator", "here", "--num_processes", "2", "--process_id", "0"),
            r"--coordinator is 'here'; it must be HOST:PORT",
        ),
        (
            ("--distributed", "--coordinator", "here:99999", "--num_processes", "2", "--process_id", "0"),
            r"'here:99999'; it must be HOST:PORT",
        ),
        (
            ("--distributed", "--coordinator", "here:1234", "--num_processes", "2", "--process_id", "2"),
            r"--process_id is 2; with --num_processes 2 it must be 0 \.\. 1",
        ),
        (
            ("--distributed", "--coordinator", "here:1234", "--num_processes", "0", "--process_id", "0"),
            r"--num_processes is 0",
        ),
    ],
)
def test_flags_that_do_not_fit_together(arguments, words):
    with pytest.raises(InputError, match=words):
        hosts.join(flags(*arguments))


def test_flags_are_refused_before_anything_is_done(short, tmp_path):
    done = run_command("icre_jax.train", *flags_of(short), "--workdir", str(tmp_path / "w"), "--num_processes", "2")
    assert done.returncode == 2
    assert "need --distributed" in done.stderr
    assert not (tmp_path / "w").exists()
    done = run_command("icre_jax.train", *flags_of(short), "--workdir", str(tmp_path / "w"), "--distributed")
    assert done.returncode == 2, done.stderr
    assert "cannot meet" in done.stderr
    assert "--coordinator" in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_to_meet():
    address = f"localhost:{free_port()}"
    with pytest.raises(InputError, match=rf"Nobody listens at --coordinator {address}.*--process_id 0"):
        hosts.wait_for_port(address, seconds=1)


def test_a_batch_that_hosts_and_devices_cannot_share(monkeypatch):
    monkeypatch.setattr("jax.device_count", lambda: 6)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.local_device_count", lambda: 3)
    with pytest.raises(InputError, match=r"16 rows is 8 .* pairs, which 6 devices \(2 processes with 3 each\) cannot"):
        make_mesh(16)


def test_hosts_share_a_batch_without_changing_it(prepared, config):
    settings = parse(config)
    source = RecordSource(prepared, ("train", "val"))
    plan = BalancedPlan(source.index, num_ids_per_batch=4, num_images_per_id=2, num_batches=3, seed=7)

    def collect(rows):
        arguments = {"data": settings.data, "settings": settings.augment, "seed": 7, "start": 1, "rows": rows}
        return list(training_batches(source, plan, **arguments))

    # As devices of two hosts may lie in turns.
    shares = [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]
    parts = [collect(rows) for rows in shares]
    for number, whole in enumerate(collect(None)):
        for rows, part in zip(shares, parts, strict=True):
            for name, values in whole.items():
                np.testing.assert_array_equal(part[number][name], values[rows])
    test = RecordSource(prepared, ("query",))
    whole = list(evaluation_batches(test, data=settings.data, batch_size=10))
    part = list(evaluation_batches(test, data=settings.data, batch_size=10, rows=[2, 3, 9]))
    assert len(part) == len(whole)
    for a, b in zip(part, whole, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"][[2, 3, 9]])
        np.testing.assert_array_equal(a["mask"], b["mask"][[2, 3, 9]])


def test_alone_everything_is_a_plain_call(tmp_path):
    hosts.join(flags())
    assert hosts.is_first()
    assert hosts.exchange({"a": 1}) == [{"a": 1}]
    assert hosts.from_first(lambda: 3) == hosts.everywhere(lambda: 3) == hosts.first_then_others(lambda: 3) == 3
    hosts.require_common_folder(tmp_path, flag="--workdir")
    vote = hosts.Vote()
    assert [vote.cast(False), vote.cast(True)] == [False, True]
    with pytest.raises(SystemExit, match="75"):
        hosts.leave(75)
    with pytest.raises(jax.errors.JaxRuntimeError), hosts.explain_lost_hosts():
        raise jax.errors.JaxRuntimeError("out of memory")


class Meeting:
    """Two processes in one: the store of keys and values, and which of them asks."""

    def __init__(self, monkeypatch):
        self.store: dict[str, str] = {}
        self.key_value_set = self.store.__setitem__
        self._monkeypatch = monkeypatch
        monkeypatch.setattr("jax.process_count", lambda: 2)
        monkeypatch.setattr(hosts, "_client", lambda: self)

    def blocking_key_value_get(self, key, milliseconds):
        return self.store[key]

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in self.store.items() if key.startswith(prefix)]

    def be(self, process: int) -> None:
        self._monkeypatch.setattr("jax.process_index", lambda: process)
        self._monkeypatch.setattr(hosts, "_topics", 0)


def test_an_error_of_one_reaches_the_others(monkeypatch, tmp_path):
    meeting = Meeting(monkeypatch)

    def fail(error):
        raise error

    meeting.be(0)
    with pytest.raises(InputError, match=r"^no data$"):
        hosts.from_first(lambda: fail(InputError("no data")))
    meeting.be(1)
    with pytest.raises(InputError, match="process 0: no data"):
        hosts.from_first(lambda: fail(AssertionError))
    meeting.be(0)
    with pytest.raises(ZeroDivisionError):
        hosts.from_first(lambda: fail(ZeroDivisionError("a bug")))
    meeting.be(1)
    with pytest.raises(HostError, match="process 0: a bug"):
        hosts.from_first(lambda: fail(AssertionError))

    meeting.store |= {"icre_jax/1/0": "null", "icre_jax/1/1": '[false, "disk gone"]'}
    meeting.be(0)
    with pytest.raises(InputError, match=r"(?s)Another process cannot go on.*process 1: disk gone"):
        hosts.everywhere(lambda: 1)

    # A workdir that only process 0 has.
    meeting.be(1)
    meeting.store |= {"icre_jax/1": '{"value": ".hosts-1"}', "icre_jax/2": '{"value": null}', "icre_jax/3/0": "null"}
    with pytest.raises(InputError, match="is not the folder that process 0 sees"):
        hosts.require_common_folder(tmp_path, flag="--workdir")
    words = r"process 1 of 2 cannot go on.*Connection closed by peer.*Start all of them"
    with pytest.raises(HostError, match=words), hosts.explain_lost_hosts():
        raise jax.errors.JaxRuntimeError("Connection closed by peer")


@pytest.mark.parametrize("failing", [0, 1])
def test_a_save_that_fails_in_one_process_ends_this_one(monkeypatch, capsys, failing):
    """This is process 0, whose own save fails, or waits inside a library for that of process 1."""
    meeting, ended = Meeting(monkeypatch), threading.Event()
    codes = []
    monkeypatch.setattr(hosts, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(hosts.os, "_exit", lambda code: (codes.append(code), ended.set()))
    meeting.be(0)
    meeting.store["icre_jax/1/knows/1"] = ""
    if failing:
        meeting.store["icre_jax/1/failed/1"] = "Its disk is full."

    def save():
        if not failing:
            raise NotSavedError("The disk is full.")
        assert ended.wait(10)

    hosts.save_together(save)
    assert set(codes) == {4}
    words = "error: process 1: Its disk is full. All processes end" if failing else "error: The disk is full. All proc"
    assert words in capsys.readouterr().err
    assert meeting.store["icre_jax/1/knows/0"] == ""
    if not failing:
        assert meeting.store["icre_jax/1/failed/0"] == "The disk is full."


def test_devices_of_hosts_in_turns(monkeypatch):
    """Rows follow the devices, in whatever order a mesh has them."""
    from icre_jax.engine import parallel

    class Shards:
        def __init__(self, mesh, spec):
            pass

        def addressable_devices_indices_map(self, shape):
            return {"a": (slice(8, 12, None),), "b": (slice(0, 4, None),)}

    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr(parallel, "NamedSharding", Shards)
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    assert parallel.local_rows(mesh, 16) == [0, 1, 2, 3, 8, 9, 10, 11]
