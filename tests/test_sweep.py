"""The sweep as a command: what it says in every file, runs that are not repeated, commands for a scheduler."""

import csv
import io
import math
import shlex
import subprocess
import sys

import pytest

from configs import synthetic
from icre_jax import sweep as door
from icre_jax.errors import InputError
from icre_jax.experiments import sweep_plot, sweep_tables
from icre_jax.experiments.points import DEFAULT, Space, plan_points
from icre_jax.experiments.summary import summarize
from icre_jax.experiments.sweep import plan_sweep
from icre_jax.settings import flatten, from_json
from tests.conftest import ROOT, refused, run_command
from tests.stand_in import contents, notes, read_csv, score
from tests.stand_in import start as carry_out

# ml_collections reads a config file that way; elsewhere in the tests processes of their own do so.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")

WEIGHT, RHO = "loss.icg_weight", "loss.icg_rho1"
OWN_WEIGHT = str(synthetic.get_config().loss.icg_weight)


@pytest.fixture(scope="module")
def space():
    return Space.open(["--config=configs/llcm.py"])


# What it says


def tables_of(space, variations, *, grid=False, seeds=(0, 1)):
    """Rank-1 is 10 weight + rho, in percent, plus and minus a point."""
    points = plan_points(space, variations, grid=grid)
    scores = []
    for point in points:
        values = flatten(point.settings)
        middle = (10 * values[WEIGHT] + values[RHO]) / 100
        scores += [score(point.name, seed, middle + 0.02 * (seed - (len(seeds) - 1) / 2)) for seed in seeds]
    return points, scores, sweep_tables.make_tables(space, list(variations), points, scores)


def lines_of(tables, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tables.files[name].decode())))


def test_each_field_has_a_table_with_the_config_in_it(space):
    _, _, tables = tables_of(space, DEFAULT)
    assert set(tables.files) == {"sweep.csv", "sweep_summary.csv", "sweep.md", "sweep.tex", "sweep.png"}
    weight, rho = tables.sheets
    assert [line[0] for line in weight.body] == ["0.2", "0.5", "1.0", "1.5", "2.0"]
    assert [line[0] for line in rho.body] == ["0.1", "0.3", "0.5", "0.7", "0.9"]
    assert weight.body[2] == ["1.0", "2", "10.30 ± 1.41", "50.00 ± 0.00"]
    assert rho.body[1] == ["0.3", "2", "10.30 ± 1.41", "50.00 ± 0.00"]
    for words in (
        "loss.icg_weight varied alone, with loss.icg_rho1 = 0.3.",
        "The config's own value is 1.0.",
        "2 seeds",
    ):
        assert words in weight.caption
    runs = lines_of(tables, "sweep.csv")
    assert len(runs) == 18
    assert {"point", WEIGHT, RHO, "seed", "rank1", "mAP", "training_seconds"} <= runs[0].keys()
    summaries = lines_of(tables, "sweep_summary.csv")
    own = next(line for line in summaries if line["point"] == "config")
    assert float(own["rank1_mean"]) == pytest.approx(0.103)
    assert float(own["rank1_std"]) == pytest.approx(0.02 / math.sqrt(2))
    assert (own[WEIGHT], own[RHO], own["num_runs"]) == ("1.0", "0.3", "2")
    text = tables.files["sweep.tex"].decode()
    assert text.isascii()
    assert text.count(r"\begin") == text.count(r"\end") == 4
    assert r"loss.icg\_weight & n & Rank-1 & mAP" in text


def test_a_grid_has_a_table_of_all_points_as_well(space):
    _, _, tables = tables_of(space, {WEIGHT: ["0.5", "1.0"], RHO: ["0.1", "0.3"]}, grid=True)
    assert [sheet.name for sheet in tables.sheets] == ["sweep-loss-icg_weight", "sweep-loss-icg_rho1", "sweep"]
    assert [line[:2] for line in tables.sheets[2].body] == [
        ["0.5", "0.1"], ["0.5", "0.3"], ["1.0", "0.1"], ["1.0", "0.3"],
    ]  # fmt: skip


def test_a_grid_that_leaves_out_the_config_has_that_table_alone(space):
    _, _, tables = tables_of(space, {WEIGHT: ["0.5", "2"], RHO: ["0.1", "0.9"]}, grid=True)
    assert [(sheet.name, len(sheet.body)) for sheet in tables.sheets] == [("sweep", 4)]


