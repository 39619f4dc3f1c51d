"""Peak memory of training runs: `python -m benchmarks.memory`.

Every row is a whole run, `python -m icre_jax.train` in a process of its own on a few rendered people: batches are
loaded while steps run, steps overlap, the network is scored and saved. Printed are the most memory that the process
ever held by the kernel's count, XLA's count of a step's temporaries, and the speed after the first steps. Rows run one
after the other: trust the memory, and the speed only roughly.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs import llcm, synthetic
from icre_jax.costs.compiled import trace_step
from icre_jax.engine.parallel import make_mesh
from icre_jax.engine.program import build_program
from icre_jax.errors import InputError
from icre_jax.machine import command
from icre_jax.settings import flatten, parse

_NUM_IDS = {"num_train_ids": 16, "num_val_ids": 1, "num_test_ids": 4}
# What of a config says how large a step is and what it computes.
_OF_A_STEP = (
    "model.", "loss.", "sampling.", "optimizer.", "augment.", "data.image_size", "data.store_resized",
    "evaluation.batch_size",
)  # fmt: skip


def rows() -> dict[str, dict[str, Any]]:
    """Label of a row -> the fields that make it of the demo's config."""
    demo, full = flatten(parse(synthetic.get_config())), flatten(parse(llcm.get_config()))
    recipe = {name: value for name, value in full.items() if name.startswith(_OF_A_STEP) and demo[name] != value}
    small = {"data.image_size": (96, 96), "sampling.num_ids_per_batch": 8}
    baseline = {"model.mpfr.enabled": False, "model.sdce.enabled": False, "loss.icg_weight": 0.0}
    return {
        "the demo": {},
        "baseline ResNet-50, 64 images of 96x96": recipe | small | baseline,
        "ICRE ResNet-50, 48 images of 384x144": recipe,
        "the same, model.remat": recipe | {"model.remat": True},
    }


def measure(fields: dict[str, Any], folder: Path, num_epochs: int) -> dict[str, float]:
    """Train as a user would, and say what it took."""
    common: dict[str, Any] = {f"data.synthetic.{name}": number for name, number in _NUM_IDS.items()}
    common |= {"data.data_dir": folder / "tree", "data.prepared_dir": folder / "prepared", "logging.every_steps": 1}
    common |= {"schedule.num_epochs": num_epochs, "schedule.warmup_epochs": 0}
    common |= {"schedule.boundaries": (), "schedule.factors": ()}
    # A field is named once: a second tuple would be added to the first.
    flags = [
        "--config=configs/synthetic.py",
        *(f"--config.{name}={value}" for name, value in (common | fields).items()),
    ]
    workdir = Path(tempfile.mkdtemp(dir=folder))
    process = subprocess.Popen(
        [sys.executable, "-m", "icre_jax.train", *flags, "--workdir", str(workdir)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise InputError(f"The run ended with exit code {process.returncode}; what it said stands above.")
    speeds = [json.loads(line) for line in (workdir / "timing.jsonl").read_text(encoding="utf-8").splitlines()]
    settings = command.read_config(flags)
    program = build_program(settings, num_classes=_NUM_IDS["num_train_ids"], steps_per_epoch=1000)
    num_images = 2 * settings.sampling.num_ids_per_batch * settings.sampling.num_images_per_id
    compiled = trace_step(program, make_mesh(num_images), num_images).lower().compile()
    return {
        "resident": usage.ru_maxrss * 1024,
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
        "images_per_second": max(line["images_per_second"] for line in speeds),
    }


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=2, help="of each run, of 4 to 8 steps; default: 2")
    parser.add_argument("--only", metavar="TEXT", default="", help="rows whose label holds TEXT; default: all")
    flags = parser.parse_args(arguments)
    if flags.epochs < 1:
        raise InputError(f"--epochs is {flags.epochs}; allowed is 1 or more.")
    chosen = {label: fields for label, fields in rows().items() if flags.only in label}
    if not chosen:
        raise InputError(f"--only {flags.only!r} is in no row; there are: {'; '.join(rows())}.")
    print(f"{'':40}{'resident GiB':>13}{'temporaries GiB':>17}{'images/s':>10}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for label, fields in chosen.items():
            found = measure(fields, Path(folder), flags.epochs)
            sizes = f"{found['resident'] / 2**30:13.2f}{found['temporaries'] / 2**30:17.2f}"
            print(f"{label:40}{sizes}{found['images_per_second']:10.1f}", flush=True)
    return 0


if __name__ == "__main__":
    command.run(main)
