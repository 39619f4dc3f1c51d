"""Checkpoints read while a run replaces them: the latest is found, and nothing is ever half of one and half of none."""

import contextlib
import io
import sys
import threading
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console

from icre_jax.engine.checkpoint import quiet
from icre_jax.engine.checkpoint.folder import Checkpoints, ReplacedError
from icre_jax.engine.checkpoint.following import read_checkpoint
from icre_jax.engine.evaluator import evaluate_checkpoint
from icre_jax.engine.export import export
from icre_jax.engine.state import TrainState
from icre_jax.errors import InputError
from icre_jax.evals.results import read_results
from icre_jax.machine.screen import Screen
from tests.small_runs import run


def make_state(step: int) -> TrainState:
    """Every number of it says of which step it is."""
    parts = ({name: jnp.full(1000, step, jnp.float32)} for name in ("kernel", "mean", "count"))
    return TrainState(jnp.int32(step), *parts)


@pytest.fixture
def training(tmp_path):
    """What a run keeps that is not scored: the latest step alone."""
    with contextlib.closing(Checkpoints(tmp_path)) as opened:
        opened.save(make_state(1), {"step": 1})
        yield opened


def read_all(checkpoints: Checkpoints, step: int) -> tuple[int, dict, dict]:
    return step, checkpoints.read_facts(step), checkpoints.read_variables(step)


def assert_whole(found: tuple[int, dict, dict]) -> None:
    step, facts, variables = found
    assert facts == {"step": step}
    assert {float(value) for leaf in jax.tree.leaves(variables) for value in np.unique(leaf)} == {step}


def test_the_latest_is_followed_by_the_next_where_it_is_replaced_before_it_is_read(training, tmp_path):
    asked = []

    def read(checkpoints, step):
        asked.append(step)
        if step < 4:
            training.save(make_state(step + 1), {"step": step + 1})
        return read_all(checkpoints, step)

    assert_whole(read_checkpoint(tmp_path, None, read))
    assert asked == [1, 2, 3, 4]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["restore", "item_metadata"])
def test_what_is_replaced_in_the_middle_of_a_read_is_not_taken(training, tmp_path, monkeypatch, method, when):
    """Also where orbax itself noticed nothing: arrays that were deleted meanwhile may read as anything."""
    real = getattr(ocp.CheckpointManager, method)
    seen = []

    def replaced(self, step, **arguments):
        seen.append(step)
        if when == "after":
            found = real(self, step, **arguments)
        if training.steps == [1]:
            training.save(make_state(2), {"step": 2})
        return found if when == "after" else real(self, step, **arguments)

    monkeypatch.setattr(ocp.CheckpointManager, method, replaced)
    assert_whole(read_checkpoint(tmp_path, None, read_all))
    assert (seen[0], seen[-1]) == (1, 2)


async def unfinished():
    """A read that cannot be cleared away without an error."""


