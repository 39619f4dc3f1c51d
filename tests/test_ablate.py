"""The ablation: rows at one budget, arithmetic by hand, runs that are not repeated, and what it leaves."""

import csv
import dataclasses
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from icre_jax import ablate as door
from icre_jax.errors import InputError
from icre_jax.evals.results import CMC_LENGTH, METRICS, ProtocolResult, read_results, to_document
from icre_jax.experiments import ablation as ablate
from icre_jax.experiments import plot, processes, summary, table
from icre_jax.experiments.files import write_files
from icre_jax.experiments.processes import RunFailedError, share_cores
from icre_jax.experiments.rows import NAMES, plan_rows
from icre_jax.experiments.runs import AblationRun, RunScore
from icre_jax.machine.lock import lock_folder
from icre_jax.machine.screen import Screen
from icre_jax.settings import differences, flatten, from_json
from tests.conftest import ROOT, flags_of, run_command

# ml_collections reads a config file that way; elsewhere in the tests processes of their own do so.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")

SYNTHETIC = ["--config=configs/synthetic.py"]


def contents(folder):
    """Every file but the lock, which says who had it last."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in files}


def result(rank1: float, mAP: float = 0.5, **changes) -> ProtocolResult:
    mean = dict.fromkeys(METRICS, 0.5) | {"rank1": rank1, "mAP": mAP}
    labels = {"search": "all", "shot": "single"}
    if "setting" in ProtocolResult.__dataclass_fields__:
        labels = {"protocol": "SYSU-MM01", "setting": "all/single"}
    return ProtocolResult(
        **labels,
        dataset="synthetic people",
        direction="infrared->visible",
        feature="embeddings",
        flip=False,
        reranking=False,
        num_trials=2,
        num_queries=8,
        num_valid_queries=8,
        mean=mean,
        std=dict.fromkeys(METRICS, 0.0),
        cmc=[rank1] * CMC_LENGTH,
        chance=0.25,
        **{"gallery_source": "python-random"} | changes,
    )


SIZES = {"baseline": 705_888, "mpfr": 714_000, "icre": 809_635}


def score(row: str, seed: int, rank1: float, mAP: float = 0.5, **changes) -> RunScore:
    return RunScore(
        row,
        seed,
        result(rank1, mAP, **changes),
        num_steps=126,
        num_parameters=SIZES[row],
        seconds=12.5,
        data_fingerprint="f" * 64,
    )


@pytest.fixture(scope="module")
def rows():
    return plan_rows(["baseline", "mpfr", "icre"], SYNTHETIC)


SCORES = [
    score("baseline", 0, 0.09, 0.20), score("baseline", 1, 0.11, 0.20),
    score("mpfr", 0, 0.10, 0.20), score("mpfr", 1, 0.12, 0.20), score("mpfr", 2, 0.14, 0.20),
    score("icre", 0, 0.08, 0.30),
]  # fmt: skip


# Rows


def test_rows_have_one_order_and_the_default_form_stands_once():
    planned = plan_rows(list(reversed(NAMES)), SYNTHETIC)
    form = planned[0].settings.loss.icg_form
    assert [row.name for row in planned] == [name for name in NAMES if name != f"icre_{form}"]
    by_name = {row.name: row for row in planned}
    assert by_name["icre"].label == f"ICRE (ICG {form})"
    margins = {name: (row.settings.loss.icg_form, row.settings.loss.icg_rho1) for name, row in by_name.items()}
    expected = {"icre_relative": ("relative", 0.3), "icre_absolute": ("absolute", 0.7), "icre_guided": ("guided", 0.2)}
    for name in expected.keys() & margins.keys():
        assert margins[name] == expected[name]
    assert [row.name for row in plan_rows([f"icre_{form}"], SYNTHETIC)] == ["icre"]
    baseline = by_name["baseline"].settings
    assert not baseline.model.mpfr.enabled
    assert not baseline.model.sdce.enabled
    assert baseline.loss.icg_weight == 0


@pytest.mark.parametrize("file", ["configs/synthetic.py", "configs/manifest.py", "configs/sysu_mm01.py"])
def test_all_rows_have_one_budget(file):
    planned = plan_rows(NAMES, [f"--config={file}", "--config.schedule.num_epochs=95"])
    budgets = []
    for row in planned:
        budget = flatten(row.settings)
        budgets.append({k: v for k, v in budget.items() if k != "name" and not k.startswith(("model.", "loss."))})
    assert all(budget == budgets[0] for budget in budgets)
    assert budgets[0]["schedule.num_epochs"] == 95
    reset_fields = {row.name: row.reset_fields for row in planned if row.reset_fields}
    if file == "configs/sysu_mm01.py":  # AGW comes with a recipe of its own
        recipe = ("augment.channel_probability", "augment.erasing_probability")
        recipe += ("data.image_size", "sampling.num_ids_per_batch", "schedule.boundaries")
        assert reset_fields == {"agw": recipe}
    else:
        assert not reset_fields
    # What makes a row what it is stays.
    agw = next(row.settings.model for row in planned if row.name == "agw")
    assert (agw.non_local_channels, agw.neck_init_std) == (1, 0.01)
    assert all(row.settings.model.neck_init_std == 0 for row in planned if row.name != "agw")


@pytest.mark.parametrize(
    ("names", "flags", "words"),
    [
        (["baseline", "bsaeline"], SYNTHETIC, r"Unknown row 'bsaeline'; allowed are baseline, baseline_triplet, agw"),
        (["baseline"], [*SYNTHETIC, "--config.name=mine"], "Row baseline: it sets name = synthetic_baseline"),
        (["baseline"], [], "No config given"),
        (["baseline"], ["--config=configs/synthetic.py:agw"], "agw names a variant"),
        (["baseline"], [*SYNTHETIC, "--config.seed=3"], "--seeds"),
        (["icre", "baseline"], [*SYNTHETIC, "--config.loss.icg_weight=0.5"], r"Row baseline: it sets loss\.icg_weight"),
        (["icre_absolute"], [*SYNTHETIC, "--config.loss.icg_rho1=0.5"], r"Row icre_absolute: it sets loss\.icg_rho1"),
        (["mpfr"], [*SYNTHETIC, "--config.model.widht=8"], "widht"),
    ],
)
def test_rows_that_cannot_be_planned(names, flags, words):
    with pytest.raises(InputError, match=words):
        plan_rows(names, flags)


def test_a_field_that_no_row_sets_is_for_all_rows():
    for row in plan_rows(["baseline", "icre"], [*SYNTHETIC, "--config.loss.icg_rho1=0.5"]):
        assert row.settings.loss.icg_rho1 == 0.5


def test_a_budget_that_cannot_be_reset_fields_is_refused(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import synthetic\n\n\ndef get_config(variant=''):\n    config = synthetic.get_config(variant)\n"
        "    if variant:\n        config.pretrained = 'weights.safetensors'\n    return config\n"
    )
    with pytest.raises(InputError, match=r"Row baseline has another budget[\s\S]*pretrained"):
        plan_rows(["baseline"], [f"--config={file}"])


# Arithmetic


def test_mean_spread_and_difference_by_hand(rows):
    baseline, mpfr, icre = summary.summarize(rows, SCORES)
    assert baseline.scores["rank1"].value == pytest.approx(0.10)
    assert baseline.scores["rank1"].spread == pytest.approx(math.sqrt(2e-4))  # 2 x 0.01^2 / (2 - 1)
    assert mpfr.scores["rank1"].value == pytest.approx(0.12)
    assert mpfr.scores["rank1"].spread == pytest.approx(0.02)  # 2 x 0.02^2 / (3 - 1)
    assert baseline.differences is None
    assert mpfr.differences["rank1"].value == pytest.approx(0.02)
    assert mpfr.differences["rank1"].spread == pytest.approx(math.sqrt(4e-4 / 3 + 2e-4 / 2))
    assert mpfr.differences["mAP"].value == pytest.approx(0)
    assert mpfr.differences["mAP"].spread == pytest.approx(0)
    # One run has no spread, and neither has a difference to it.
    assert math.isnan(icre.scores["rank1"].spread)
    assert icre.differences["mAP"].value == pytest.approx(0.10)
    assert math.isnan(icre.differences["mAP"].spread)
    assert [row.seeds for row in (baseline, mpfr, icre)] == [(0, 1), (0, 1, 2), (0,)]


def test_without_a_baseline_there_is_no_difference(rows):
    summaries = summary.summarize(rows, [s for s in SCORES if s.row != "baseline"])
    assert [(line.row.name, line.differences) for line in summaries] == [("mpfr", None), ("icre", None)]


def test_the_files_say_it_in_numbers_and_in_words(rows, tmp_path):
    write_files(tmp_path, rows, SCORES[::-1])
    lines = list(csv.DictReader(io.StringIO((tmp_path / "ablation.csv").read_text())))
    assert [(line["row"], line["seed"]) for line in lines] == [(s.row, str(s.seed)) for s in SCORES]
    assert float(lines[0]["rank1"]) == 0.09
    assert (lines[0]["num_steps"], lines[0]["training_seconds"], lines[0]["checkpoint"]) == ("126", "12.5", "last")
    assert {*METRICS, "num_parameters", "setting", "dataset", "data_fingerprint"} <= lines[0].keys()
    baseline, mpfr, icre = csv.DictReader(io.StringIO((tmp_path / "ablation_summary.csv").read_text()))
    assert float(mpfr["rank1_difference_error"]) == pytest.approx(math.sqrt(4e-4 / 3 + 2e-4 / 2))
    assert (baseline["rank1_difference"], icre["rank1_std"], icre["num_runs"]) == ("", "", "1")
    markdown = (tmp_path / "ablation.md").read_text()
    for words in (
        "| Baseline | 0.71 M | 2 | 10.00 ± 1.41 | - | 20.00 ± 0.00 | - |",
        "| 12.00 ± 2.00 | +2.00 ± 1.53 | 20.00 ± 0.00 | +0.00 ± 0.00 |",
        f"| 8.00 | {table.MINUS}2.00 | 30.00 | +10.00 |",
        "synthetic people, all/single, infrared->visible",
        "seeds 0, 1, 2 as far as they are finished (n), checkpoint 'last': after step 126",
    ):
        assert words in markdown
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_files(tmp_path, rows, SCORES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_latex_table_is_one(rows):
    odd = dataclasses.replace(rows[1], label=r"50% of a_b & {c} \d ~^#$ <x>", reset_fields=("data.image_size",))
    summaries = summary.summarize([rows[0], odd, rows[2]], SCORES)
    text = table.to_latex(summaries, summary.caption(summaries, SCORES))
    assert r"50\% of a\_b \& \{c\} \textbackslash{}d \textasciitilde{}\textasciicircum{}\#\$ \textless{}x" in text
    assert r"infrared$\to$visible" in text
    assert r"data.image\_size as in the other rows" in text
    plain = re.sub(r"\\[\\{}&%$#_]", "", text)  # without what is escaped
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert plain.isascii()
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text).group(1))
    body = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(body) == 4
    assert all(re.sub(r"\\&", "", line).count("&") == columns - 1 for line in body)
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_runs_of_different_conditions_do_not_share_a_table(rows, tmp_path):
    scores = [*SCORES, score("icre", 1, 0.1, gallery_source="official")]
    with pytest.raises(InputError, match=r"Row icre, seed 1 .* gallery_source official, not python-random"):
        write_files(tmp_path, rows, scores)
    with pytest.raises(InputError, match="data_fingerprint"):
        write_files(tmp_path, rows, [*SCORES, dataclasses.replace(SCORES[0], data_fingerprint="0")])


def test_the_plot_takes_rows_without_spread(rows):
    one = SCORES[-1:]
    assert plot.draw_png(summary.summarize(rows, one), one, "title").startswith(b"\x89PNG")


# Runs, with a stand-in for training

CHILD = """
import json, os, signal, sys, time
from pathlib import Path
folder, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
def note(word):
    with (folder / "notes").open("a") as file:
        file.write(word + "\\n")
