"""Seconds from the command to the first step, and what of it is imports: `python -m benchmarks.start_up`.

Each start is a process of its own. People are rendered and prepared before the clock runs. The first start of the demo
finds no compiled programs, the ones after it find those of the first. `imports of the packages` is what importing jax,
flax, optax, orbax, grain and tensorflow_datasets alone takes, which no code of ours can be quicker than.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from icre_jax.errors import InputError
from icre_jax.machine import command

_PACKAGES = "import jax, flax.linen, optax, orbax.checkpoint, grain, tensorflow_datasets"


def run_seconds(code: str) -> float:
    """Wall time of an interpreter that runs `code`, less that of one that runs nothing."""

    def run(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    return run(code) - run("pass")


def seconds_to_first_step(arguments: Sequence[str], workdir: Path, environment: dict[str, str]) -> float:
    """Wall time until the log holds the first step; the run is then killed."""
    log = workdir / "metrics.jsonl"
    began = time.perf_counter()
    run = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "icre_jax.train",
            *arguments,
            "--workdir",
            str(workdir),
            "--config.logging.every_steps=1",
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        while not (log.is_file() and '"loss"' in log.read_text(encoding="utf-8")):
            if run.poll() is not None:
                raise InputError(f"The run ended with exit code {run.returncode} before its first step.")
            time.sleep(0.05)
        return time.perf_counter() - began
    finally:
        run.kill()
        run.wait()


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="of each import, and starts after the first")
    flags, config_flags = command.split_config_flags(parser, arguments)
    if flags.rounds < 1:
        raise InputError(f"--rounds is {flags.rounds}; allowed is 1 or more.")
    rows = {"imports of the packages": _PACKAGES, "import icre_jax.train": "import icre_jax.train"}
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(flags.rounds):
        for name, code in rows.items():
            taken[name].append(run_seconds(code))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        run_flags = [
            *(config_flags or ["--config=configs/synthetic.py"]),
            f"--config.data.data_dir={data / 'tree'}",
            f"--config.data.prepared_dir={data / 'records'}",
        ]
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path(folder) / "cache")}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        subprocess.run([sys.executable, "-m", "icre_jax.prepare", *run_flags], check=True, stdout=subprocess.DEVNULL)
        for number in range(flags.rounds + 1):
            name = "first step, second start" if number else "first step, first start"
            workdir = Path(folder) / f"run_{number}"
            taken.setdefault(name, []).append(seconds_to_first_step(run_flags, workdir, environment))
    print(f"{'':28}{'median s':>10}{'fastest':>9}{'slowest':>9}")
    for name, seconds in taken.items():
        print(f"{name:28}{statistics.median(seconds):10.2f}{min(seconds):9.2f}{max(seconds):9.2f}")
    return 0


if __name__ == "__main__":
    command.run(main)
