"""Training and scoring on LLCM and RegDB, started as a user would; and what happens where the data is not there."""

import json
import shutil
from pathlib import Path

import pytest

from icre_jax.errors import InputError
from icre_jax.evals import PROTOCOLS
from icre_jax.evals.results import read_results
from icre_jax.settings import parse
from icre_jax.training.loop import train_and_evaluate
from tests.conftest import flags_of, run_command
from tests.test_commands import refused

# As many identities and steps as in the other tests' config, so that compiled programs are found again.
PEOPLE_OF = {"llcm": (8, 0, 4, 2), "regdb": (8, 0, 4, 9), "sysu_mm01": (6, 2, 4, 3)}


@pytest.fixture
def configure(config):
    """The small config on one of the data sets, which the command renders by itself."""

    def make(dataset: str, folder: Path, trial: int | None = None):
        config.data.dataset, config.data.trial = dataset, trial
        config.data.train_splits = ("train",)
        config.data.data_dir, config.data.prepared_dir = str(folder / "tree"), str(folder / "prepared")
        names = ("num_train_ids", "num_val_ids", "num_test_ids", "num_images_per_camera")
        config.data.synthetic.update(dict(zip(names, PEOPLE_OF[dataset], strict=True)))
        config.checkpoint.best_metric = PROTOCOLS[dataset].metric_names[4]
        return config

    return make


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("llcm", ("No LLCM at", "given out by its authors on request", "test_vis/camN/IIII/", "idx/test_id.txt")),
        ("regdb", ("No RegDB at", "given out by its authors on request", "Thermal/<id>/*.bmp", "test_thermal_K.txt")),
    ],
)
def test_absent_data_says_what_belongs_where(dataset, words, tmp_path):
    flags = ("--config", f"configs/{dataset}.py", f"--config.data.data_dir={tmp_path / 'absent'}")
    flags = (*flags, f"--config.data.prepared_dir={tmp_path / 'prepared'}", "--workdir", str(tmp_path / "work"))
    refused(run_command("icre_jax.train", *flags), str(tmp_path / "absent"), "--config.data.data_dir", *words)


@pytest.mark.long
def test_llcm_trains_to_results_and_a_report(configure, tmp_path):
    config = configure("llcm", tmp_path)
    work = tmp_path / "work"
    process = run_command("icre_jax.train", *flags_of(config), "--workdir", str(work))
    assert process.returncode == 0, process.stderr
    results, provenance = read_results(work)
    assert [result.setting for result in results] == [setting.name for setting in PROTOCOLS["llcm"].settings]
    assert {(result.protocol, result.dataset) for result in results} == {("LLCM", "synthetic people")}
    assert [result.num_trials for result in results] == [2, 2, 2]
    assert provenance["trial"] is None
    for words in ("infrared_to_visible", "visible_to_infrared_transposed", "queries python-random", "LLCM protocol"):
        assert words in process.stdout
    assert "published" not in process.stdout
    report = (work / "report.html").read_text()
    for words in ("visible_to_infrared_transposed", "synthetic people (LLCM protocol)", "all images, queries"):
        assert words in report
    lines = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    assert "visible_to_infrared_transposed/mAP" in lines[0]


@pytest.mark.long
def test_a_regdb_checkpoint_belongs_to_its_trial(configure, tmp_path):
    config = configure("regdb", tmp_path, trial=3)
    work = tmp_path / "work"
    process = run_command("icre_jax.train", *flags_of(config), "--workdir", str(work))
    assert process.returncode == 0, process.stderr
    assert "regdb trial 3" in process.stdout
    results, provenance = read_results(work)
    assert [result.setting for result in results] == [setting.name for setting in PROTOCOLS["regdb"].settings]
    assert {result.num_trials for result in results} == {1}
    assert provenance["trial"] == 3
    assert (tmp_path / "prepared" / "regdb" / "trial_3" / "1.0.0" / "index.npz").is_file()
    assert "RegDB protocol" in (work / "report.html").read_text()

    # Again: the same numbers. Then pointed at another trial: refused before anything is prepared for it.
    process = run_command("icre_jax.evaluate", "--workdir", str(work), "--out", str(tmp_path / "again"))
    assert process.returncode == 0, process.stderr
    assert read_results(tmp_path / "again")[0] == results
    moved = Path(shutil.copytree(work, tmp_path / "moved"))
    changed = json.loads((moved / "config.json").read_text())
    changed["data"]["trial"] = 4
    (moved / "config.json").write_text(json.dumps(changed))
    process = run_command("icre_jax.evaluate", "--workdir", str(moved))
    refused(process, "trained on regdb trial 3", "says regdb trial 4", "training identities")
    assert not (tmp_path / "prepared" / "regdb" / "trial_4").exists()

    config.data.trial = 4
    with pytest.raises(InputError, match=r"another config(.|\n)*data\.trial: 3 -> 4"):
        train_and_evaluate(parse(config), work)


def test_a_score_of_another_protocol_cannot_choose_the_checkpoint(configure, tmp_path):
    config = configure("llcm", tmp_path)
    config.checkpoint.best_metric = "all/single/mAP"
    with pytest.raises(InputError, match=r"'all/single/mAP'; allowed are infrared_to_visible/rank1.*dataset llcm"):
        train_and_evaluate(parse(config), tmp_path / "work")


@pytest.mark.parametrize(
    ("dataset", "field", "value", "words"),
    [
        ("regdb", "trial", None, "data.trial is None; regdb needs the trial"),
        ("regdb", "trial", 11, "data.trial is 11; regdb needs the trial to train and test on, 1 to 10"),
        ("llcm", "trial", 1, "data.trial is 1; llcm has no trials"),
        ("sysu_mm01", "trial", 1, "data.trial is 1; sysu_mm01 has no trials"),
        ("llcm", "train_splits", ("train", "val"), r"llcm has only \('train',\)"),
        ("regdb", "dataset", "redgb", "allowed are 'sysu_mm01', 'llcm', 'regdb', 'manifest'"),
    ],
)
def test_settings_that_do_not_fit_the_data_set(configure, tmp_path, dataset, field, value, words):
    config = configure(dataset, tmp_path, trial=1 if dataset == "regdb" else None)
    parse(config)
    config.data[field] = value
    with pytest.raises(InputError, match=words):
        parse(config)


def test_validation_identities_only_where_there_is_a_list(configure, tmp_path):
    for dataset, number in (("llcm", 1), ("sysu_mm01", 0)):
        config = configure(dataset, tmp_path)
        config.data.synthetic.num_val_ids = number
        with pytest.raises(InputError, match=f"num_val_ids is {number}; {dataset} needs"):
            parse(config)
