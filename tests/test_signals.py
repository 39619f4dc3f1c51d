"""Signals to a run: the first saves and leaves, the second ends it at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, flags_of


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.long
def test_a_signal_saves_and_the_same_command_continues(config, tmp_path, number, num_workers):
    """Sent to the whole group, as a terminal and schedulers do: its input's workers go on until the run has saved."""
    config.data.num_workers = num_workers
    config.schedule.num_epochs = 300
    config.evaluation.every_epochs = 1000
    command = [sys.executable, "-m", "icre_jax.train", *flags_of(config), "--workdir", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count('"train"') > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    step = int(out.split("Stopped on request; step ")[1].split()[0])
    assert (tmp_path / "checkpoints" / str(step)).is_dir()
    again = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert again.stdout is not None
    for line in again.stdout:
        if "Continuing after step" in line:
            assert f"step {step} of" in line
            break
    else:
        pytest.fail("the second start did not continue")
    again.kill()
    again.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(number):
    """Even inside a library where Python runs no handler: here one that computes for minutes."""
    script = (
        "import hashlib\nfrom icre_jax.machine.stop import StopRequest\n"
        "with StopRequest(second_ends=True):\n"
        "    print('entered', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2 * 10**9)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "entered\n"
        try:
            process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            process.send_signal(number)
            assert process.wait(timeout=30) == 128 + number
        finally:
            process.kill()  # or a failed test would wait for the minutes
        assert "second signal" in process.stderr.read()


@pytest.mark.long
def test_a_second_signal_ends_training_at_once(config, tmp_path):
    config.schedule.num_epochs = 300
    config.evaluation.every_epochs = 1000
    command = [sys.executable, "-m", "icre_jax.train", *flags_of(config), "--workdir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "images/s" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (143, 130), err
        assert "Traceback" not in err