def test_late_reports_of_a_read_that_failed_are_dropped_and_no_others(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    quiet.drop_late_reports.__wrapped__()
    others = [RuntimeError("something else"), ValueError("Event loop is closed")]
    ours = unfinished()
    orbax_code = unfinished.__code__.replace(co_filename=str(Path(ocp.__file__).parent / "_src" / "x.py"))
    of_orbax = types.FunctionType(orbax_code, {})()
    for error in (RuntimeError("Event loop is closed"), *others):
        sys.unraisablehook(types.SimpleNamespace(exc_value=error, object=None))
    for coroutine in (of_orbax, ours):
        sys.unraisablehook(types.SimpleNamespace(exc_value=KeyError("25 is not registered"), object=coroutine))
        coroutine.close()
    assert [event.exc_value for event in seen[:2]] == others
    assert [event.object for event in seen[2:]] == [ours]


def test_looking_again_has_an_end(training, tmp_path):
    asked = []

    def read(checkpoints, step):
        asked.append(step)
        training.save(make_state(step + 1), {"step": step + 1})
        return read_all(checkpoints, step)

    words = r"step 10 in .* is gone: training.* has replaced it.* There are \[11\] now"
    with pytest.raises(ReplacedError, match=words):
        read_checkpoint(tmp_path, None, read)
    assert asked == [*range(1, 11)]


def test_a_step_that_was_asked_for_is_not_exchanged(training, tmp_path):
    def read(checkpoints, step):
        training.save(make_state(2), {"step": 2})
        return read_all(checkpoints, step)

    with pytest.raises(InputError, match=r"step 1 in .* is gone: training.* has replaced it.* There are \[2\] now"):
        read_checkpoint(tmp_path, 1, read)


def test_a_step_that_is_there_and_damaged_stays_an_error(training, tmp_path):
    (tmp_path / "checkpoints" / "1" / "facts" / "metadata").write_text("{")
    asked = []

    def read(checkpoints, step):
        asked.append(step)
        return read_all(checkpoints, step)

    with pytest.raises(InputError, match=r"step 1 in .* is damaged"):
        read_checkpoint(tmp_path, None, read)
    assert asked == [1]


@pytest.mark.parametrize("happens", [FileNotFoundError(2, "gone"), NotADirectoryError("gone"), "nothing listed"])
def test_steps_that_come_and_go_while_they_are_listed(training, tmp_path, monkeypatch, happens):
    real, tries = ocp.CheckpointManager.__init__, []

    def opened(self, *args, **kwargs):
        tries.append(1)
        if len(tries) < 3 and isinstance(happens, Exception):
            raise happens
        real(self, *args, **kwargs)
        if len(tries) < 3:
            monkeypatch.setattr(self, "all_steps", list)

    monkeypatch.setattr(ocp.CheckpointManager, "__init__", opened)
    assert_whole(read_checkpoint(tmp_path, None, read_all))
    assert len(tries) == 3


def test_a_folder_without_a_finished_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="holds no finished checkpoint yet"):
        read_checkpoint(tmp_path, None, read_all)


def test_beside_a_writer_that_never_rests(training, tmp_path):
    done = threading.Event()

    def write():
        for step in range(2, 1000):
            if done.is_set():
                break
            training.save(make_state(step), {"step": step})

    writer = threading.Thread(target=write)
    writer.start()
    found = []
    try:
        while len(found) < 20:
            # How often it is replaced in a row is a matter of chance here; that it is never half read is not.
            with contextlib.suppress(ReplacedError):
                found.append(read_checkpoint(tmp_path, None, read_all))
    finally:
        done.set()
        writer.join()
    for each in found:
        assert_whole(each)
    assert len({step for step, *_ in found}) > 1


def test_evaluate_and_export_take_the_next_checkpoint(small, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    small.schedule.num_epochs = 1
    outcome, _ = run(small, workdir)
    last = max(int(folder.name) for folder in (workdir / "checkpoints").iterdir() if folder.name.isdecimal())
    real = Checkpoints.read_facts

    def replaced_once(self, step):
        # As training does it: the next one is there before this one goes.
        replaced = workdir / "checkpoints" / str(last)
        if replaced.exists():
            replaced.rename(workdir / "checkpoints" / str(last + 1))
        return real(self, step)

    monkeypatch.setattr(Checkpoints, "read_facts", replaced_once)
    screen = Screen(Console(file=io.StringIO()))
    results = evaluate_checkpoint(workdir, step=None, out=tmp_path / "again", listener=screen)
    assert results == outcome.last
    assert read_results(tmp_path / "again")[1]["step"] == last + 1
    (workdir / "checkpoints" / str(last + 1)).rename(workdir / "checkpoints" / str(last))
    assert export(workdir, tmp_path / "exported", step=None, listener=screen).step == last + 1
    (workdir / "checkpoints" / str(last + 1)).rename(workdir / "checkpoints" / str(last))
    with pytest.raises(InputError, match=rf"step {last} in .* training.* has replaced it"):
        evaluate_checkpoint(workdir, step=last, out=tmp_path / "chosen", listener=screen)
