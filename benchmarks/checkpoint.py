"""What it costs that a checkpoint can be trusted: SHA-256 sums of saves and reads, and the wait for the disk.

    python -m benchmarks.checkpoint                                   # the state of configs/llcm.py, a ResNet-50
    python -m benchmarks.checkpoint --config configs/synthetic.py --folder DIR

Both are timed within each save and each read, so that what else the machine does meets them alike. All arrays are
random: those of a state that has not trained yet compress to nothing. "Written through" is the wait until every file is
on the disk; in memory file systems it is nothing.
"""

import argparse
import contextlib
import dataclasses
import functools
import statistics
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from icre_jax.engine.checkpoint import damage, opening
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.program import build_program
from icre_jax.engine.state import TrainState
from icre_jax.errors import InputError
from icre_jax.machine import command

_NUM_CLASSES = 395


def random_state(shapes: TrainState) -> TrainState:
    """A state of these shapes, on the device."""
    draws = np.random.default_rng(0)

    def fill(leaf: jax.ShapeDtypeStruct) -> Any:
        values = draws.normal(size=leaf.shape) if np.issubdtype(leaf.dtype, np.floating) else np.ones(leaf.shape)
        return values.astype(leaf.dtype)

    return jax.device_put(jax.tree.map(fill, shapes), jax.devices()[0])


@dataclasses.dataclass(frozen=True)
class Share:
    """Seconds of a whole, by the clock and on all cores together, and of them those spent in a part of it."""

    seconds: float
    part_seconds: float
    cpu_seconds: float
    part_cpu_seconds: float

    @property
    def of_the_rest(self) -> float:
        """The part by the clock, over all but the part."""
        return self.part_seconds / (self.seconds - self.part_seconds)

    @property
    def of_the_rest_in_cpu_time(self) -> float:
        """The same in CPU time."""
        return self.part_cpu_seconds / (self.cpu_seconds - self.part_cpu_seconds)


def time_within(module: types.ModuleType, name: str, work: Callable[[], Any]) -> Share:
    """Time `work`, and in it the function of this name that `module` calls."""
    real, inside = getattr(module, name), np.zeros(2)

    def now() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])

    def timed(*arguments: Any, **rest: Any) -> Any:
        nonlocal inside
        began = now()
        try:
            return real(*arguments, **rest)
        finally:
            inside += now() - began

    with mock.patch.object(module, name, timed):
        began = now()
        work()
        whole = now() - began
    return Share(whole[0], inside[0], whole[1], inside[1])


def spread(ratios: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(ratios):.1%} ({min(ratios):.1%} to {max(ratios):.1%})"


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="saves and reads, after one that is not counted")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; default: the system's temporary one")
    flags, config_flags = command.split_config_flags(parser, arguments)
    if flags.rounds < 1:
        raise InputError(f"--rounds is {flags.rounds}; allowed is 1 or more.")
    if flags.folder is not None and not flags.folder.is_dir():
        raise InputError(f"--folder {flags.folder} is no folder. Name one that exists.")
    settings = command.read_config(config_flags or ["--config=configs/llcm.py"])
    shapes = build_program(settings, num_classes=_NUM_CLASSES, steps_per_epoch=1000).abstract_state
    state = random_state(shapes)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    saves, ways, reads = [], [], []
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        for step in range(flags.rounds + 1):
            numbered = state.replace(step=jax.numpy.int32(step))  # type: ignore[attr-defined]
            with contextlib.closing(Checkpoints(Path(folder))) as opened:
                save = functools.partial(opened.save, numbered, {})
                summed = functools.partial(time_within, opening, "write_sums", save)
                ways.append(time_within(opening, "sync_folder", lambda summed=summed: saves.append(summed())))
            with contextlib.closing(Checkpoints(Path(folder), read_only=True)) as opened:
                reads.append(time_within(damage, "find_damage", functools.partial(opened.restore, step, like=state)))
    print(f"{settings.name}: a state of {size / 2**20:.0f} MiB; medians of {flags.rounds}")
    print(f"{'':23}{'seconds':>9}{'of them':>9}{'over the rest':>28}{'the same in CPU time':>28}")
    for name, timed in (("save: sums", saves), ("save: written through", ways), ("restore: sums", reads)):
        counted = timed[1:]
        whole, part = (statistics.median(getattr(it, of) for it in counted) for of in ("seconds", "part_seconds"))
        clock, cpu = (spread([getattr(it, of) for it in counted]) for of in ("of_the_rest", "of_the_rest_in_cpu_time"))
        print(f"{name:23}{whole:9.3f}{part:9.3f}{clock:>28}{cpu:>28}")
    return 0


if __name__ == "__main__":
    command.run(main)
