"""Peak memory and time of a training step on a CPU: `python -m benchmarks.memory`.

Every row is a process of its own, which runs real steps on random pictures: plain; with `model.remat` (blocks computed
again in the backward pass); in micro-batches (`optimizer.accumulate_steps`). Printed are the largest resident memory of
the process by the kernel's count, XLA's count of the step's temporaries, and the fastest step. Rows run one after the
other: trust the memory, and of the time the ratio only roughly.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import jax
from icre_jax.machine.host_memory import keep_freed_memory

from benchmarks.train_step import make_batch
from icre_jax.costs.compiled import trace_step
from icre_jax.engine.parallel import make_mesh, make_state
from icre_jax.engine.program import build_program
from icre_jax.errors import InputError
from icre_jax.machine import command

_NUM_CLASSES = 395


def measure(config_flags: Sequence[str], num_images: int, num_steps: int) -> dict[str, float]:
    """Run the steps of one row in this process."""
    keep_freed_memory()
    settings = command.read_config(list(config_flags))
    program = build_program(settings, num_classes=_NUM_CLASSES, steps_per_epoch=1000)
    mesh = make_mesh(num_images, program.accumulate_steps)
    traced = trace_step(program, mesh, num_images, accumulate_steps=program.accumulate_steps)
    compiled = traced.lower().compile()
    state = make_state(mesh, 0, network=program.network, tx=program.tx, image_size=program.image_size)
    batch = make_batch(num_images, program.image_size)
    seconds = []
    for _ in range(num_steps):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, batch))
        seconds.append(time.perf_counter() - began)
    return {
        "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
        "seconds": min(seconds),
    }


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=48, help="images, a multiple of 4")
    parser.add_argument("--steps", type=int, default=2, help="of each row")
    parser.add_argument("--row", action="store_true", help="measure one config in this process and print JSON")
    flags, config_flags = command.split_config_flags(parser, arguments)
    if flags.batch < 8 or flags.batch % 4:
        raise InputError(f"--batch is {flags.batch}; two identities of four rows are the least: 8, 12, 16, ...")
    if flags.steps < 1:
        raise InputError(f"--steps is {flags.steps}; allowed is 1 or more.")
    config_flags = config_flags or ["--config=configs/llcm.py"]
    if flags.row:
        print(json.dumps(measure(config_flags, flags.batch, flags.steps)))
        return 0
    rows = {
        "plain": [],
        "remat": ["--config.model.remat=True"],
        "2 micro-batches": ["--config.optimizer.accumulate_steps=2"],
        "remat, 2 micro-batches": ["--config.model.remat=True", "--config.optimizer.accumulate_steps=2"],
    }
    print(f"{'':24}{'resident GiB':>13}{'temporaries GiB':>17}{'fastest step s':>16}", flush=True)
    for name, more in rows.items():
        call = [sys.executable, "-m", "benchmarks.memory", "--row", f"--batch={flags.batch}", f"--steps={flags.steps}"]
        done = subprocess.run([*call, *config_flags, *more], stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout)
        print(
            f"{name:24}{found['resident'] / 2**30:13.2f}{found['temporaries'] / 2**30:17.2f}{found['seconds']:16.1f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    command.run(main)
