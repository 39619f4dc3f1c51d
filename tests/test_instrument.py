"""The three configs of the instrument: alike but for their people, rows for all, and the whole way on small data."""

import csv
import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from icre_jax import describe
from icre_jax.engine.convert import export_weights
from icre_jax.engine.pretrained import read_backbone
from icre_jax.engine.stored import read_stored
from icre_jax.evals.results import read_results
from icre_jax.experiments.noise import plan_noise
from icre_jax.experiments.rows import NAMES, plan_rows
from icre_jax.rendering import SyntheticSettings
from icre_jax.rendering.layouts import LAYOUTS
from icre_jax.settings import differences, flatten, parse
from tests.conftest import TINY_NETWORK
from tests.small_runs import run

# ml_collections reads a config file that way; elsewhere in the tests processes of their own do so.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")

FILES = ("instrument", "instrument_second", "instrument_thermal")
HEADLINE = {"instrument": "all/single", "instrument_second": "all/single", "instrument_thermal": "visible_to_infrared"}
each_file = pytest.mark.parametrize("file", FILES)


def config_of(file: str, variant: str = ""):
    return importlib.import_module(f"configs.{file}").get_config(variant)


@pytest.mark.parametrize("variant", ["", "baseline", "agw", "icg"])
def test_they_differ_in_their_people_alone(variant):
    first, second, thermal = (parse(config_of(file, variant)) for file in FILES)
    assert {line.split(":")[0] for line in differences(first, second)} == {
        "name", "data.synthetic.seed", "data.synthetic.difficulty",
    }  # fmt: skip
    assert {line.split(":")[0] for line in differences(first, thermal)} == {
        "name", "checkpoint.best_metric", "data.dataset", "data.trial", "data.train_splits", "data.synthetic.seed",
        "data.synthetic.num_train_ids", "data.synthetic.num_val_ids", "data.synthetic.num_images_per_camera",
    }  # fmt: skip
    all_three = (first, second, thermal)
    for field in ("name", "data.data_dir", "data.prepared_dir", "data.synthetic.seed"):
        assert len({flatten(settings)[field] for settings in all_three}) == 3
    assert all(settings.data.data_dir.startswith("data/instrument") for settings in all_three)


@each_file
def test_the_start_is_the_backbone_in_the_box_and_its_people_are_others(file, tmp_path):
    settings, stored = parse(config_of(file)), read_stored("instrument")
    export_weights("instrument", tmp_path / "start.safetensors", stem="visible")
    assert settings.pretrained == "data/start.safetensors"
    like = {name: {"backbone": tree["backbone"]} for name, tree in stored.variables.items()}
    loaded = read_backbone(tmp_path / "start.safetensors", {name: tree["backbone"] for name, tree in like.items()})
    np.testing.assert_array_equal(
        loaded["params"]["infrared_stem"]["conv1"]["kernel"],
        like["params"]["backbone"]["visible_stem"]["conv1"]["kernel"],
    )
    assert differing_fields(settings.model, stored.settings.model) == []
    assert settings.data.synthetic.seed != stored.settings.data.synthetic.seed


def differing_fields(ours, theirs):
    """Fields of the backbone in which they differ."""
    return [
        name
        for name in ("depth", "width", "last_stride", "specific_until")
        if getattr(ours, name) != getattr(theirs, name)
    ]


def num_steps(settings) -> int:
    """Of one epoch, counted in the names of the images that would be rendered."""
    people = SyntheticSettings(**settings.data.synthetic.model_dump(exclude={"num_workers"}))
    layout = LAYOUTS[settings.data.dataset](people)
    lists = [text for path, text in layout.texts.items() if path.name in ("train_id.txt", "val_id.txt")]
    pids = [int(pid) for text in lists for pid in text.split(",")] or range(1, people.num_train_ids + 1)
    shots = [shot for pid in pids for shot in layout.shots[pid]]
    larger = max(sum(shot.camera.modality == modality for shot in shots) for modality in ("visible", "infrared"))
    return math.ceil(larger / (settings.sampling.num_ids_per_batch * settings.sampling.num_images_per_id))


