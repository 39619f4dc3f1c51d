"""The script for SLURM in docs/clusters.md: it is one that bash and sbatch read, and its line starts a run."""

import os
import re
import shlex
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, flags_of, free_port
from tests.processes import finish, said

_FIRST_PORT = 65535 - 2**12 + 1  # of those that JAX takes for a SLURM job, by the job's number


@pytest.fixture(scope="module")
def script() -> str:
    text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    return re.search(r"```sh\n(#!/bin/bash\n.*?)```", text, re.DOTALL)[1]


def options(script: str) -> dict[str, str]:
    """What sbatch reads: the comments before the first command."""
    found = {}
    for line in script.splitlines()[1:]:
        if not line.startswith("#"):
            break
        name, _, value = line.removeprefix("#SBATCH --").partition("=")
        found[name] = value
    return found


def srun_line(script: str) -> list[str]:
    """The words of the command that srun starts in every task."""
    joined = script.replace("\\\n", " ")
    words = shlex.split(next(line for line in joined.splitlines() if line.startswith("srun ")))
    return words[next(i for i, word in enumerate(words) if word.endswith("python")) :]


def test_the_script_is_one_that_bash_and_sbatch_read(script):
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = options(script)
    assert found.keys() >= {"nodes", "ntasks-per-node", "gpus-per-node", "signal", "requeue", "time"}
    # A task for each GPU, which JAX chooses by the task's number on its node: nothing may hide the others.
    assert found["ntasks-per-node"] == found["gpus-per-node"]
    assert not found.keys() & {"gpus-per-task", "gpu-bind"}
    assert 24 % (int(found["nodes"]) * int(found["ntasks-per-node"])) == 0
    assert re.fullmatch(r"TERM@\d+", found["signal"])


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (0, False), (2, False)])
def test_the_script_goes_back_into_the_queue_where_it_was_stopped(script, tmp_path, code, requeued):
    for name, body in (("srun", f"exit {code}"), ("scontrol", f"echo $* > {tmp_path}/asked")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash"], input=script, env=environment, text=True, check=False)
    assert done.returncode == code
    assert (tmp_path / "asked").exists() == requeued
    assert not requeued or (tmp_path / "asked").read_text() == "requeue 7\n"


@pytest.mark.long
def test_two_tasks_of_slurm_train_together(script, config, tmp_path):
    """With the variables that SLURM sets; the flags alone are those of the small run."""
    config.schedule.num_epochs = 1
    words = srun_line(script)
    words[0] = sys.executable
    assert words[1:3] == ["-m", "icre_jax.train"]
    assert words[-1] == "--distributed"
    workdir = tmp_path / "work"
    words[words.index("--workdir") + 1] = str(workdir)
    place = words.index("--config")
    words[place : place + 2] = flags_of(config)
    port = free_port()
    while port < _FIRST_PORT:
        port = _FIRST_PORT + time.monotonic_ns() % 2**12
    started = []
    for task in range(2):
        slurm = {
            "SLURM_JOB_ID": str(port - _FIRST_PORT),
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_STEP_NUM_NODES": "1",
            "SLURM_NTASKS": "2",
            "SLURM_PROCID": str(task),
            "SLURM_LOCALID": str(task),
        }
        environment = os.environ | slurm | {"JAX_NUM_CPU_DEVICES": "1", "COLUMNS": "160"}
        with said(workdir, task).open("w") as file:
            started.append(subprocess.Popen(words, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT))
    codes, texts = finish(started, workdir)
    assert codes == [0, 0], texts
    assert "on 2 x cpu" in texts[0]
    assert (workdir / "results.json").is_file()
