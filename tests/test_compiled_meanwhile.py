"""The step is compiled while the untrained network is scored; the first step finds it."""

import threading

import jax
import pytest

from icre_jax.engine import parallel
from icre_jax.settings import parse
from icre_jax.training.loop import train
from icre_jax.training.session import open_session


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
        assert stages == [(stage, parallel.COMPILER) for stage in STAGES]
        train(session, state)
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


def test_an_error_of_the_block_is_that_of_the_block(config):
    mesh = parallel.make_mesh(2)
    step = parallel._jit(mesh, lambda state, batch: (state, batch))
    with pytest.raises(KeyError, match="mine"), parallel.compiled_meanwhile(step, mesh, {}, {}):
        raise KeyError("mine")
    assert all(thread.name != parallel.COMPILER for thread in threading.enumerate())
