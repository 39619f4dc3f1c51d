"""Stopped or killed anywhere and started again, a run ends as if nothing had been: arrays, log, best step, files."""

import contextlib
import dataclasses
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.evaluator import Evaluator
from icre_jax.errors import InputError
from icre_jax.machine.screen import Screen
from icre_jax.machine.stop import StopRequest
from icre_jax.training import loop, session
from icre_jax.training.log import RunLog, require_scores
from tests.reports import make_result
from tests.small_runs import assert_same_run, run, saved_steps


@dataclasses.dataclass(frozen=True)
class Interruption:
    """At the `count`-th `event` of one start, the process is asked to stop, or dies."""

    how: Literal["stop", "die"]
    event: Literal["step", "evaluation", "save", "saved"]
    count: int
    num_workers: int
    num_threads: int


class Died(BaseException):
    """Nothing catches it."""


class Interrupter:
    """Does at the chosen moment what the interruption says."""

    def __init__(self, interruption: Interruption | None):
        self.interruption = interruption
        self.stop = None
        self._counts = dict.fromkeys(("step", "evaluation", "save", "saved"), 0)

    def happens(self, event: str) -> None:
        self._counts[event] += 1
        now = self.interruption
        if now is None or (event, self._counts[event]) != (now.event, now.count):
            return
        if now.how == "die":
            raise Died
        if self.stop is not None:
            self.stop.requested = True


interruptions = st.builds(
    Interruption,
    how=st.sampled_from(["stop", "die"]),
    event=st.sampled_from(["step", "step", "evaluation", "save", "saved"]),
    count=st.integers(1, 5),
    num_workers=st.just(0),
    num_threads=st.integers(1, 3),
)


@pytest.fixture
def small(small):
    """Four epochs of three steps, scored at every second."""
    small.perturbation = 4  # of the first weights, and not again of those that it continues from
    small.schedule.num_epochs = 4
    small.evaluation.every_epochs = 2
    return small


def start(config, workdir: Path, interruption: Interruption | None):
    """One start; None if it did not come to its end."""
    interrupter = Interrupter(interruption)
    config = config.copy_and_resolve_references()
    if interruption:
        config.data.num_workers, config.data.num_threads = interruption.num_workers, interruption.num_threads

    class Stop(StopRequest):
        def __enter__(self):
            interrupter.stop = self
            return super().__enter__()

    real_assemble, real_embed, real_save = session.assemble, Evaluator.embed, Checkpoints.save

    def assemble(*args):
        made = real_assemble(*args)

        def step(state, batch):
            interrupter.happens("step")
            return made.step(state, batch)

        return dataclasses.replace(made, step=step)

    def embed(self, variables):
        interrupter.happens("evaluation")
        return real_embed(self, variables)

    def save(self, *args):
        interrupter.happens("save")
        real_save(self, *args)
        interrupter.happens("saved")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "stop_request", Stop)
        patch.setattr(session, "assemble", assemble)
        patch.setattr(Evaluator, "embed", embed)
        patch.setattr(Checkpoints, "save", save)
        try:
            return run(config, workdir)
        except Died:
            return None, ""


def check(config, reference, tmp_path_factory, plan) -> None:
    if not reference:
        workdir = tmp_path_factory.mktemp("reference")
        reference += [workdir, start(config, workdir, None)[0]]
    workdir = tmp_path_factory.mktemp("interrupted")
    for interruption in plan:
        start(config, workdir, interruption)
    outcome, _ = start(config, workdir, None)
    assert outcome == reference[1]
    assert_same_run(workdir, reference[0])


quietly = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)
MID_EPOCH = Interruption("stop", "step", 4, num_workers=1, num_threads=2)
EARLY = dataclasses.replace(MID_EPOCH, num_workers=0)
IN_EVALUATION = Interruption("stop", "evaluation", 1, num_workers=0, num_threads=1)
AFTER_SAVE = Interruption("die", "saved", 2, num_workers=0, num_threads=3)
IN_SAVE = Interruption("die", "save", 2, num_workers=0, num_threads=1)


