"""Several processes train one network: two to four on this machine, which meet on its loopback."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from icre_jax.machine import hosts
from tests.conftest import flags_of, run_command
from tests.processes import finish, said, start


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
