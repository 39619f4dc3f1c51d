"""A request to stop that comes while the last state is scored: that state is saved first."""

import os
import signal

import pytest

from icre_jax.training.run import Run
from tests.small_runs import assert_same_run, run, saved_steps


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
