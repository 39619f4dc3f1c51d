"""The noise of a config as a command: which runs, what it says in every file, and bad input."""

import math
import shlex
import sys

import numpy as np
import pytest
from scipy import stats

from icre_jax import noise as door
from icre_jax.errors import InputError
from icre_jax.experiments import noise_tables
from icre_jax.experiments.evidence import welch
from icre_jax.experiments.noise import plan_noise
from icre_jax.experiments.spread import compare, deviation, power, smallest_difference
from icre_jax.settings import differences, from_json
from tests.conftest import refused, run_command
from tests.stand_in import contents, notes, read_csv, score, start

# ml_collections reads a config file that way; elsewhere in the tests processes of their own do so.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")


# The arithmetic


def test_the_interval_of_a_deviation_by_hand():
    """1, 2, 3, 4, 5: s^2 = 10 / 4; the tables of chi-square have 11.143 and 0.4844 for four degrees."""
    made = deviation([1, 2, 3, 4, 5])
    assert made.value == pytest.approx(math.sqrt(2.5))
    assert made.low == pytest.approx(math.sqrt(10 / 11.143287), rel=1e-6)
    assert made.high == pytest.approx(math.sqrt(10 / 0.484419), rel=1e-6)
    assert all(map(math.isnan, (deviation([0.3]).value, deviation([0.3]).low, deviation([0.3]).high)))
    assert deviation([0.3, 0.3]).high == pytest.approx(0)


def test_the_f_test_by_hand():
    """s1^2 = 4, s2^2 = 1, two degrees each: P(F > f) = 1 / (1 + f), so its 97.5 % quantile is 39."""
    made = compare([2, 4, 6], [1, 2, 3])
    assert made.value == pytest.approx(2)
    assert made.p == pytest.approx(2 / (1 + 4))
    assert (made.low, made.high) == pytest.approx((2 / math.sqrt(39), 2 * math.sqrt(39)))
    turned = compare([1, 2, 3], [2, 4, 6])
    assert (turned.value, turned.low, turned.high, turned.p) == pytest.approx(
        (1 / made.value, 1 / made.high, 1 / made.low, made.p)
    )


@pytest.mark.parametrize(("first", "second"), [([1], [1, 2]), ([1, 2], []), ([1, 1, 1], [1, 2, 3])])
def test_what_cannot_be_compared(first, second):
    assert all(map(math.isnan, (compare(first, second).value, compare(first, second).p)))


@pytest.mark.parametrize("k", [2, 3, 8, 16])
def test_the_power_is_that_of_welchs_test(k):
    """Of 4000 simulated comparisons 80 % ± 4 standard errors are resolved, and where there is no effect few are."""
    rng, difference = np.random.default_rng(k), smallest_difference(k)
    first, second = rng.normal(0, 1, (2, k, 4000))
    found = stats.ttest_ind(first + difference, second, equal_var=False).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 4000))
    by_chance = stats.ttest_ind(first, second, equal_var=False).pvalue < 0.05
    assert by_chance.mean() == pytest.approx(power(0.0, k), abs=4 * math.sqrt(0.05 / 4000))
    one = welch(first[:, 0] + difference, second[:, 0])  # the test that the ablation makes
    assert (one.p < 0.05) == found[0]


@pytest.mark.parametrize("k", [16, 100])
def test_with_many_seeds_it_is_students_power(k):
    """The degrees of freedom then hardly vary: scipy's noncentral t with 2 (k - 1) of them, a second formula."""
    difference = smallest_difference(k)
    law = stats.nct(2 * (k - 1), difference * math.sqrt(k / 2))
    limit = stats.t.ppf(0.975, 2 * (k - 1))
    assert law.sf(limit) + law.cdf(-limit) == pytest.approx(0.8, abs=0.003)


def test_more_seeds_resolve_less():
    assert [round(smallest_difference(k), 2) for k in (3, 8, 16)] == [3.51, 1.52, 1.03]


# What it says

NUMBERS = {"config": 0, "perturbation=1": 1, "perturbation=2": 2}
SCORES = [
    score("perturbation=2", 0, 0.14, 0.20), score("config", 0, 0.12, 0.20), score("config", 1, 0.11, 0.21),
    score("config", 2, 0.13, 0.25), score("perturbation=1", 0, 0.10, 0.20),
]  # fmt: skip