def test_the_plot_has_a_line_for_each_choice_of_the_other_fields(space):
    own = {WEIGHT: 1.0, RHO: 0.3}
    points, scores, _ = tables_of(space, {WEIGHT: ["0.5", "1.0"], RHO: ["0.3", "0.1"]}, grid=True)
    lines = sweep_plot._lines(summarize(points, scores), own, WEIGHT)
    assert list(lines) == ["loss.icg_rho1 = 0.3", "loss.icg_rho1 = 0.1"]
    assert [len(line) for line in lines.values()] == [2, 2]
    points, scores, _ = tables_of(space, DEFAULT)
    lines = sweep_plot._lines(summarize(points, scores), own, WEIGHT)
    assert {choice: len(line) for choice, line in lines.items()} == {"loss.icg_rho1 = 0.3": 5}


@pytest.mark.parametrize(
    ("variations", "grid"),
    [
        ({WEIGHT: ["0.5"]}, False),  # one point, and not the config
        ({WEIGHT: ["1.0"]}, False),  # the config alone
        ({"loss.icg_form": ["absolute", "relative"], "model.sdce.refinement": ["False"]}, True),
        ({WEIGHT: ["0.1", "0.2"], RHO: ["0.1", "0.2", "0.4"], "loss.icg_rho2": ["0.1", "0.2", "0.4"]}, True),
    ],
)
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_every_kind_of_sweep_is_drawn(space, variations, grid, seeds):
    _, _, tables = tables_of(space, variations, grid=grid, seeds=seeds)
    assert tables.files["sweep.png"].startswith(b"\x89PNG")
    assert tables.sheets


def test_the_length_of_training_may_be_a_field(space):
    points = plan_points(space, {"schedule.num_epochs": ["8", "9"]}, grid=False)
    scores = [score(point.name, 0, 0.1, num_steps=steps) for point, steps in zip(points, (400, 450), strict=True)]
    tables = sweep_tables.make_tables(space, ["schedule.num_epochs"], points, scores)
    assert "after the last step (400 to 450)" in tables.sheets[0].caption
    other = score(points[0].name, 1, 0.1, gallery_source="official")
    with pytest.raises(InputError, match="gallery_source official, not python-random"):
        sweep_tables.make_tables(space, ["schedule.num_epochs"], points, [*scores, other])


# Runs, with a stand-in for training


def start(flags, out, variations, seeds=(0,), **more):
    return carry_out(plan_sweep(variations, flags, seeds, out, **more))


def test_a_finished_point_is_not_repeated_and_the_tables_grow(stand_in, one_epoch, tmp_path):
    done, screen = start(one_epoch, tmp_path, {WEIGHT: ["0.5", OWN_WEIGHT]})
    assert done
    assert "[2/2] config seed 0: all/single Rank-1 10.0%  mAP 50.0%" in screen
    assert "loss.icg_weight varied alone" in screen
    done, screen = start(one_epoch, tmp_path, {RHO: ["0.1", "0.3"], WEIGHT: ["0.5"]}, seeds=(0, 1), grid=True)
    assert done
    # Rho 0.3 with weight 0.5 is there; the config itself belongs to the tables.
    assert "4 runs, 1 of them finished already" in screen
    assert notes(tmp_path, "loss.icg_weight=0.5").count("began") == 1
    lines = read_csv(tmp_path / "sweep.csv")
    assert [(line["point"], line["seed"]) for line in lines] == [
        ("loss.icg_rho1=0.1,loss.icg_weight=0.5", "0"), ("loss.icg_rho1=0.1,loss.icg_weight=0.5", "1"),
        ("loss.icg_weight=0.5", "0"), ("loss.icg_weight=0.5", "1"), ("config", "0"),
    ]  # fmt: skip
    assert [*lines[0]][:3] == ["point", RHO, WEIGHT]
    before = contents(tmp_path)
    start(one_epoch, tmp_path, {RHO: ["0.1", "0.3"], WEIGHT: ["0.5"]}, seeds=(0, 1), grid=True)
    assert contents(tmp_path) == before