@settings(quietly, max_examples=1, derandomize=True)
@given(plan=st.lists(interruptions, min_size=1, max_size=2))
@example(plan=[MID_EPOCH, IN_EVALUATION, AFTER_SAVE, IN_SAVE])
@pytest.mark.long
def test_interrupted_anywhere_a_run_ends_in_the_same_bits(plan, small, reference, tmp_path_factory):
    check(small, reference, tmp_path_factory, plan)


@pytest.mark.slow
@settings(quietly, max_examples=60)
@given(plan=st.lists(interruptions, min_size=1, max_size=5))
def test_interrupted_anywhere_many_times(plan, small, reference, tmp_path_factory):
    check(small, reference, tmp_path_factory, plan)


def test_weights_without_a_run_are_refused(small, tmp_path):
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save_variables(0, {"params": {"a": np.zeros(3)}, "batch_stats": {"b": np.zeros(3)}}, {"depth": 18})
    with pytest.raises(InputError, match=r"step 0 .* is not of a training run \(it holds depth\)"):
        run(small, tmp_path)


@pytest.mark.long
def test_a_stop_saves_the_very_step_and_says_so(small, tmp_path):
    outcome, screen = start(small, tmp_path, MID_EPOCH)
    assert outcome is None
    assert "Stopped on request; step 4 is saved" in screen
    assert 4 in saved_steps(tmp_path)
    at_once = dataclasses.replace(MID_EPOCH, count=1)
    _, screen = start(small, tmp_path, at_once)
    assert "Continuing after step 4 of 12" in screen
    assert "Stopped on request; step 5 is saved" in screen


@pytest.mark.long
def test_a_log_without_the_scores_that_the_end_needs_is_refused_before_training(small, tmp_path):
    start(small, tmp_path, EARLY)
    log, saved = tmp_path / "metrics.jsonl", saved_steps(tmp_path)
    whole = log.read_bytes()
    for content in (None, b"".join(whole.splitlines(keepends=True)[1:])):
        log.unlink()
        if content is not None:
            log.write_bytes(content)
        with pytest.raises(InputError, match=r"metrics\.jsonl lacks the scores of step 0, .*a copy of the whole file"):
            run(small, tmp_path)
        assert (log.read_bytes() if log.exists() else None) == content  # nothing was cut or begun
        assert saved_steps(tmp_path) == saved
        log.write_bytes(whole)
    assert run(small, tmp_path)[0] is not None


def test_the_log_needs_the_scores_of_the_best_step(tmp_path):
    with contextlib.closing(RunLog(tmp_path, None, tensorboard=False)) as log:
        log.write_evaluation(0, 0.0, [make_result(0.5)], Screen(Console(quiet=True)))
        log.write_step({"step": 5, "loss": 1.0})
    require_scores(tmp_path, {0})
    with pytest.raises(InputError, match=r"lacks the scores of step 5, 9,"):
        require_scores(tmp_path, {0, 9, 5})


@pytest.mark.long
def test_the_log_of_a_run_whose_checkpoints_are_gone_is_kept_beside(small, tmp_path):
    start(small, tmp_path / "w", EARLY)
    names = {path.name for path in (tmp_path / "w").iterdir()}
    for number in (1, 2):
        old = {name: (tmp_path / "w" / f"{name}.jsonl").read_bytes() for name in ("metrics", "timing")}
        shutil.rmtree(tmp_path / "w" / "checkpoints")
        _, screen = start(small, tmp_path / "w", EARLY)
        said = " ".join(screen.split())
        assert "checkpoints is empty, and the log has steps of a run that was here" in said
        assert f"kept as metrics_before_{number}.jsonl and timing_before_{number}.jsonl" in said
        names |= {f"{name}_before_{number}.jsonl" for name in old}
        assert {path.name for path in (tmp_path / "w").iterdir()} == names
        for name, content in old.items():
            assert (tmp_path / "w" / f"{name}_before_{number}.jsonl").read_bytes() == content
        assert (tmp_path / "w" / "metrics.jsonl").read_bytes() == old["metrics"]  # the same steps again


def test_killed_before_its_first_checkpoint_a_run_starts_again_without_a_word(small, tmp_path):
    start(small, tmp_path, Interruption("die", "save", 1, num_workers=0, num_threads=1))
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 1
    _, screen = start(small, tmp_path, EARLY)
    assert "is kept as" not in screen
    assert not list(tmp_path.glob("*_before_*"))