def test_they_train_on_as_many_people_for_as_long():
    all_three = [parse(config_of(file)) for file in FILES]
    ids = [settings.data.synthetic.num_train_ids + settings.data.synthetic.num_val_ids for settings in all_three]
    assert len({*ids}) == 1
    steps = [num_steps(settings) for settings in all_three]
    # Which people never pass one of the cameras is left to chance.
    assert max(steps) - min(steps) < 0.02 * min(steps)


@each_file
def test_the_recipe_is_the_one_of_the_evidence(file):
    """What the demo's config becomes must not change it: later runs would stand beside those of another recipe."""
    settings = parse(config_of(file))
    folder = Path("docs/evidence") / (file.removeprefix("instrument_"))
    lines = list(csv.DictReader((folder / "ablation.csv").read_text().splitlines()))
    assert {int(line["num_steps"]) for line in lines} == {num_steps(settings) * settings.schedule.num_epochs}
    fields = flatten(settings)
    recipe = {
        "data.image_size": (96, 48), "sampling.num_ids_per_batch": 16, "sampling.num_images_per_id": 2,
        "augment.pad": 4, "augment.channel_probability": 1.0, "augment.erasing_probability": 0.0,
        "loss.icg_weight": 1.0, "optimizer.name": "adam", "optimizer.backbone_learning_rate": 1e-3,
        "optimizer.enhancement_learning_rate": 1e-3, "optimizer.head_learning_rate": 1e-2,
        "optimizer.backbone_weight_decay": 1e-4, "optimizer.enhancement_weight_decay": 0.0,
        "optimizer.head_weight_decay": 1e-4, "optimizer.ema_decay": 0.98,
        "schedule.num_epochs": 3, "schedule.boundaries": (2,), "schedule.factors": (0.1,),
    }  # fmt: skip
    assert {name: fields[name] for name in recipe} == recipe


@each_file
def test_the_ablation_has_its_rows_on_each_at_one_budget(file):
    planned = plan_rows(NAMES, [f"--config=configs/{file}.py"])
    assert len(planned) == len(NAMES) - 1  # the config's own form of ICG is the row icre
    assert not any(row.reset_fields for row in planned)
    assert {row.settings.data for row in planned} == {planned[0].settings.data}
    assert (planned[0].settings.name, planned[0].settings.data.dataset) == (
        f"{file}_baseline",
        "regdb" if file == "instrument_thermal" else "sysu_mm01",
    )


def tiny(file: str, config, folder):
    """The config of a file with the small network, recipe and people of the fixture `config`."""
    made = config_of(file)
    for group in ("sampling", "model", "optimizer", "schedule", "evaluation", "logging"):
        made[group].update(config[group].to_dict())
    made.pretrained = None  # a start for the larger network
    made.data.image_size = config.data.image_size
    made.data.data_dir, made.data.prepared_dir = str(folder / "tree"), str(folder / "prepared")
    thermal = file == "instrument_thermal"
    made.data.synthetic.update(
        num_train_ids=8 if thermal else 6,
        num_val_ids=0 if thermal else 2,
        num_test_ids=4,
        num_images_per_camera=9 if thermal else 3,
        image_size=(64, 32),
        num_workers=0,
    )
    return made


@pytest.mark.long
@each_file
def test_a_small_one_is_described_prepared_trained_and_scored(file, small, tmp_path, capsys):
    flags = ["--config", f"configs/{file}.py:baseline", *TINY_NETWORK, f"--config.data.data_dir={tmp_path / 'absent'}"]
    assert describe.main([*flags, "--measure_steps", "0"]) == 0
    assert f"{file}_baseline, 1000 training identities" in capsys.readouterr().out
    small.schedule.num_epochs = 1
    small.schedule.warmup_epochs = 0
    small.schedule.boundaries = small.schedule.factors = ()
    _, screen = run(tiny(file, small, tmp_path), tmp_path / "run")
    assert f"{file}: ResNet-18" in screen
    results, provenance = read_results(tmp_path / "run")
    assert (results[0].setting, results[0].dataset) == (HEADLINE[file], "synthetic people")
    assert provenance["config"] == file
    assert (tmp_path / "run" / "best" / "results.json").is_file()


@each_file
def test_its_noise_can_be_measured(file, tmp_path):
    plan = plan_noise([f"--config=configs/{file}.py:baseline"], 3, tmp_path)
    assert {run.settings.name for run in plan.runs} == {f"{file}_baseline"}
