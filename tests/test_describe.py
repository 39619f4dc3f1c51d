"""The command that says what a config is and costs, as a user starts it; and that it needs no data."""

import json

import numpy as np
import pytest

from configs import sysu_mm01
from icre_jax.costs.compare import Measured, baseline_of, compare
from icre_jax.costs.compiled import Cost
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.plan import BalancedPlan
from icre_jax.data.sizes import count_training_ids
from icre_jax.settings import parse
from tests.conftest import flags_of, refused, run_command


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture
def described(config, made, tmp_path_factory):
    """Output and numbers of the command on the small config, made once for this file; its data is not there."""
    if not made:
        file = tmp_path_factory.mktemp("described") / "numbers.json"
        config.data.data_dir = config.data.prepared_dir = str(file.parent / "absent")
        config.sampling.num_images_per_id = 2
        flags = (*flags_of(config), "--json", str(file), "--measure_steps", "2", "--measure_batch", "16")
        made["process"] = run_command("icre_jax.describe", *flags)
        assert made["process"].returncode == 0, made["process"].stderr
        made["numbers"] = json.loads(file.read_text())
        assert [path.name for path in file.parent.iterdir()] == ["numbers.json"]  # nothing was rendered
    return made["process"].stdout, made["numbers"]


def test_it_prints_every_table(described):
    out, _ = described
    for word in (
        "backbone/infrared_stem", "mpfr/projection_1", "sdce/gate", "head/classifier", "[2, 1, 32]",
        "FLOPs per image", "state of the optimizer", "temporaries", "model.mpfr.mask = sigmoid", "ICG loss",
        "Beside the baseline", "step of training",
    ):  # fmt: skip
        assert word in out, word
    assert "\x1b" not in out  # plain where there is no terminal
    assert max(len(line) for line in out.splitlines()) <= 132


def test_the_file_holds_the_numbers(described):
    out, numbers = described
    ours, baseline = numbers["measured"]["config"], numbers["measured"]["baseline"]
    modules = {row["name"]: row for row in numbers["modules"]}
    assert numbers["num_classes"] == 8
    assert sum(row["num_parameters"] for name, row in modules.items() if "/" not in name) == ours["num_parameters"]
    added = modules["mpfr"]["num_parameters"] + modules["sdce"]["num_parameters"]
    assert ours["num_parameters"] - baseline["num_parameters"] == added
    assert f"{ours['num_parameters']:,}" in out
    assert ours["training"]["num_images"] == 2 * 4 * 2
    assert ours["embedding"]["num_images"] == 16
    assert len(ours["step_seconds"]) == len(baseline["step_seconds"]) == 2
    assert numbers["step_batch"] == 16
    comparison = {(row["name"], row["unit"]): row for row in numbers["comparison"]}
    flops = comparison["training, per image", "FLOPs"]
    assert flops["ours"] == ours["training"]["flops_per_image"]
    assert flops["ratio"] == flops["ours"] / flops["baseline"] > 1
    assert comparison["step of training, median", "s"]["ours"] == np.median(ours["step_seconds"])
    assert {row["tag"] for row in numbers["choices"]} == {"P", "S", "I", "-"}
    assert numbers["command"].startswith("python -m icre_jax.describe --config")
    assert numbers["settings"]["model"]["width"] == 4


