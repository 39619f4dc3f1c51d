"""The benchmarks start, print their tables, and refuse what they cannot do."""

import os
import subprocess
import sys

import pytest

from benchmarks.accelerator import peak_of
from benchmarks.interleaved import Timed, ratios, run_in_turns
from tests.conftest import ROOT, TINY_NETWORK, flags_of, refused, run_command


def test_a_small_network_is_timed():
    process = run_command(
        "benchmarks.train_step", "--config", "configs/synthetic.py", "--image_size", "32", "16", "--batch", "8",
        "--rounds", "1", "--rows", "plain", "baseline", "--task", "embed", "--config.model.width=8",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    for word in ("matrix product", "baseline / plain:", "CPU time"):
        assert word in process.stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--batch", "6"), ("--batch is 6", "8, 12, 16")),
        (("--rounds", "0"), ("--rounds is 0", "1 or more")),
        (("--rows", "torch"), ("row torch", "baseline")),
        (("--rows", "resnet"), ("resnet", "baseline")),
    ],
)
def test_what_cannot_be_timed_is_refused(flags, words):
    refused(run_command("benchmarks.train_step", *flags), *words)


@pytest.mark.long
def test_the_memory_of_a_run_is_measured():
    process = run_command("benchmarks.memory", "--only", "the demo", "--epochs", "1")
    assert process.returncode == 0, process.stderr
    resident, temporaries, speed = map(float, process.stdout.splitlines()[-1].removeprefix("the demo").split())
    assert resident > temporaries > 0.01  # GiB
    assert speed > 1


def test_the_speed_of_the_input_is_measured():
    process = run_command(
        "benchmarks.input_pipeline", "--num_ids", "8", "--file_size", "64", "32", "--workers", "1", "--batches", "2",
        "--rounds", "1", "--config.data.image_size=(32, 16)", "--config.sampling.num_ids_per_batch=2",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    for word in ("2 kB at 32x16", "images/s", "threads", "with their sums adds", "resized / workers:"):
        assert word in process.stdout


@pytest.mark.slow
def test_an_accelerator_is_measured_and_on_a_cpu_its_peak_is_not_known():
    network = [flag for flag in TINY_NETWORK if "image_size" not in flag]
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.accelerator", "--image_size", "32", "16", "--batch", "8", "--seconds", "0.1",
         "--config", "configs/synthetic.py", *network],
        cwd=ROOT, env=os.environ | {"COLUMNS": "160", "JAX_NUM_CPU_DEVICES": "1"}, capture_output=True, text=True,
        timeout=1200, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert sum("not known" in line for line in lines[:8]) == 4  # baseline and ICRE, in both precisions
    assert "pmap / jit" in process.stdout
    assert sum("differs from the CPU" in line and "NOT" not in line for line in lines) == 2
    header = next(
        line for line in (ROOT / "docs" / "scale.md").read_text().splitlines() if line.startswith("| device ")
    )
    assert lines[-1].startswith("| 1 x cpu, jax ")
    assert lines[-1].count("|") == header.count("|")


