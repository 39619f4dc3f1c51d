"""Parts taken out after training, with a stand-in for the commands: once, again where they are lost, stopped."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from icre_jax.errors import InputError
from icre_jax.experiments import experiment
from icre_jax.experiments.ablation import plan_ablation
from icre_jax.experiments.processes import RunFailedError
from icre_jax.experiments.removal import PARTS
from icre_jax.experiments.runs import read_score
from tests.stand_in import contents, notes, read_csv
from tests.stand_in import start as carry_out

# ml_collections reads a config file that way; elsewhere in the tests processes of their own do so.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")


def start(flags, out: Path, names=("baseline", "icg"), seeds=(0, 1), num_parallel: int = 1, **more):
    return carry_out(plan_ablation(names, flags, seeds, out, **more), num_parallel=num_parallel)


def taken_out(out: Path, row: str = "mpfr") -> list[str]:
    return [line for line in notes(out, row) if line.startswith("without")]


EACH = "without without_masks,without_guide,without_gate,without_enhancement"


def test_parts_are_taken_out_once(stand_in, one_epoch, tmp_path):
    done, screen = start(one_epoch, tmp_path, names=["baseline", "mpfr"], seeds=[0])
    assert done
    lines = [line.split(" | ")[0] for line in screen.splitlines() if line.startswith("[")]
    assert lines == [
        "[1/2] baseline seed 0: all/single Rank-1 10.0%  mAP 50.0%",
        "[1/2] mpfr seed 0: all/single Rank-1 10.0%  mAP 50.0%",
        "[2/2] mpfr seed 0: scored without masks, guide, gate, enhancement",
    ]
    assert taken_out(tmp_path, "baseline") == []
    assert taken_out(tmp_path) == [EACH]
    before = contents(tmp_path)
    done, screen = start(one_epoch, tmp_path, names=["baseline", "mpfr"], seeds=[0])
    assert "2 of them finished already" in screen
    assert contents(tmp_path) == before
    # What is lost is scored again, and nothing else.
    (tmp_path / "mpfr" / "seed_0" / "without_gate" / "results.json").unlink()
    (tmp_path / "mpfr" / "seed_0" / "without_gate").rmdir()
    before = contents(tmp_path)
    done, screen = start(one_epoch, tmp_path, names=["baseline", "mpfr"], seeds=[0])
    assert "1 of them finished already" in screen
    assert taken_out(tmp_path) == [EACH, "without without_gate"]
    assert notes(tmp_path, "mpfr").count("began") == 1
    lines = read_csv(tmp_path / "removal.csv")
    assert [(line["part"], round(float(line["rank1_difference"]), 6)) for line in lines] == [
        ("masks", 0.0), ("guide", 0.01), ("gate", 0.02), ("enhancement", 0.03),
    ]  # fmt: skip
    assert {line["rank1_verdict"] for line in lines} == {"one run: nothing can be said"}


@pytest.mark.parametrize(
    ("place", "change"),
    [("provenance", {"step": 2}), ("provenance", {"data_fingerprint": "0"}), ("results", {"flip": True})],
)
def test_scores_of_another_step_data_or_kind_are_not_those_of_this_run(stand_in, one_epoch, tmp_path, place, change):
    start(one_epoch, tmp_path, names=["mpfr"], seeds=[0])
    file = tmp_path / "mpfr" / "seed_0" / "without_guide" / "results.json"
    document = json.loads(file.read_text())
    (document[place] if place == "provenance" else document[place][0]).update(change)
    file.write_text(json.dumps(document))
    plan = plan_ablation(["mpfr"], one_epoch, [0], tmp_path)
    assert "guide" not in read_score(plan.runs[0]).without
    file.unlink()
    file.parent.rmdir()
    start(one_epoch, tmp_path, names=["mpfr"], seeds=[0])
    assert taken_out(tmp_path) == [EACH, "without without_guide"]


def test_runs_at_a_time_are_scored_each_after_its_training(stand_in, one_epoch, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "share_cores", lambda num_parallel: [None] * num_parallel)
    done, screen = start(one_epoch, tmp_path, names=["mpfr", "sdce", "icg"], seeds=[0], num_parallel=2)
    assert done
    assert "[3/3]" in screen
    assert {row: len(taken_out(tmp_path, row)) for row in ("mpfr", "sdce", "icg")} == {"mpfr": 1, "sdce": 1, "icg": 0}
    assert {line["row"] for line in read_csv(tmp_path / "removal.csv")} == {"mpfr", "sdce"}


def test_no_removal_leaves_them_out_but_shows_what_is_there(stand_in, one_epoch, tmp_path):
    start(one_epoch, tmp_path, names=["mpfr"], seeds=[0], removal=False)
    assert taken_out(tmp_path) == []
    assert read_csv(tmp_path / "removal.csv") == []
    start(one_epoch, tmp_path, names=["mpfr"], seeds=[0])
    assert taken_out(tmp_path) == [EACH]
    start(one_epoch, tmp_path, names=["mpfr"], seeds=[0], removal=False)
    assert len(read_csv(tmp_path / "removal.csv")) == 4


def test_taking_out_that_fails_keeps_the_training(stand_in, one_epoch, tmp_path):
    stand_in.removal_code, stand_in.lost = 4, set(PARTS)
    with pytest.raises(RunFailedError, match="Row mpfr, seed 0, scored without its parts, ended with exit code 4"):
        start(one_epoch, tmp_path, names=["mpfr"], seeds=[0])
    assert len(read_csv(tmp_path / "ablation.csv")) == 1
    stand_in.removal_code, stand_in.lost = 0, {"masks", "gate"}
    with pytest.raises(
        InputError, match=r"mpfr/seed_0 has no scores without masks, gate, although .* \(--no_removal\)"
    ):
        start(one_epoch, tmp_path, names=["mpfr"], seeds=[0])
    stand_in.lost = set()
    assert start(one_epoch, tmp_path, names=["mpfr"], seeds=[0])[0]
    assert notes(tmp_path, "mpfr").count("began") == 1


def test_a_stop_while_parts_are_taken_out_leaves_the_rest_for_later(stand_in, one_epoch, tmp_path):
    stand_in.removal_waits = True
    over = threading.Event()

    def send():
        while not taken_out(tmp_path):
            if over.wait(0.02):
                return  # it would reach another test
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        done, screen = start(one_epoch, tmp_path, names=["mpfr"], seeds=[0, 1])
    finally:
        over.set()
        sender.join()
    assert not done
    assert "The same command continues" in screen
    assert not (tmp_path / "mpfr" / "seed_1").exists()
    assert len(read_csv(tmp_path / "ablation.csv")) == 1
    done, _ = start(one_epoch, tmp_path, names=["mpfr"], seeds=[0])
    assert done
    assert notes(tmp_path, "mpfr").count("began") == 1
    assert taken_out(tmp_path) == [EACH, EACH]
