"""The step is compiled while the untrained network is scored; the first step finds it."""

import signal
import subprocess
import sys
import threading

import jax
import pytest

from icre_jax.engine import parallel
from icre_jax.machine import compiler
from icre_jax.machine.stop import StopRequest
from icre_jax.settings import parse
from icre_jax.training.loop import train
from icre_jax.training.session import open_session
from tests.conftest import ROOT

COMPILER = compiler._NAME


@pytest.fixture
def stages():
    """(stage, thread) whenever the step is traced, lowered or compiled; jax reports none for a program it has."""
    found = []

    def hear(event: str, seconds: float, **about: object) -> None:
        if about.get("fun_name") in ("train_step", "jit(train_step)"):
            found.append((event.rpartition("/")[2].removesuffix("_duration"), threading.current_thread().name))

    jax.monitoring.register_event_duration_secs_listener(hear)
    yield found
    jax.monitoring.unregister_event_duration_listener(hear)


STAGES = ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")


def test_the_first_step_of_a_run_finds_its_program(config, tmp_path, stages):
    with open_session(parse(config), tmp_path / "run") as session:
        state = session.start()
        assert stages == [(stage, COMPILER) for stage in STAGES]
        train(session, state, StopRequest())
    assert len(stages) == len(STAGES)


def test_what_the_compiler_refuses_is_said_by_the_first_step():
    def refuse(state, batch):
        raise ValueError("no such shape")

    mesh = parallel.make_mesh(2)
    step = parallel._jit(mesh, refuse)
    with parallel.compiled_meanwhile(step, mesh, {}, {}):
        pass
    with pytest.raises(ValueError, match="no such shape"):
        step({}, {})


SLOW = """
import signal, threading, time
from icre_jax.engine import parallel
from icre_jax.machine import compiler
from icre_jax.machine import command

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background
tracing = threading.Event()

def step(state, batch):
    tracing.set()
    time.sleep(600)

def main(arguments):
    mesh = parallel.make_mesh(2)
    with parallel.compiled_meanwhile(parallel._jit(mesh, step), mesh, {}, {}):
        tracing.wait()
        print("tracing", flush=True)
        {block}

command.run(main)
"""


@pytest.mark.parametrize(
    ("block", "number", "code", "words"),
    [
        ("raise command.InputError('no query')", None, 2, "error: no query"),
        ("time.sleep(600)", signal.SIGINT, 130, "Interrupted."),
        ("pass", signal.SIGINT, 130, "Interrupted."),
    ],
)
def test_a_command_that_fails_or_is_interrupted_does_not_wait_for_the_compiler(block, number, code, words):
    with subprocess.Popen(
        [sys.executable, "-c", SLOW.replace("{block}", block)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "tracing\n"
        if number is not None:
            process.send_signal(number)
        _, said = process.communicate(timeout=300)
    assert (process.returncode, words in said) == (code, True), said