def test_peaks_of_devices_as_they_call_themselves():
    assert peak_of("TPU v5 lite", "bfloat16") == 197e12
    assert peak_of("NVIDIA H100 80GB HBM3", "float32") == 67e12
    assert peak_of("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak_of("NVIDIA A100-SXM4-80GB", "bfloat16") == 312e12
    assert peak_of("NVIDIA L40S", "bfloat16") is None
    assert peak_of("cpu", "float32") is None


def test_search_is_measured(tmp_path):
    process = run_command(
        "benchmarks.search", "--rows", "5000", "--dimensions", "16", "--queries", "1", "3", "--rounds", "1",
        "--folder", str(tmp_path),
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    for word in (
        "5,000 x 16 float16",
        "matrix product",
        "share of the matrix product's speed",
        "compares all rows",
        "peak",
    ):
        assert word in process.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_sums_of_a_checkpoint_are_measured(config, tmp_path):
    process = run_command("benchmarks.checkpoint", "--rounds", "1", "--folder", str(tmp_path), *flags_of(config))
    assert process.returncode == 0, process.stderr
    for word in (
        "MiB; medians of 1",
        "save: sums",
        "save: written through",
        "restore: sums",
        "over the rest",
        "CPU time",
    ):
        assert word in process.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_start_is_measured(config):
    process = run_command("benchmarks.start_up", "--rounds", "1", *flags_of(config))
    assert process.returncode == 0, process.stderr
    for word in ("imports of the packages", "import icre_jax.train", "first start", "second start"):
        assert word in process.stdout


RELEASED = """
import numpy as np

def eval_llcm(distances, query, gallery, query_camera, gallery_camera, once=True, kept=None):
    cmc, precisions, inps = np.zeros(20), [], []
    for row, pid, camera in zip(distances, query, query_camera):
        order = np.argsort(row)
        order = order[kept(camera, gallery, gallery_camera, order) if kept else
                      ~((gallery[order] == pid) & (gallery_camera[order] == camera))]
        ranks = np.flatnonzero(gallery[order] == pid) + 1
        if not len(ranks):
            continue
        first = len(set(gallery[order][: ranks[0]])) if once else ranks[0]
        cmc[first - 1 :] += 1
        precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
        inps.append(len(ranks) / ranks[-1])
    return cmc / len(precisions), np.mean(precisions), np.mean(inps)

def eval_sysu(distances, query, gallery, query_camera, gallery_camera):
    kept = lambda camera, _, cameras, order: ~((camera == 3) & (cameras[order] == 2))
    return eval_llcm(distances, query, gallery, query_camera, gallery_camera, kept=kept)

def eval_regdb(distances, query, gallery):
    kept = lambda camera, _, cameras, order: order >= 0
    return eval_llcm(distances, query, gallery, query, gallery, once=False, kept=kept)
"""


@pytest.mark.long
def test_scoring_is_measured_beside_functions_like_the_field_s(tmp_path):
    (tmp_path / "eval_metrics.py").write_text(RELEASED)  # by the definition; the field's own files are not ours
    process = run_command(
        "benchmarks.scoring", "--share", "0.01", "--num_trials", "1", "--released", str(tmp_path / "eval_metrics.py")
    )
    assert process.returncode == 0, process.stderr
    for word in ("SYSU-MM01", "LLCM", "RegDB", "released", "Peak memory"):
        assert word in process.stdout


@pytest.mark.parametrize(
    ("benchmark", "flags", "words"),
    [
        ("accelerator", ("--batch", "6"), ("--batch is 6", "8, 12, 16")),
        ("accelerator", ("--seconds", "0"), ("--seconds is 0", "up to 600")),
        ("memory", ("--only", "nothing"), ("--only 'nothing'", "the demo")),
        ("memory", ("--epochs", "0"), ("--epochs is 0", "1 or more")),
        ("input_pipeline", ("--num_ids", "7"), ("--num_ids", "8 or more")),
        ("checkpoint", ("--rounds", "0"), ("--rounds is 0", "1 or more")),
        ("checkpoint", ("--folder", "nowhere"), ("--folder nowhere", "exists")),
        ("start_up", ("--rounds", "0"), ("--rounds is 0", "1 or more")),
        ("scoring", ("--released", "nowhere"), ("--released nowhere", "eval_metrics.py")),
        ("search", ("--rows", "0"), ("--rows is 0", "1 or more")),
        ("search", ("--queries", "0"), ("--queries is 0", "1 or more")),
    ],
)
def test_what_cannot_be_measured_is_refused(benchmark, flags, words):
    refused(run_command(f"benchmarks.{benchmark}", *flags), *words)


def test_turns_and_ratios():
    order: list[str] = []
    timed = run_in_turns({name: lambda name=name: order.append(name) for name in "ab"}, rounds=2)
    assert order == ["a", "b"] * 3  # once untimed
    assert len(timed["a"].seconds) == 2
    ours, reference = (Timed(seconds, seconds) for seconds in ((2.0, 9.0, 4.0), (1.0, 1.0, 4.0)))
    assert ratios(ours, reference) == (2.0, 1.0, 9.0)  # of a round, not of medians