def test_the_files_say_it_in_numbers_and_in_words(tmp_path):
    """Seeds 12, 11, 13; perturbations 12, 10, 14, of which the first is also a seed: 11, 13 against them."""
    tables = noise_tables.make_tables(NUMBERS, SCORES)
    for name, content in tables.files.items():
        (tmp_path / name).write_bytes(content)
    assert {*tables.files} == {"noise.csv", "noise_summary.csv", "noise.md", "noise.tex", "noise.png"}
    lines = read_csv(tmp_path / "noise.csv")
    assert [(line["group"], line["seed"], line["perturbation"], line["rank1"]) for line in lines] == [
        ("both", "0", "0", "0.12"), ("seeds", "1", "0", "0.11"), ("seeds", "2", "0", "0.13"),
        ("perturbations", "0", "1", "0.1"), ("perturbations", "0", "2", "0.14"),
    ]  # fmt: skip
    seeds, _, perturbed, of_map = read_csv(tmp_path / "noise_summary.csv")
    assert (seeds["group"], seeds["metric"], seeds["num_runs"], perturbed["num_runs"]) == ("seeds", "rank1", "3", "3")
    assert float(seeds["mean"]) == pytest.approx(0.12)
    assert float(seeds["std"]) == pytest.approx(0.01)
    # Two degrees: chi-square's quantiles are -2 ln(1 - p).
    assert float(seeds["std_low"]) == pytest.approx(0.01 / math.sqrt(-math.log(0.025)))
    assert float(seeds["std_high"]) == pytest.approx(0.01 / math.sqrt(-math.log(0.975)))
    assert float(seeds["resolved_by_8"]) == pytest.approx(0.01 * smallest_difference(8))
    assert (seeds["ratio_value"], seeds["verdict"], perturbed["resolved_by_3"]) == ("", "", "")
    assert float(perturbed["ratio_value"]) == pytest.approx(math.sqrt(0.0004 / 0.0002))
    # F = 2 with 2 and 1 degrees: P(F > f) = 1 / sqrt(1 + 2 f), which is 0.975 at (1 / 0.975^2 - 1) / 2.
    assert float(perturbed["ratio_high"]) == pytest.approx(2 / math.sqrt(1 / 0.975**2 - 1))
    assert float(perturbed["ratio_p"]) == pytest.approx(2 / math.sqrt(5))
    assert (perturbed["verdict"], of_map["verdict"]) == ("not resolved", "nothing can be said")
    markdown = (tmp_path / "noise.md").read_text()
    for words in (
        "| seeds | Rank-1 | 3 | 12.00 | 1.00 | 0.52 to 6.28 |",
        "| perturbations | mAP | 3 | 20.00 | 0.00 | 0.00 to 0.00 |",
        "| 8 | 1.52 | 1.52 | 0.79 to 9.55 |",
        "| Rank-1 | 1.41 | 0.05 to 8.78 | 0.894 | not resolved |",
        "| mAP | - | - | - | nothing can be said |",
        "synthetic people, all/single, infrared->visible",
    ):
        assert words in markdown, markdown
    text = (tmp_path / "noise.tex").read_text()
    assert text.isascii()
    assert text.count(r"\begin") == text.count(r"\end") == 6
    assert (tmp_path / "noise.png").read_bytes().startswith(b"\x89PNG")
    assert noise_tables.make_tables(NUMBERS, SCORES[::-1]).files == tables.files


def test_a_difference_of_spreads_is_told():
    seeds = [score("config", seed, 0.1 + 0.02 * (-1) ** seed) for seed in range(9)]
    numbers = {"config": 0} | {f"p{number}": number for number in range(1, 9)}
    perturbed = [score(f"p{number}", 0, 0.12 + 0.001 * (-1) ** number) for number in range(1, 9)]
    ratio = noise_tables.make_tables(numbers, [*seeds, *perturbed]).sheets[2]
    assert ratio.body[0][-1] == "resolved: perturbations scatter less"
    assert noise_tables.judge(compare([1, 9, 1, 9, 1, 9], [1, 2, 1, 2, 1, 2])) == (
        "resolved: perturbations scatter more"
    )


@pytest.mark.parametrize("scores", [SCORES[:1], SCORES[1:2], SCORES[2:3], SCORES[:3]], ids=["p", "both", "seed", "few"])
def test_few_runs_are_said_and_drawn(scores):
    tables = noise_tables.make_tables(NUMBERS, scores)
    assert tables.files["noise.png"].startswith(b"\x89PNG")
    assert "-" in tables.sheets[0].body[0] or len(scores) > 1
    assert tables.files["noise_summary.csv"]


def test_runs_of_different_conditions_do_not_share_a_table():
    with pytest.raises(InputError, match="gallery_source official, not python-random"):
        noise_tables.make_tables(NUMBERS, [*SCORES, score("config", 3, 0.1, gallery_source="official")])


# Runs, with a stand-in for training


