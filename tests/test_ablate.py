"""The ablation as a command: runs that are not repeated, failures, signals, shares of the cores."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from icre_jax import ablate as door
from icre_jax.errors import InputError
from icre_jax.evals.results import read_results
from icre_jax.experiments import experiment, processes
from icre_jax.experiments.ablation import plan_ablation
from icre_jax.experiments.processes import RunFailedError, share_cores
from icre_jax.machine.lock import lock_folder
from icre_jax.settings import differences, from_json
from tests.conftest import run_command
from tests.stand_in import StandIn, contents, notes, read_csv
from tests.stand_in import start as carry_out

# ml_collections reads a config file that way; elsewhere in the tests processes of their own do so.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")


def start(flags, out: Path, names=("baseline", "icg"), seeds=(0, 1), num_parallel: int = 1, **more):
    return carry_out(plan_ablation(names, flags, seeds, out, **more), num_parallel=num_parallel)


# Runs, with a stand-in for training


def test_a_finished_run_is_not_repeated_and_the_tables_grow(stand_in, one_epoch, tmp_path):
    done, screen = start(one_epoch, tmp_path, names=["baseline"], seeds=[1])
    assert done
    assert "1 runs, 0 of them finished already" in screen
    assert "[1/1] baseline seed 1: all/single Rank-1 20.0%  mAP 50.0%" in screen
    # Another row and another seed: the tables hold the first run as well, and it is not repeated.
    done, screen = start(one_epoch, tmp_path, names=["icg", "baseline"], seeds=[0, 1])
    assert done
    assert "4 runs, 1 of them finished already" in screen
    assert [line.split("]")[0] for line in screen.splitlines() if line.startswith("[")] == ["[2/4", "[3/4", "[4/4"]
    assert notes(tmp_path, "baseline", 1).count("began") == 1
    lines = read_csv(tmp_path / "ablation.csv")
    assert [(line["row"], line["seed"]) for line in lines] == [
        ("baseline", "0"), ("baseline", "1"), ("icg", "0"), ("icg", "1"),
    ]  # fmt: skip
    assert {line["training_seconds"] for line in lines} == {"3.5"}
    before = contents(tmp_path)
    done, screen = start(one_epoch, tmp_path)
    assert done
    assert "4 of them finished already" in screen
    assert contents(tmp_path) == before


def test_a_run_whose_results_were_written_over_is_named(stand_in, one_epoch, tmp_path):
    """As `icre_jax.evaluate --workdir` does, which cannot know how many steps the run was to have."""
    start(one_epoch, tmp_path, names=["baseline", "icg"], seeds=[0])
    file = tmp_path / "icg" / "seed_0" / "results.json"
    file.write_text(file.read_text().replace('"checkpoint": "last"', '"checkpoint": "latest"'))
    _, screen = start(one_epoch, tmp_path, names=["baseline"], seeds=[0])
    assert f"Not in the tables: {file.parent}" in screen
    assert [line["row"] for line in read_csv(tmp_path / "ablation.csv")] == ["baseline"]
    _, screen = start(one_epoch, tmp_path, names=["icg"], seeds=[0])
    assert "Not in the tables" not in screen
    assert [line["row"] for line in read_csv(tmp_path / "ablation.csv")] == ["baseline", "icg"]


def test_a_failed_run_ends_the_command_and_the_others_save(stand_in, one_epoch, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "share_cores", lambda num_parallel: [None] * num_parallel)
    stand_in.codes["icg"], stand_in.waits = 3, {"baseline"}
    # The failing run begins second; by then the first one has to be able to take the signal.
    slow = processes._start

    def start_in_turn(job, *rest):
        child = slow(job, *rest)
        deadline = time.monotonic() + 30
        while not notes(tmp_path, job[0].run.row.name) and time.monotonic() < deadline:
            time.sleep(0.01)
        return child

    monkeypatch.setattr(processes, "_start", start_in_turn)
    with pytest.raises(
        RunFailedError, match=r"Row icg, seed 0 ended with exit code 3.*(?s:.*)so far so good"
    ) as caught:
        start(one_epoch, tmp_path, seeds=[0], num_parallel=2)
    assert caught.value.code == 3
    assert notes(tmp_path, "baseline") == ["began", "saved"]
    stand_in.codes = {}
    done, _ = start(one_epoch, tmp_path, seeds=[0])
    assert done
    assert notes(tmp_path, "baseline")[:3] == ["began", "saved", "began"]
    assert (tmp_path / "icg" / "seed_0" / "output.txt").read_text().count("so far so good") == 2  # both starts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_runs_once_and_the_same_command_continues(stand_in, one_epoch, tmp_path, number):
    stand_in.waits = {"icg"}
    over = threading.Event()

    def send():
        while not notes(tmp_path, "icg"):
            if over.wait(0.02):
                return  # it would reach another test
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        done, screen = start(one_epoch, tmp_path, seeds=[0, 1])
    finally:
        over.set()
        sender.join()
    assert not done
    assert "The same command continues" in screen
    assert notes(tmp_path, "icg") == ["began", "saved"]
    assert not (tmp_path / "baseline" / "seed_1").exists()
    assert "Baseline" in (tmp_path / "ablation.md").read_text()  # what was finished
    done, _ = start(one_epoch, tmp_path, seeds=[0])
    assert done
    assert notes(tmp_path, "icg")[:3] == ["began", "saved", "began"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this platform has no affinity")
def test_runs_at_a_time_share_the_cores(one_epoch, tmp_path, monkeypatch):
    own = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5, 7})
    assert share_cores(2) == [{0, 1}, {2, 5, 7}]
    assert share_cores(1) == [None]
    with pytest.raises(InputError, match="num_parallel is 6, but there are 5 cores"):
        share_cores(6)
    monkeypatch.undo()
    StandIn(monkeypatch)
    monkeypatch.setattr(experiment, "share_cores", lambda num_parallel: [{min(own)}] * num_parallel)
    start(one_epoch, tmp_path, seeds=[0], num_parallel=2)
    assert notes(tmp_path, "baseline")[-1] == notes(tmp_path, "icg")[-1] == "cores 1"
    assert os.sched_getaffinity(0) == own


def test_an_ablation_of_another_config_is_refused(stand_in, one_epoch, tmp_path):
    start(one_epoch, tmp_path, names=["icg"], seeds=[0])
    for names in (["icg"], ["baseline"]):  # the tables would hold both
        with pytest.raises(InputError, match=r"icg/seed_0 .* another config:\s+- optimizer\.momentum: 0\.9 -> 0\.25"):
            start([*one_epoch, "--config.optimizer.momentum=0.25"], tmp_path, names=names, seeds=[0])
    assert notes(tmp_path, "baseline") == []


def test_damaged_files_are_named(stand_in, one_epoch, tmp_path):
    start(one_epoch, tmp_path, names=["icg"], seeds=[0])
    folder = tmp_path / "icg" / "seed_0"
    (folder / "timing.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"icg/seed_0 is damaged"):
        start(one_epoch, tmp_path, names=["icg"], seeds=[0])
    (folder / "results.json").write_text("{")
    with pytest.raises(InputError, match=r"results\.json cannot be read"):
        start(one_epoch, tmp_path, names=["icg"], seeds=[0])


def test_one_ablation_at_a_time_in_a_folder(stand_in, one_epoch, tmp_path):
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


def test_the_folder_of_a_single_run_is_refused(one_epoch, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="work folder of a single run"):
        start(one_epoch, tmp_path)


# The command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0,one"], "'one' is no seed"),
        (["--seeds", "0,-1"], "'-1' is no seed"),
        (["--seeds", ""], "'' is no seed"),
        (["--seeds", "2,0,2"], "names 2 twice"),
        (["--rows", "icre,icer"], "Unknown row 'icer'"),
        (["--rows", "baseline", "--num_parallel", "0"], "num_parallel is 0"),
        (["--margin", "0"], "margin is 0.0; allowed are percentage points above 0"),
        (["--margin", "nan"], "margin is nan"),
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


def test_print_commands_has_a_line_per_run_and_touches_nothing(tmp_path, capsys):
    out = tmp_path / "a folder"
    arguments = ["--config", "configs/synthetic.py", "--config.data.data_dir=/nowhere", "--rows", "baseline,mpfr"]
    arguments += ["--out", str(out), "--seeds", "3,4", "--print_commands"]
    process = run_command("icre_jax.ablate", *arguments)
    assert (process.returncode, process.stderr) == (0, "")
    lines = [shlex.split(line) for line in process.stdout.splitlines()]
    assert len(lines) == 4
    for line, (row, seed) in zip(lines, [("baseline", 3), ("mpfr", 3), ("baseline", 4), ("mpfr", 4)], strict=True):
        folder = str(out / row / f"seed_{seed}")
        train = [sys.executable, "-m", "icre_jax.train", "--config", f"configs/synthetic.py:{row}"]
        train += ["--config.data.data_dir=/nowhere", f"--config.seed={seed}", "--workdir", folder]
        without = ["&&", sys.executable, "-m", "icre_jax.evaluate", "--workdir", folder, "--without", "each"]
        assert line == train + (without if row == "mpfr" else [])
    assert not out.exists()
    assert door.main([*arguments, "--no_removal"]) == 0
    assert "&&" not in capsys.readouterr().out


@pytest.mark.long
def test_the_command_trains_writes_and_does_nothing_the_second_time(one_epoch, tmp_path):
    arguments = [*one_epoch, "--out", str(tmp_path), "--rows", "baseline,icg", "--seeds", "4"]
    process = run_command("icre_jax.ablate", *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    for words in ("Baseline + ICG", "Rank-1", "nothing can be", "[2/2] icg seed 4", "ablation.md"):
        assert words in process.stdout
    (first, second), names = (
        [read_results(tmp_path / row / "seed_4") for row in ("baseline", "icg")],
        {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")},
    )
    assert names == {
        "baseline", "icg", "ablation.csv", "ablation_summary.csv", "removal.csv",
        "ablation.md", "ablation.tex", "ablation.png",
    }  # fmt: skip
    lines = read_csv(tmp_path / "ablation.csv")
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
