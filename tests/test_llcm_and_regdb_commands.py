"""What LLCM and RegDB refuse, and what is said where the data is not there. (Trained: `test_readme_commands.py`.)"""

from pathlib import Path

import pytest

from icre_jax.errors import InputError
from icre_jax.evals import PROTOCOLS
from icre_jax.settings import parse
from icre_jax.training.loop import train_and_evaluate
from tests.conftest import flags_of, refused, run_command

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


@pytest.mark.parametrize(("dataset", "trial"), [("llcm", None), ("regdb", 3)])
def test_the_synthetic_people_come_in_either_layout(configure, tmp_path, dataset, trial):
    process = run_command("icre_jax.prepare", *flags_of(configure(dataset, tmp_path, trial)))
    assert process.returncode == 0, process.stderr
    title = dataset if trial is None else f"{dataset} trial {trial}"
    assert f"{title} (fingerprint " in process.stdout
    assert list((tmp_path / "prepared" / dataset).rglob("index.npz"))


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
        ("regdb", "dataset", "redgb", "allowed are 'sysu_mm01', 'llcm', 'regdb', 'hitsz_vcm', 'manifest'"),
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
