"""The whole loop on the real path, small: it learns, it repeats itself, it refuses what it should."""

import dataclasses
import errno
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from icre_jax.engine.evaluator import evaluate_checkpoint
from icre_jax.engine.open_set import evaluate_open_set
from icre_jax.errors import InputError
from icre_jax.evals.results import read_results
from icre_jax.machine.lock import lock_folder
from icre_jax.machine.screen import Screen
from icre_jax.settings import parse
from icre_jax.training import session
from icre_jax.training.log import reaches_screen, steps_between_lines
from tests.conftest import ROOT
from tests.small_runs import assert_same_checkpoint, run


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return {}


@pytest.fixture
def finished(config, shared, tmp_path_factory):
    """One run to the end, made once for this file."""
    if not shared:
        workdir = tmp_path_factory.mktemp("finished")
        shared["outcome"], shared["screen"] = run(config, workdir)
        shared["workdir"] = workdir
        shared["steps"] = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return shared


@pytest.mark.versions
def test_a_run_leaves_what_its_docstring_says(finished, config, tmp_path):
    workdir, outcome, screen = finished["workdir"], finished["outcome"], finished["screen"]
    names = {path.name for path in workdir.iterdir()}
    assert names == {
        "config.json", "metrics.jsonl", "timing.jsonl", "checkpoints", "results.json", "results.csv", "results.tex",
        "best", "report.html", ".lock",
    }  # fmt: skip
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    last_step = lines[-1]["step"]
    steps = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in steps] == list(range(1, last_step + 1))
    assert {"loss", "loss/identity", "accuracy", "gradient_norm", "learning_rate/head"} <= steps[0].keys()
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [
        epoch * last_step // 3 for epoch in range(4)
    ]
    # It learns: the loss on the few identities falls.
    assert np.mean([line["loss"] for line in steps[-2:]]) < steps[0]["loss"]

    results, provenance = read_results(workdir)
    assert results == outcome.last
    assert [result.setting for result in results] == ["all/single", "all/multi", "indoor/single", "indoor/multi"]
    assert results[0].dataset == "synthetic people"
    assert provenance["step"] == last_step
    assert len(provenance["data_fingerprint"]) == 64
    assert provenance["versions"]["jax"] == jax.__version__
    assert provenance["settings"] == parse(config).model_dump(mode="json")
    best, _ = read_results(workdir / "best")
    assert best == outcome.best
    scores = {line["step"]: line["all/single/mAP"] for line in lines if line["kind"] == "evaluation"}
    assert scores[outcome.best_step] == max(scores.values())
    assert results[0].mean["mAP"] == scores[last_step]

    for words in ("Rank-1", "images/s", "data wait", "ETA", "peak memory", "times the untrained network"):
        assert words in screen
    report = (workdir / "report.html").read_text()
    for words in (
        "synthetic people",
        "Histograms of the cosine distances",
        "Grad-CAM of the visible image",
        "by t-SNE",
    ):
        assert words in report
    # The same numbers as the command's, of the same embeddings.
    document = open_set_of(workdir, tmp_path)
    (point, *_) = document["directions"][0]["curve"]
    assert f"<td>{point['threshold']:.4f}</td>" in report


def open_set_of(workdir, out):
    """open_set.json of a finished run."""
    evaluate_open_set(workdir, step=None, out=out, listener=Screen(Console(quiet=True)))
    return json.loads((out / "open_set.json").read_text())


@pytest.mark.parametrize("num_steps", [1, 6, 49, 50, 99, 2499, 2500, 100_000])
def test_the_log_has_fifty_lines_or_one_for_each_step(num_steps):
    every = steps_between_lines(50, num_steps)
    assert every <= 50
    lines = {step for step in range(1, num_steps + 1) if step % every == 0 or step == num_steps}
    assert len(lines) >= min(50, num_steps)
    assert every == 50 or len(lines) < 2 * 50


@pytest.mark.parametrize(("num_steps", "most"), [(784, 20), (880, 20), (2460, 50), (2500, 50), (100, 1000), (5000, 7)])
def test_the_screen_waits_for_no_step_that_the_log_passes_over(num_steps, most):
    every = steps_between_lines(most, num_steps)
    logged = [step for step in range(1, num_steps + 1) if step % every == 0 or step == num_steps]
    shown = [step for step in logged if reaches_screen(step, every=every, most=most, num_steps=num_steps)]
    assert shown[-1] == num_steps
    gaps = [after - before for before, after in zip([0, *shown], shown, strict=False)]
    assert max(gaps) < min(most + every, num_steps + 1)
    assert len(shown) <= num_steps // most + 1


@pytest.mark.long
def test_the_screen_has_a_line_as_often_as_it_is_told(small, tmp_path):
    small.schedule.num_epochs = 1
    small.schedule.boundaries, small.schedule.factors = (), ()
    small.logging.every_steps = 50
    _, screen = run(small, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, steps[-1] + 1))
    assert len(steps) > 1
    assert screen.count("images/s") == 1  # the last step's


def test_the_same_seed_gives_the_same_bits(finished, config, tmp_path, empty_report):
    run(config, tmp_path)
    last = finished["steps"][-1]
    assert_same_checkpoint(finished["workdir"], tmp_path, last)
    for name in ("metrics.jsonl", "config.json"):
        assert (tmp_path / name).read_bytes() == (finished["workdir"] / name).read_bytes()


