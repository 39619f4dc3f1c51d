"""train, evaluate and prepare, started as a user would on one small run; every command says what it is for."""

import json
import shutil
from pathlib import Path

import pytest

from icre_jax.evals.results import read_results
from tests.conftest import PEOPLE, flags_of, refused, run_command


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture
def trained(config, made, tmp_path_factory):
    """A workdir that `python -m icre_jax.train` left, made once for this file."""
    if not made:
        workdir = tmp_path_factory.mktemp("trained")
        made["process"] = run_command("icre_jax.train", *flags_of(config), "--workdir", str(workdir))
        made["workdir"] = workdir
    assert made["process"].returncode == 0, made["process"].stderr
    return made["workdir"]


def test_train_ends_in_a_table_and_a_report(trained, made):
    out = made["process"].stdout
    assert "Rank-1" in out
    assert "mINP" in out
    assert f"Report:  {trained / 'report.html'}" in out
    assert "rror" not in made["process"].stderr
    assert (trained / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_evaluate_repeats_the_numbers_of_training(trained, tmp_path):
    process = run_command("icre_jax.evaluate", "--workdir", str(trained), "--out", str(tmp_path))
    assert process.returncode == 0, process.stderr
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path, trained))
    assert ours["results"] == theirs["results"]
    assert "python -m icre_jax.evaluate" in ours["provenance"]["command"]
    rows = (tmp_path / "results.csv").read_text().splitlines()
    assert len(rows) == 5
    for word in ("all", "indoor", "multi", "single", "Rank-1", "mAP"):
        assert word in process.stdout


@pytest.mark.long
def test_evaluate_prints_the_det_curve(trained, tmp_path):
    evaluate = ("icre_jax.evaluate", "--workdir", str(trained), "--open_set")
    process = run_command(*evaluate, "--out", str(tmp_path))
    assert process.returncode == 0, process.stderr
    said = json.loads((tmp_path / "open_set.json").read_text())
    (found,) = said["directions"]
    half = PEOPLE.num_test_ids // 2
    assert (found["direction"], found["enrolled_persons"], found["strangers"]) == ("infrared->visible", half, half)
    assert [point["target"] for point in found["curve"]] == [0.5]  # of two strangers at a time
    assert found["left_out"] == "same place left out"
    assert said["provenance"]["dataset"] == said["dataset"] == "synthetic people"
    assert "FNIR at rank 1" in process.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["open_set.json"]
    refused(run_command(*evaluate, "--reranking"), "--open_set cannot be had with --reranking")
    refused(run_command(*evaluate, "--without", "each"), "not allowed with argument")