def test_fields_of_an_earlier_sweep_stay_columns(stand_in, one_epoch, tmp_path):
    start(one_epoch, tmp_path, {WEIGHT: ["0.5"]})
    start(one_epoch, tmp_path, {RHO: ["0.1"]})
    lines = read_csv(tmp_path / "sweep_summary.csv")
    assert [(line[RHO], line[WEIGHT]) for line in lines] == [("0.1", OWN_WEIGHT), ("0.3", "0.5")]


def test_no_part_is_taken_out(stand_in, one_epoch, tmp_path):
    start(one_epoch, tmp_path, {WEIGHT: ["0.5"]})
    assert not any("without" in line for line in notes(tmp_path, "loss.icg_weight=0.5"))


def test_a_sweep_of_another_config_is_refused(stand_in, one_epoch, tmp_path):
    start(one_epoch, tmp_path, {WEIGHT: ["0.5"]})
    with pytest.raises(InputError, match=r"icg_weight=0\.5/seed_0 is a run of another config:\s+- optimizer\.momentum"):
        start([*one_epoch, "--config.optimizer.momentum=0.25"], tmp_path, {RHO: ["0.5"]})


# The command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vary", "loss.icg_weight=0.5,much"], "the config refuses 'much'"),
        (["--vary", "loss.icg_weight"], "no field with values"),
        (["--seeds", "0,one"], "'one' is no seed"),
        (["--num_parallel", "0"], "num_parallel is 0"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, words, tmp_path):
    with pytest.raises(InputError, match=words):
        door.main(["--config", "configs/synthetic.py", "--out", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


def test_bad_input_leaves_with_exit_code_2(tmp_path):
    out = tmp_path / "out"
    process = run_command("icre_jax.sweep", "--config", "configs/synthetic.py", "--vary", "seed=1,2", "--out", str(out))
    refused(process, "--vary seed: it cannot be varied", "--seeds")
    assert not out.exists()


def test_print_commands_has_a_line_per_run_and_touches_nothing(tmp_path):
    arguments = ["--config", "configs/synthetic.py:icg", "--config.data.data_dir=/nowhere", "--print_commands"]
    arguments += ["--out", str(tmp_path / "out"), "--seeds", "5", "--vary", f"loss.icg_weight=0.5,{OWN_WEIGHT}"]
    process = run_command("icre_jax.sweep", *arguments, "--vary", "loss.icg_form=absolute", "--grid")
    assert (process.returncode, process.stderr) == (0, "")
    first, second = map(shlex.split, process.stdout.splitlines())
    train = [sys.executable, "-m", "icre_jax.train", "--config", "configs/synthetic.py:icg"]
    assert first == [
        *train, "--config.data.data_dir=/nowhere", "--config.loss.icg_form=absolute", "--config.loss.icg_weight=0.5",
        "--config.seed=5", "--workdir", str(tmp_path / "out/loss.icg_form=absolute,loss.icg_weight=0.5/seed_5"),
    ]  # fmt: skip
    assert second[-1] == str(tmp_path / "out/loss.icg_form=absolute/seed_5")
    assert not (tmp_path / "out").exists()
    process = run_command("icre_jax.sweep", *arguments[:-4], "--vary", "loss.icg_form=absolut")
    refused(process, "the config refuses 'absolut'", "'relative', 'absolute' or 'guided'")
    assert process.stdout == ""


@pytest.mark.long
def test_printed_commands_make_the_runs_of_the_table(one_epoch, tmp_path):
    """What a scheduler would start, in any order; the same command then trains nothing and writes the tables."""
    arguments = [
        "--config=configs/synthetic.py:icg",
        *one_epoch[1:],
        "--out",
        str(tmp_path),
        "--seeds",
        "2",
        "--vary",
        "loss.icg_weight=0.5",
    ]
    printed = run_command("icre_jax.sweep", *arguments, "--print_commands")
    (line,) = printed.stdout.splitlines()
    process = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr
    process = run_command("icre_jax.sweep", *arguments)
    assert process.returncode == 0, process.stderr
    assert "1 runs, 1 of them finished already" in process.stdout
    assert "loss.icg_weight varied alone" in process.stdout
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert names == {
        "loss.icg_weight=0.5", "sweep.csv", "sweep_summary.csv", "sweep.md", "sweep.tex", "sweep.png",
    }  # fmt: skip
    made = from_json((tmp_path / "loss.icg_weight=0.5" / "seed_2" / "config.json").read_text())
    assert (made.loss.icg_weight, made.seed) == (0.5, 2)