def test_another_seed_gives_others(finished, config, tmp_path, empty_report):
    config.seed = 1
    config.schedule.num_epochs = 1
    run(config, tmp_path)
    ours = (tmp_path / "metrics.jsonl").read_text().splitlines()
    theirs = (finished["workdir"] / "metrics.jsonl").read_text().splitlines()
    assert ours[0] != theirs[0]


def test_a_finished_run_is_not_trained_again(finished, config):
    before = {p: p.read_bytes() for p in finished["workdir"].glob("*.jsonl")}
    outcome, _ = run(config, finished["workdir"])
    assert outcome == finished["outcome"]
    assert {p: p.read_bytes() for p in finished["workdir"].glob("*.jsonl")} == before


def test_another_config_in_the_same_workdir_is_refused(finished, config):
    config.optimizer.head_weight_decay = 0.25
    with pytest.raises(InputError, match=r"(?s)another config.*optimizer\.head_weight_decay: .* -> 0\.25"):
        run(config, finished["workdir"])


def test_other_data_in_the_same_workdir_is_refused(finished, config, monkeypatch):
    real = session.prepare_data
    monkeypatch.setattr(session, "prepare_data", lambda *args: dataclasses.replace(real(*args), fingerprint="0" * 64))
    with pytest.raises(InputError, match=r"another run.*(?s:.*)data_fingerprint"):
        run(config, finished["workdir"])


@pytest.mark.long
def test_the_best_can_be_chosen_on_validation_identities(config, tmp_path):
    config.data.train_splits = ("train",)
    config.checkpoint.best_metric = "val/all/single/mAP"
    outcome, _ = run(config, tmp_path / "w")
    results, provenance = read_results(tmp_path / "w" / "best")
    kinds = {result.setting: (result.dataset, result.protocol) for result in results}
    assert kinds["all/single"] == ("synthetic people", "SYSU-MM01")
    assert kinds["val/all/single"] == ("synthetic people, validation identities", "SYSU-MM01 (validation)")
    curve = [
        (line["val/all/single/mAP"], line["step"])
        for line in map(json.loads, (tmp_path / "w" / "metrics.jsonl").read_text().splitlines())
        if "val/all/single/mAP" in line
    ]
    assert len(curve) == 4
    assert outcome.best_step == provenance["step"]
    assert max(curve)[0] == next(value for value, step in curve if step == outcome.best_step)
    # 2 of the 12 people, each 3 times by 2 infrared cameras: not an image of the test set among them.
    assert next(result for result in results if result.setting == "val/all/single").num_queries == 2 * 3 * 2
    report = (tmp_path / "w" / "report.html").read_text()
    assert "it was chosen on validation identities" in report
    # What `evaluate` writes into the place of the run's results is as much.
    expected, _ = read_results(tmp_path / "w")
    with Screen(Console(quiet=True)) as screen:
        again = evaluate_checkpoint(tmp_path / "w", step=None, out=tmp_path / "again", listener=screen)
    assert again == expected
    assert {"val/all/single", "all/single"} <= {result.setting for result in again}


def test_training_on_the_validation_identities_forbids_choosing_by_them(config):
    config.checkpoint.best_metric = "val/all/single/mAP"
    with pytest.raises(InputError, match=r"data.train_splits \('train', 'val'\) trains on them"):
        parse(config)


def test_an_unknown_best_metric_is_refused_before_anything_is_done(config, tmp_path):
    config.checkpoint.best_metric = "all/single/rank7"
    with pytest.raises(InputError, match=r"rank7.*allowed are all/single/rank1"):
        run(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_half_a_line_in_the_log_is_cut_off(config, tmp_path, finished, empty_report):
    config.schedule.num_epochs = 1
    run(config, tmp_path)
    clean = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(clean + b'{"kind": "train", "st')
    run(config, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == clean


def test_a_damaged_log_is_refused(config, tmp_path, empty_report):
    config.schedule.num_epochs = 1
    run(config, tmp_path)
    whole = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text("{" + whole)
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged"):
        run(config, tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match=r"metrics\.jsonl lacks the scores of step 0"):
        run(config, tmp_path)


@pytest.mark.long
def test_tensorboard_files_on_request(config, tmp_path):
    config.schedule.num_epochs = 1
    config.logging.tensorboard = True
    run(config, tmp_path)
    assert list((tmp_path / "tensorboard").glob("events.*"))


@pytest.mark.versions
@pytest.mark.long
def test_bfloat16_and_sgd_train_as_well(config, tmp_path):
    config.schedule.num_epochs = 1
    config.model.dtype = "bfloat16"
    config.optimizer.name = "sgd"
    config.optimizer.backbone_learning_rate = 0.01
    config.optimizer.head_learning_rate = 0.1
    outcome, _ = run(config, tmp_path)
    assert 0 <= outcome.last[0].mean["rank1"] <= 1


def test_a_second_process_in_the_same_workdir_is_refused(config, tmp_path):
    script = f"""
from pathlib import Path
from icre_jax.machine.lock import lock_folder
with lock_folder(Path({str(tmp_path)!r}), flag="--workdir"):
    print("locked", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=rf"in use by process {other.pid} on .* another --workdir"):
            run(config, tmp_path)
        # A process that is killed leaves nothing that would have to be cleared away.
        other.kill()
        other.wait()
    with lock_folder(tmp_path, flag="--workdir"):
        pass


def test_a_file_system_without_locks_is_refused_in_words(config, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("icre_jax.machine.lock.fcntl.flock", refuse)
    with pytest.raises(InputError, match=r"cannot be locked against a second writer.*Choose another --workdir"):
        run(config, tmp_path)