def test_evaluate_takes_a_step_and_refuses_one_that_is_not_there(trained, tmp_path):
    workdir = Path(shutil.copytree(trained, tmp_path / "copy"))
    before = (workdir / "results.json").read_bytes()
    step = min(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    flags = ("--workdir", str(workdir), "--checkpoint")
    process = run_command("icre_jax.evaluate", *flags, str(step))
    assert process.returncode == 0, process.stderr
    provenance = json.loads((workdir / f"step_{step}" / "results.json").read_text())["provenance"]
    assert (provenance["step"], provenance["checkpoint"]) == (step, "chosen")
    assert (workdir / "results.json").read_bytes() == before  # the run's own results stay
    refused(run_command("icre_jax.evaluate", *flags, "12345"), "no checkpoint of step 12345", str(step))


@pytest.mark.long
def test_evaluate_measures_in_another_way_beside_the_runs_own_results(trained):
    before = (trained / "results.json").read_bytes()
    flags = ("--feature", "features", "--flip", "--reranking", "--gallery_source", "python-random")
    process = run_command("icre_jax.evaluate", "--workdir", str(trained), *flags)
    assert process.returncode == 0, process.stderr
    assert "WITH RE-RANKING" in " ".join(process.stdout.split())  # the title of the table may be broken into lines
    assert (trained / "results.json").read_bytes() == before
    folder = trained / "features_flip_reranking_python-random"
    results = json.loads((folder / "results.json").read_text())["results"]
    plain = json.loads(before)["results"]
    labels = {(r["feature"], r["flip"], r["reranking"], r["gallery_source"]) for r in results}
    assert labels == {("features", True, True, "python-random")}
    assert [r["setting"] for r in results] == [r["setting"] for r in plain]
    assert [r["num_valid_queries"] for r in results] == [r["num_valid_queries"] for r in plain]
    assert [r["mean"] for r in results] != [r["mean"] for r in plain]
    tex = (folder / "results.tex").read_text()
    assert "gallery: python-random, 2 trials, features, flip, WITH RE-RANKING" in tex
    process = run_command("icre_jax.evaluate", "--workdir", str(trained), "--gallery_source", "official")
    refused(process, "exp/rand_perm_cam.mat", "not there")


def test_evaluate_takes_parts_out_of_the_network(trained):
    process = run_command("icre_jax.evaluate", "--workdir", str(trained), "--without", "masks, enhancement")
    assert process.returncode == 0, process.stderr
    whole, provenance = read_results(trained)
    for part in ("masks", "enhancement"):
        results, beside = read_results(trained / f"without_{part}")
        assert [result.setting for result in results] == [result.setting for result in whole]
        assert {result.feature for result in results} == {f"embeddings, {part} taken out"}
        assert (beside["step"], beside["data_fingerprint"]) == (provenance["step"], provenance["data_fingerprint"])
        assert f"without {part}: " in process.stdout
    assert read_results(trained)[0] == whole  # the run's own stay


def test_evaluate_refuses_a_part_that_is_not_there(trained):
    process = run_command("icre_jax.evaluate", "--workdir", str(trained), "--without", "nose")
    refused(process, "has no nose; it has masks, guide, cross_attention")


def test_evaluate_refuses_a_damaged_config(trained, tmp_path):
    (tmp_path / "config.json").write_text((trained / "config.json").read_text()[:100])
    refused(run_command("icre_jax.evaluate", "--workdir", str(tmp_path)), "config.json of the run is damaged")


def test_evaluate_refuses_a_mistyped_workdir(tmp_path):
    process = run_command("icre_jax.evaluate", "--workdir", str(tmp_path / "mistyped"))
    refused(process, "mistyped", "config.json is missing")


def test_evaluate_refuses_a_checkpoint_of_another_network(trained, tmp_path):
    workdir = Path(shutil.copytree(trained, tmp_path / "copy"))
    text = (workdir / "config.json").read_text()
    (workdir / "config.json").write_text(text.replace('"width": 4', '"width": 6'))
    refused(run_command("icre_jax.evaluate", "--workdir", str(workdir)), "another network", "saved (", "this network (")


def test_evaluate_refuses_other_data(trained, tmp_path, config):
    workdir = Path(shutil.copytree(trained, tmp_path / "copy"))
    changed = json.loads((workdir / "config.json").read_text())
    changed["data"]["synthetic"]["seed"] = 4
    changed["data"]["data_dir"] = str(tmp_path / "tree")
    changed["data"]["prepared_dir"] = str(tmp_path / "prepared")
    (workdir / "config.json").write_text(json.dumps(changed))
    refused(run_command("icre_jax.evaluate", "--workdir", str(workdir)), "fingerprint", "was trained on")


def test_prepare_makes_records_and_a_table(config, tmp_path):
    config.data.data_dir = str(tmp_path / "tree")
    config.data.prepared_dir = str(tmp_path / "prepared")
    process = run_command("icre_jax.prepare", *flags_of(config))
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "prepared" / "sysu_mm01" / "1.0.0" / "index.npz").is_file()
    for word in ("train", "query", "gallery", "infrared", "identities"):
        assert word in process.stdout


def test_a_workdir_of_another_config(trained, config):
    config.sampling.num_images_per_id = 4
    process = run_command("icre_jax.train", *flags_of(config), "--workdir", str(trained))
    refused(process, "another config", "sampling.num_images_per_id: 8 -> 4")


@pytest.mark.parametrize(
    "module",
    [
        f"icre_jax.{name}"
        for name in (
            "train",
            "evaluate",
            "prepare",
            "verify",
            "ablate",
            "describe",
            "doctor",
            "export",
            "score",
            "average",
        )
    ],
)
def test_help_says_what_the_command_is_for(module):
    process = run_command(module, "--help")
    assert process.returncode == 0
    assert f"python -m {module}" in process.stdout
    assert process.stdout.count("\n") > 5
