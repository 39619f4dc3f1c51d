"""Finished runs of which the small files alone are kept: nothing is trained, no data is needed, there are tables."""

import re
import subprocess

import pytest

from icre_jax.experiments.ablation import plan_ablation
from icre_jax.experiments.experiment import Experiment
from icre_jax.experiments.noise import plan_noise
from icre_jax.experiments.sweep import plan_sweep
from tests.conftest import ROOT, run_command
from tests.stand_in import contents, notes, read_csv, start

# ml_collections reads a config file that way; elsewhere in the tests processes of their own do so.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")

PLANS = {
    "ablation": lambda flags, out, more=0: plan_ablation(["baseline", "icre"], flags, range(2 + more), out),
    "sweep": lambda flags, out, more=0: plan_sweep({"loss.icg_weight": ["0.5", "1"]}, flags, range(1 + more), out),
    "noise": lambda flags, out, more=0: plan_noise(flags, 2 + more, out),
}


def copy_as_the_docs_say(parent, kind: str) -> None:
    """`runs/KIND` -> `evidence/KIND` below `parent`, by the commands in docs/ablation.md."""
    text = (ROOT / "docs" / "ablation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```sh\n(mkdir -p evidence.*?)\npython -m icre_jax\.ablate", text, re.DOTALL)
    code = re.sub(r"(runs|evidence)/ablation", rf"\1/{kind}", code)
    subprocess.run(["sh", "-euc", code], cwd=parent, check=True, capture_output=True, timeout=60)


@pytest.fixture
def kept(request, stand_in, one_epoch, tmp_path) -> tuple[str, list[str]]:
    """The kind of experiment, whose small files are in `evidence`, and flags whose data is not there any more."""
    kind = request.param
    done, _ = start(PLANS[kind](one_epoch, tmp_path / "runs" / kind))
    assert done
    for folder in (tmp_path / "runs" / kind).glob("*/seed_*"):
        (folder / "checkpoints" / "3").mkdir(parents=True)
        (folder / "checkpoints" / "3" / "config.json").write_text("{}")
        (folder / "report.html").write_text("large")
    copy_as_the_docs_say(tmp_path, kind)
    gone = [flag for flag in one_epoch if not flag.startswith(("--config.data.data_dir", "--config.data.prepared_dir"))]
    return kind, [*gone, "--config.data.data_dir=/proc/gone", "--config.data.prepared_dir=/proc/gone"]


@pytest.mark.parametrize("kept", list(PLANS), indirect=True)
def test_the_small_files_are_enough(kept, tmp_path):
    kind, flags = kept
    out, whole = tmp_path / "evidence" / kind, contents(tmp_path / "runs" / kind)
    small = contents(out)
    names = {path.name for path in small if path.parent != out}
    assert names == {"config.json", "results.json", "timing.jsonl"}
    assert any("without_" in str(path) for path in small) == (kind == "ablation")
    tables = {path.name: path for path in small if path.parent == out}
    assert f"{kind}.csv" in tables
    for path in tables.values():
        path.unlink()
    done, screen = start(PLANS[kind](flags, out))
    assert done
    numbers = re.search(r"(\d+) runs, (\d+) of them finished already", screen)
    assert numbers[1] == numbers[2]
    again = contents(out)
    assert again == small
    assert again == {out / path.relative_to(tmp_path / "runs" / kind): whole[path] for path in whole
                     if out / path.relative_to(tmp_path / "runs" / kind) in again}  # fmt: skip


@pytest.mark.parametrize("kept", ["noise"], indirect=True)
def test_more_runs_join_those_that_were_kept(kept, one_epoch, tmp_path):
    kind, _ = kept
    plan: Experiment = PLANS[kind](one_epoch, tmp_path / "evidence" / kind, 1)
    done, screen = start(plan)
    assert done
    assert "5 runs, 3 of them finished already" in screen
    assert len(read_csv(plan.out / "noise.csv")) == 5
    assert not notes(plan.out, "config", 0)


@pytest.mark.parametrize("kept", ["ablation"], indirect=True)
def test_the_command_takes_them(kept, tmp_path):
    kind, flags = kept
    arguments = [*flags, "--rows", "baseline,icre", "--seeds", "0,1", "--out", str(tmp_path / "evidence" / kind)]
    process = run_command("icre_jax.ablate", *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "4 runs, 4 of them finished already" in process.stdout
    for words in ("Part taken out", "Welch's t-test"):
        assert words in process.stdout
    # One of the results is gone: it is a run again, which finds no data.
    (tmp_path / "evidence" / kind / "icre" / "seed_1" / "results.json").unlink()
    process = run_command("icre_jax.ablate", *arguments)
    assert process.returncode == 2
    assert "4 runs, 3 of them finished already" in process.stdout
    assert "/proc/gone" in process.stderr
    assert "Traceback" not in process.stderr
