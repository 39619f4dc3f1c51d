"""A request to stop that comes in the last step or while the last state is scored: that state is saved first."""

import os
import signal

import pytest

from icre_jax.training.divergence import FiniteWatch
from icre_jax.training.run import Run
from icre_jax.training.session import Session
from tests.small_runs import assert_same_run, run, saved_steps


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_what_was_trained_last_is_saved_before_the_run_stops(config, tmp_path, monkeypatch, number):
    config.evaluation.every_epochs = config.checkpoint.every_epochs = 100
    run(config, tmp_path / "in_peace")
    original, calls = Run.score, []

    def score(self, embedded):
        calls.append(embedded)
        if len(calls) == 2:  # after that of the untrained network
            os.kill(os.getpid(), number)
        return original(self, embedded)

    monkeypatch.setattr(Run, "score", score)
    outcome, screen = run(config, tmp_path / "stopped")
    assert outcome is None
    assert len(calls) == 2
    last = max(saved_steps(tmp_path / "in_peace"))
    assert f"Stopped on request; step {last} is saved." in screen
    assert saved_steps(tmp_path / "stopped") == saved_steps(tmp_path / "in_peace")
    assert not (tmp_path / "stopped" / "results.json").exists()
    outcome, screen = run(config, tmp_path / "stopped")
    assert outcome is not None
    assert "Stopped" not in screen
    assert_same_run(tmp_path / "in_peace", tmp_path / "stopped")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (FiniteWatch, "follow"),  # in the last step
        (FiniteWatch, "check_state"),  # after it, while the loop looks at the last state
        (Session, "is_complete"),  # between the loop and the last scores
    ],
)
def test_a_signal_after_the_loop_has_last_asked_is_not_lost(small, tmp_path, monkeypatch, owner, name):
    small.schedule.num_epochs = 1
    original, calls = getattr(owner, name), []

    def act(self, *args):
        calls.append(args)
        if len(calls) == (3 if name == "follow" else 1):  # an epoch has three steps
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, act)
        outcome, screen = run(small, tmp_path)
    assert outcome is None
    assert "Stopped on request; step 3 is saved." in screen
    assert 3 in saved_steps(tmp_path)
    assert not (tmp_path / "results.json").exists()
    outcome, screen = run(small, tmp_path)
    assert outcome is not None
    assert "Stopped" not in screen