@pytest.mark.long
def test_the_baseline_has_nothing_to_stand_beside(config, tmp_path):
    config.model.mpfr.enabled = config.model.sdce.enabled = False
    config.loss.icg_weight = 0.0
    file = tmp_path / "numbers.json"
    process = run_command("icre_jax.describe", *flags_of(config), "--json", str(file))
    assert process.returncode == 0, process.stderr
    assert "This config is the baseline itself" in process.stdout
    assert "Beside the baseline" not in process.stdout
    numbers = json.loads(file.read_text())
    assert (numbers["comparison"], numbers["step_batch"]) == (None, None)
    assert list(numbers["measured"]) == ["config"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--measure_steps=-1",), ("--measure_steps is -1", "0 (run nothing)")),
        (("--measure_batch=7",), ("--measure_batch is 7", "a multiple of 2")),
        (("--measure_batch=2",), ("--measure_batch is 2", "at least 4")),
        (("--json=/proc/absent/numbers.json",), ("Cannot write --json /proc/absent/numbers.json",)),
        (("--json=docs",), ("Cannot write --json docs", "is a folder")),
        (("--config.model.sdce.num_heads=7",), ("model.sdce.width = 64", "7 heads")),
        (("--config.model.non_local_blocks=(0,9,0,0)",), ("non_local_blocks asks for 9 in layer2",)),
        (("--config.model.mpfr.taps=(1,2)",), ("model.mpfr.taps", "(1, 2, 3) or (2, 3, 4)")),
        (("--workdir=x",), ("--workdir",)),
    ],
)
def test_what_cannot_be_described_is_refused(flags, words):
    refused(run_command("icre_jax.describe", "--config", "configs/synthetic.py", *flags), *words)


def test_a_batch_that_the_devices_cannot_share():
    process = run_command("icre_jax.describe", "--config", "configs/synthetic.py", num_devices=3)
    refused(process, "16 visible-infrared pairs", "3 devices")


def test_identities_are_known_without_the_data(config, prepared):
    settings = parse(config)
    source = RecordSource(prepared, settings.data.train_splits)
    plan = BalancedPlan(source.index, num_ids_per_batch=4, num_images_per_id=2, num_batches=1, seed=0)
    assert count_training_ids(settings.data)[0] == plan.num_classes == 8
    assert count_training_ids(settings.data.model_copy(update={"train_splits": ("train",)}))[0] == 6
    real = parse(sysu_mm01.get_config()).data
    assert count_training_ids(real)[0] == 395
    for dataset, published in (("llcm", 713), ("regdb", 206)):
        assert (
            count_training_ids(real.model_copy(update={"dataset": dataset, "train_splits": ("train",)}))[0] == published
        )


@pytest.mark.parametrize("variant", ["", "agw", "baseline_triplet", "mpfr", "sdce", "icg", "mpfr_sdce"])
def test_the_baseline_of_a_variant(variant):
    settings, plain = (parse(sysu_mm01.get_config(name)) for name in (variant, "baseline"))
    baseline = baseline_of(settings)
    assert baseline != settings
    assert baseline.model == plain.model
    assert (baseline.loss.icg_weight, baseline.loss.triplet_weight) == (0, 0)
    assert baseline_of(baseline) == baseline


def test_comparison_by_hand():
    def measured(factor, seconds):
        cost = Cost(
            num_images=8,
            num_devices=2,
            flops=16e9 * factor,
            compiled_flops=16e9,
            argument_bytes=100,
            optimizer_bytes=40,
            batch_bytes=20,
            output_bytes=5,
            temporary_bytes=40 * factor,
        )
        return Measured(num_parameters=10 * factor, training=cost, embedding=cost, step_seconds=seconds)

    rows = compare(measured(3, (1.0, 9.0, 3.0)), measured(1, (2.0, 2.0, 2.0)))
    by_name = {(row.name, row.unit): row for row in rows}
    assert (by_name["training, per image", "FLOPs"].ours, by_name["training, per image", "FLOPs"].ratio) == (6e9, 3)
    per_image = by_name["training: activations and scratch, per image", "bytes"]
    assert (per_image.ours, per_image.baseline) == (30, 10)  # 4 images on each of 2 devices
    assert by_name["training: everything held, per device", "bytes"].ours == 100 + 5 + 120
    assert by_name["step of training, median", "s"].ratio == 1.5  # medians, not means
    assert by_name["step of training, fastest", "s"].ratio == 0.5
    assert measured(1, ()).training.variable_bytes == 40
    assert all(row.unit != "s" for row in compare(measured(3, ()), measured(1, ())))