def test_both_groups_are_trained_and_grow(stand_in, one_epoch, tmp_path):
    plan = plan_noise(one_epoch, 3, tmp_path)
    folders = [str(run.folder.relative_to(plan.out)) for run in plan.runs]
    assert folders == [
        "config/seed_0", "config/seed_1", "perturbation=1/seed_0", "config/seed_2", "perturbation=2/seed_0",
    ]  # fmt: skip
    # Every run is the first one but for one field.
    changed = [differences(plan.runs[0].settings, run.settings) for run in plan.runs[1:]]
    assert changed == [["seed: 0 -> 1"], ["perturbation: 0 -> 1"], ["seed: 0 -> 2"], ["perturbation: 0 -> 2"]]
    done, screen = start(plan)
    assert done
    assert "5 runs, 0 of them finished already" in screen
    assert "[3/5] perturbation=1 seed 0: all/single Rank-1 11.0%" in screen
    for words in ("Standard deviation", "Seeds per row", "Ratio"):
        assert words in screen
    assert len(read_csv(tmp_path / "noise.csv")) == 5
    # Fewer: what is there belongs to the tables all the same, and nothing is repeated.
    before = contents(tmp_path)
    done, screen = start(plan_noise(one_epoch, 2, tmp_path))
    assert "3 runs, 3 of them finished already" in screen
    assert contents(tmp_path) == before
    assert notes(tmp_path, "perturbation=2").count("began") == 1
    with pytest.raises(InputError, match=r"seed_0 is a run of another config:\s+- optimizer\.momentum"):
        start(plan_noise([*one_epoch, "--config.optimizer.momentum=0.25"], 2, tmp_path))


def test_points_of_a_sweep_in_the_folder_are_not_of_the_noise(stand_in, one_epoch, tmp_path):
    start(plan_noise(one_epoch, 2, tmp_path))
    for name in ("loss.icg_rho1=0.5", "perturbation=1/seed_4"):
        folder = tmp_path / name
        (folder if "seed" in name else folder / "seed_0").mkdir(parents=True)
        ((folder if "seed" in name else folder / "seed_0") / "config.json").write_text("{}")
    assert [run.row.name for run in plan_noise(one_epoch, 2, tmp_path).others] == []


# The command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runs", "1"], "--runs is 1; allowed are 2 to 100"),
        (["--runs", "101"], "--runs is 101; allowed are 2 to 100"),
        (["--config.seed=3"], r"--config\.seed=3 is given, but seed and perturbation are set for each run"),
        (["--config.perturbation=3"], r"--config\.perturbation=3 is given, but"),
        (["--num_parallel", "0"], "num_parallel is 0"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, words, tmp_path):
    with pytest.raises(InputError, match=words):
        door.main(["--config", "configs/synthetic.py", "--out", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


def test_a_config_with_a_perturbation_of_its_own_is_refused(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import synthetic\n\n\ndef get_config():\n    config = synthetic.get_config()\n"
        "    config.perturbation = 7\n    return config\n"
    )
    with pytest.raises(InputError, match="The config sets perturbation = 7; the runs here start from 0"):
        plan_noise([f"--config={file}"], 3, tmp_path / "out")


def test_bad_input_leaves_with_exit_code_2(tmp_path):
    out = tmp_path / "out"
    process = run_command("icre_jax.noise", "--config", "configs/synthetic.py", "--runs", "1", "--out", str(out))
    refused(process, "--runs is 1", "allowed are 2 to 100", "such as 8")
    assert not out.exists()


def test_print_commands_has_a_line_per_run_and_touches_nothing(tmp_path):
    out = tmp_path / "out"
    arguments = ["--config", "configs/synthetic.py:baseline", "--config.data.data_dir=/nowhere", "--print_commands"]
    process = run_command("icre_jax.noise", *arguments, "--runs", "2", "--out", str(out))
    assert (process.returncode, process.stderr) == (0, "")
    lines = [shlex.split(line) for line in process.stdout.splitlines()]
    train = [sys.executable, "-m", "icre_jax.train", "--config", "configs/synthetic.py:baseline"]
    train += ["--config.data.data_dir=/nowhere"]
    assert lines == [
        [*train, "--config.seed=0", "--workdir", str(out / "config" / "seed_0")],
        [*train, "--config.seed=1", "--workdir", str(out / "config" / "seed_1")],
        [*train, "--config.perturbation=1", "--config.seed=0", "--workdir", str(out / "perturbation=1" / "seed_0")],
    ]
    assert not out.exists()


@pytest.mark.long
def test_the_command_trains_writes_and_does_nothing_the_second_time(one_epoch, tmp_path):
    arguments = ["--config=configs/synthetic.py:baseline", *one_epoch[1:], "--out", str(tmp_path), "--runs", "2"]
    process = run_command("icre_jax.noise", *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    for words in ("[3/3] perturbation=1 seed 0", "Runs differ in", "Seeds per row", "noise.md"):
        assert words in process.stdout
    made = from_json((tmp_path / "perturbation=1" / "seed_0" / "config.json").read_text())
    assert (made.perturbation, made.seed) == (1, 0)
    first, _, perturbed = (
        [line for line in (tmp_path / folder / "metrics.jsonl").read_text().splitlines() if "loss" in line]
        for folder in ("config/seed_0", "config/seed_1", "perturbation=1/seed_0")
    )
    assert first != perturbed
    before = contents(tmp_path)
    process = run_command("icre_jax.noise", *arguments)
    assert process.returncode == 0, process.stderr
    assert "3 of them finished already" in process.stdout
    assert contents(tmp_path) == before