def stop(number, frame):
    note("saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
note("began")
print("so far so good")
if plan["wait"] and (folder / "notes").read_text().count("began") == 1:
    time.sleep(60)
if plan["code"]:
    sys.exit("error: " + plan["error"]) if plan["code"] == 1 else sys.exit(plan["code"])
(folder / "config.json").write_text(plan["config"])
(folder / "results.json").write_text(plan["results"])
(folder / "timing.jsonl").write_text('{"seconds": 2.0}\\n{"seconds": 1.5}\\n')
note(f"cores {len(os.sched_getaffinity(0))}" if hasattr(os, "sched_getaffinity") else "cores")
"""


class StandIn:
    """What the stand-in does for one row; notes of it stand in its work folder."""

    def __init__(self, monkeypatch):
        self.codes, self.waits = {}, set()
        monkeypatch.setattr(AblationRun, "arguments", property(self._arguments))

    def _arguments(self, run: AblationRun) -> list[str]:
        provenance = {
            "step": 3,
            "checkpoint": "last",
            "num_parameters": 1000,
            "settings": run.settings.model_dump(mode="json"),
            "data_fingerprint": "f" * 64,
        }
        rank1 = 0.1 + 0.1 * run.seed
        plan = {
            "wait": run.row.name in self.waits,
            "code": self.codes.get(run.row.name, 0),
            "error": "the dog ate it",
            "config": run.settings.model_dump_json(),
            "results": json.dumps(to_document([result(rank1)], provenance)),
        }
        return ["-c", CHILD, str(run.folder), json.dumps(plan)]


@pytest.fixture
def stand_in(monkeypatch):
    return StandIn(monkeypatch)


@pytest.fixture
def flags(config):
    """One epoch of three steps; without the switches of the network, which are what the rows set."""
    config.schedule.num_epochs = 1
    config.schedule.warmup_epochs = 0
    config.schedule.boundaries = ()
    config.schedule.factors = ()
    kept = [flag for flag in flags_of(config) if not re.search(r"(mpfr|sdce)\.enabled=", flag)]
    return [f"--config={kept[1]}", *kept[2:]]


def start(flags, out: Path, names=("baseline", "icg"), seeds=(0, 1), num_parallel: int = 1):
    stream = io.StringIO()
    screen = Screen(Console(file=stream, width=160))
    done = ablate.ablate(names, flags, seeds, out, num_parallel=num_parallel, screen=screen)
    return done, stream.getvalue()


def notes(out: Path, row: str, seed: int = 0) -> list[str]:
    path = out / row / f"seed_{seed}" / "notes"
    return path.read_text().splitlines() if path.exists() else []


def test_a_finished_run_is_not_repeated_and_the_tables_grow(stand_in, flags, tmp_path):
    done, screen = start(flags, tmp_path, names=["baseline"], seeds=[1])
    assert done
    assert "1 runs, 0 of them finished already" in screen
    assert "[1/1] baseline seed 1: all/single Rank-1 20.0%  mAP 50.0%" in screen
    # Another row and another seed: the tables hold the first run as well, and it is not repeated.
    done, screen = start(flags, tmp_path, names=["icg", "baseline"], seeds=[0, 1])
    assert done
    assert "4 runs, 1 of them finished already" in screen
    assert [line.split("]")[0] for line in screen.splitlines() if line.startswith("[")] == ["[2/4", "[3/4", "[4/4"]
    assert notes(tmp_path, "baseline", 1).count("began") == 1
    lines = list(csv.DictReader(io.StringIO((tmp_path / "ablation.csv").read_text())))
    assert [(line["row"], line["seed"]) for line in lines] == [
        ("baseline", "0"), ("baseline", "1"), ("icg", "0"), ("icg", "1"),
    ]  # fmt: skip
    assert {line["training_seconds"] for line in lines} == {"3.5"}
    before = contents(tmp_path)
    done, screen = start(flags, tmp_path)
    assert done
    assert "4 of them finished already" in screen
    assert contents(tmp_path) == before


def test_a_failed_run_ends_the_command_and_the_others_save(stand_in, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(ablate, "share_cores", lambda num_parallel: [None] * num_parallel)
    stand_in.codes["icg"], stand_in.waits = 3, {"baseline"}
    # The failing run begins second; by then the first one has to be able to take the signal.
    slow = processes._start

    def start_in_turn(run, *rest):
        child = slow(run, *rest)
        deadline = time.monotonic() + 30
        while not notes(tmp_path, run.row.name) and time.monotonic() < deadline:
            time.sleep(0.01)
        return child

    monkeypatch.setattr(processes, "_start", start_in_turn)
    with pytest.raises(
        RunFailedError, match=r"Row icg, seed 0 ended with exit code 3.*(?s:.*)so far so good"
    ) as caught:
        start(flags, tmp_path, seeds=[0], num_parallel=2)
    assert caught.value.code == 3
    assert notes(tmp_path, "baseline") == ["began", "saved"]
    stand_in.codes = {}
    done, _ = start(flags, tmp_path, seeds=[0])
    assert done
    assert notes(tmp_path, "baseline")[:3] == ["began", "saved", "began"]
    assert (tmp_path / "icg" / "seed_0" / "output.txt").read_text().count("so far so good") == 2  # both starts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_runs_once_and_the_same_command_continues(stand_in, flags, tmp_path, number):
    stand_in.waits = {"icg"}

    def send():
        deadline = time.monotonic() + 60
        while not notes(tmp_path, "icg") and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    done, screen = start(flags, tmp_path, seeds=[0, 1])
    sender.join()
    assert not done
    assert "The same command continues" in screen
    assert notes(tmp_path, "icg") == ["began", "saved"]
    assert not (tmp_path / "baseline" / "seed_1").exists()
    assert "Baseline" in (tmp_path / "ablation.md").read_text()  # what was finished
    done, _ = start(flags, tmp_path, seeds=[0])
    assert done
    assert notes(tmp_path, "icg")[:3] == ["began", "saved", "began"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this platform has no affinity")
def test_runs_at_a_time_share_the_cores(flags, tmp_path, monkeypatch):
    own = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5, 7})
    assert share_cores(2) == [{0, 1}, {2, 5, 7}]
    assert share_cores(1) == [None]
    with pytest.raises(InputError, match="num_parallel is 6, but there are 5 cores"):
        share_cores(6)
    monkeypatch.undo()
    StandIn(monkeypatch)
    monkeypatch.setattr(ablate, "share_cores", lambda num_parallel: [{min(own)}] * num_parallel)
    start(flags, tmp_path, seeds=[0], num_parallel=2)
    assert notes(tmp_path, "baseline")[-1] == notes(tmp_path, "icg")[-1] == "cores 1"
    assert os.sched_getaffinity(0) == own


def test_an_ablation_of_another_config_is_refused(stand_in, flags, tmp_path):
    start(flags, tmp_path, names=["icg"], seeds=[0])
    for names in (["icg"], ["baseline"]):  # the tables would hold both
        with pytest.raises(
            InputError, match=r"icg/seed_0 .* another config:\s+- optimizer\.weight_decay: 0\.0001 -> 0"
        ):
            start([*flags, "--config.optimizer.weight_decay=0.25"], tmp_path, names=names, seeds=[0])
    assert notes(tmp_path, "baseline") == []


def test_damaged_files_are_named(stand_in, flags, tmp_path):
    start(flags, tmp_path, names=["icg"], seeds=[0])
    folder = tmp_path / "icg" / "seed_0"
    (folder / "timing.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"icg/seed_0 is damaged"):
        start(flags, tmp_path, names=["icg"], seeds=[0])
    (folder / "results.json").write_text("{")
    with pytest.raises(InputError, match=r"results\.json cannot be read"):
        start(flags, tmp_path, names=["icg"], seeds=[0])


def test_one_ablation_at_a_time_in_a_folder(stand_in, flags, tmp_path):
    """The lock outlives its owner as long as a run holds it."""
    with lock_folder(tmp_path, flag="--out") as lock:
        with pytest.raises(InputError, match=r"in use by process \d+ on"), lock_folder(tmp_path, flag="--out"):
            pass
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    with pytest.raises(InputError, match=r"in use by process \d+ on"), lock_folder(tmp_path, flag="--out"):
        pass
    child.communicate(b"\n")
    with lock_folder(tmp_path, flag="--out"):
        pass


def test_the_folder_of_a_single_run_is_refused(flags, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="work folder of a single run"):
        start(flags, tmp_path)


# The command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0,one"], "'one' is no seed"),
        (["--seeds", "0,-1"], "'-1' is no seed"),
        (["--seeds", ""], "'' is no seed"),
        (["--seeds", "2,0,2"], "names 2 twice"),
        (["--rows", "icre,icer"], "Unknown row 'icer'"),
        (["--num_parallel", "0"], "num_parallel is 0"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, words, tmp_path):
    with pytest.raises(InputError, match=words):
        door.main(["--config", "configs/synthetic.py", "--out", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


def test_bad_input_leaves_with_exit_code_2(tmp_path):
    process = run_command("icre_jax.ablate", "--rows", "baseline", "--out", str(tmp_path / "out"))
    assert process.returncode == 2
    assert "No config given" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.long
def test_the_command_trains_writes_and_does_nothing_the_second_time(flags, tmp_path):
    arguments = [*flags, "--out", str(tmp_path), "--rows", "baseline,icg", "--seeds", "4"]
    process = run_command("icre_jax.ablate", *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    for words in ("Baseline + ICG", "Rank-1", "Difference", "[2/2] icg seed 4", "ablation.md"):
        assert words in process.stdout
    (first, second), names = (
        [read_results(tmp_path / row / "seed_4") for row in ("baseline", "icg")],
        {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")},
    )
    assert names == {
        "baseline", "icg", "ablation.csv", "ablation_summary.csv", "ablation.md", "ablation.tex", "ablation.png",
    }  # fmt: skip
    lines = list(csv.DictReader(io.StringIO((tmp_path / "ablation.csv").read_text())))
    assert [float(line["mAP"]) for line in lines] == [results[0].mean["mAP"] for results, _ in (first, second)]
    # Each run is what a user would have started, and differs from the other in nothing but the row.
    command = first[1]["command"]
    assert command.startswith("python -m icre_jax.train --config configs/synthetic.py:baseline ")
    assert "--config.seed=4" in command
    a, b = (from_json((tmp_path / row / "seed_4" / "config.json").read_text()) for row in ("baseline", "icg"))
    assert {line.split(":")[0] for line in differences(a, b)} == {"name", "loss.icg_weight"}
    assert "Rank-1" in (tmp_path / "icg" / "seed_4" / "output.txt").read_text()
    shown = (tmp_path / "baseline" / "seed_4" / "output.txt").read_text()
    assert f"{int(lines[0]['num_parameters']):,} parameters" in shown  # counted by the run itself

    before = contents(tmp_path)
    process = run_command("icre_jax.ablate", *arguments)
    assert process.returncode == 0, process.stderr
    assert "2 of them finished already" in process.stdout
    assert contents(tmp_path) == before


def test_docs_name_the_rows():
    text = (ROOT / "docs" / "ablation.md").read_text()
    for name in NAMES:
        assert f"`{name}`" in text
