"""Start `icre_jax.train` in several processes, as several hosts would, and wait for their end."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, flags_of, free_port


def start(
    config,
    workdir: Path,
    *extra: str,
    num_devices: int = 2,
    num_processes: int = 2,
    program: tuple[str, ...] = ("-m", "icre_jax.train"),
) -> list[subprocess.Popen]:
    """`icre_jax.train` in several processes; their output goes to files beside the workdir."""
    address = f"localhost:{free_port()}"
    started = []
    for process in range(num_processes):
        flags = ["--distributed", "--coordinator", address, "--num_processes", str(num_processes)]
        flags += ["--process_id", str(process)]
        command = [sys.executable, *program, *flags_of(config), "--workdir", str(workdir), *flags, *extra]
        with said(workdir, process).open("w") as file:
            started.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=os.environ | {"JAX_NUM_CPU_DEVICES": str(num_devices), "COLUMNS": "160"},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    return started


def said(workdir: Path, process: int) -> Path:
    return workdir.with_name(f"{workdir.name}.{process}")


def finish(started: list[subprocess.Popen], workdir: Path, *, timeout: float = 600) -> tuple[list[int], list[str]]:
    """Exit codes and output of each."""
    try:
        codes = [process.wait(timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    return codes, [said(workdir, process).read_text() for process in range(len(started))]
