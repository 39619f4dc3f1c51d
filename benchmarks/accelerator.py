"""One accelerator, or all of a host: speed, share of its peak, memory, and whether its numbers are the CPU's.

    python -m benchmarks.accelerator                                      # the recipe of LLCM
    python -m benchmarks.accelerator --config configs/synthetic.py --image_size 112 56 --batch 64 --seconds 2

Random images; the batch goes from the host to the devices in every step, as in training. A step is that of
`icre_jax.train`. The last line is a row for docs/scale.md. On a CPU, whose peak nobody publishes in this form, the
share is "not known".
"""

import argparse
import functools
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from benchmarks.interleaved import ratios, run_in_turns
from benchmarks.train_step import make_batch, read_settings
from icre_jax.costs.compiled import count_flops, embedding_cost, trace_step, training_cost
from icre_jax.costs.lowered import find_faults, program_text
from icre_jax.engine.forward import embed_step
from icre_jax.engine.numerics import numerics_here
from icre_jax.engine.parallel import make_any_state, make_mesh, make_state, make_train_step
from icre_jax.engine.program import Program, build_program
from icre_jax.errors import InputError
from icre_jax.machine import command
from icre_jax.machine.caches import keep_compiled_programs

_NUM_CLASSES = 395
# TFLOP/s of one device in bfloat16 (dense) and in float32, as published by the maker: cloud.google.com/tpu/docs/v5e,
# v5p and v6e; NVIDIA's data sheets of A100, L4, H100 and H200. GPUs multiply float32 numbers in their ordinary units
# where, as in the recipe, TF32 is not allowed. A TPU makes a float32 product of six of bfloat16.
PEAKS = {
    "TPU v5 lite": (197, 197 / 6),
    "TPU v5p": (459, 459 / 6),
    "TPU v5": (459, 459 / 6),
    "TPU v6 lite": (918, 918 / 6),
    "NVIDIA A100": (312, 19.5),
    "NVIDIA L4": (121, 30.3),
    "NVIDIA H100 PCIe": (756, 51),
    "NVIDIA H100": (989, 67),
    "NVIDIA H200": (989, 67),
}
# Largest relative difference of loss and gradient, and of an embedding's direction, from the CPU's. float32 is rounded
# in another order; bfloat16 has 8 bits, and a network of 50 layers makes some percent of that.
TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2}
_UNKNOWN = "not known"


@dataclass(frozen=True)
class Row:
    """One network in one precision."""

    images_per_second: float
    share: str
    embedded_per_second: float
    predicted_bytes: int
    measured: str


def peak_of(kind: str, dtype: str) -> float | None:
    """FLOP/s of a device in a precision; None if it is not in the table."""
    for name in sorted(PEAKS, key=len, reverse=True):
        if kind == name or kind.startswith((name + " ", name + "-")):
            return PEAKS[name][0 if dtype == "bfloat16" else 1] * 1e12
    return None


def per_second(call: Callable[[], Any], seconds: float) -> float:
    """Calls in a second, the device never waiting for the next one."""
    jax.block_until_ready(call())
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or count < 2:
        last = call()
        count += 1
        if count % 8 == 0:
            jax.block_until_ready(last)  # no longer queue than this
    jax.block_until_ready(last)
    return count / (time.perf_counter() - began)


class Steps:
    """Training steps of a program, one after the other."""

    def __init__(self, program: Program, batch: dict[str, np.ndarray], parallel: str = "jit") -> None:
        mesh = make_mesh(len(batch["label"]))
        self._step, self._state = make_train_step(mesh, program, parallel=parallel), make_any_state(mesh, program)
        self._batch = batch

    def __call__(self) -> Any:
        """One step; its numbers, which may not have been computed yet."""
        self._state, metrics = self._step(self._state, self._batch)
        return metrics


def peak_memory() -> int | None:
    """Most bytes that the first device has held so far; None where it does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def measure(program: Program, batch: dict[str, np.ndarray], dtype: str, seconds: float) -> Row:
    """Time training and embedding, and compare memory with what `icre_jax.describe` says."""
    num_images, mesh = len(batch["label"]), make_mesh(len(batch["label"]))
    before = peak_memory()
    cost = training_cost(program, mesh, num_images)
    steps = Steps(program, batch)
    speed = per_second(steps, seconds) * num_images
    after = peak_memory()
    measured = _UNKNOWN if after is None else f"{after / 2**30:.2f} GiB" if after > (before or 0) else "less"
    peak = peak_of(jax.devices()[0].device_kind, dtype)
    flops = count_flops(trace_step(program, mesh, num_images)) / num_images
    share = _UNKNOWN if peak is None else f"{speed * flops / (peak * mesh.size):.0%}"

    variables = jax.device_put(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), program.abstract_state.variables))
    embed = functools.partial(embed_step, variables, network=program.network, modality="visible")
    embedded = per_second(lambda: embed(jax.device_put(batch["image"])), seconds) * num_images
    return Row(speed, share, embedded, max(cost.peak_bytes, embedding_cost(program, num_images).peak_bytes), measured)


def differs_from_cpu(program: Program, batch: dict[str, np.ndarray]) -> float | None:
    """Largest relative difference of a step's loss and gradient norm, and of embeddings; None without a CPU backend."""
    try:
        cpu = jax.local_devices(backend="cpu")[:1]
    except RuntimeError:
        return None
    mesh = make_mesh(len(batch["label"]), devices=cpu)
    with jax.default_device(cpu[0]):
        start = jax.device_get(make_state(mesh, 0, program))
    found = []
    for devices in (cpu, jax.local_devices()[:1]):
        with jax.default_device(devices[0]):
            state = jax.device_put(start, devices[0])
            images = jax.device_put(batch["image"], devices[0])
            vectors = embed_step(state.variables, images, network=program.network, modality="visible")
            vectors = np.asarray(jax.device_get(vectors), np.float64)
            step = make_train_step(make_mesh(len(batch["label"]), devices=devices), program)
            _, metrics = step(state, batch)
            numbers = jax.device_get(metrics)
        found.append((numbers, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
    (theirs, reference), (ours, vectors) = found
    of_numbers = [abs(ours[name] / theirs[name] - 1) for name in ("loss", "gradient_norm")]
    return float(max(*of_numbers, np.abs(vectors - reference).max()))


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--image_size", type=int, nargs=2, default=(384, 144), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=48, help="images on all devices, a multiple of 4")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    flags, config_flags = command.split_config_flags(parser, arguments)
    if flags.batch < 8 or flags.batch % 4:
        raise InputError(f"--batch is {flags.batch}; two identities of four rows are the least: 8, 12, 16, ...")
    if not 0 < flags.seconds <= 600:
        raise InputError(f"--seconds is {flags.seconds}; allowed is more than 0, up to 600.")
    fields = [field for field in config_flags if not field.startswith("--config=")]
    batch = make_batch(flags.batch, tuple(flags.image_size))
    keep_compiled_programs()  # what is compiled to be looked at is run as well
    here = numerics_here()

    def program_of(row: str, dtype: str, size: tuple[int, int]) -> Program:
        given = [f"--config.data.image_size={size}", f"--config.model.dtype={dtype}", *fields]
        settings = read_settings(flags.config or "configs/llcm.py", row, given)
        return build_program(settings, num_classes=_NUM_CLASSES, steps_per_epoch=1000)

    print(f"{here.num_devices} x {here.device_kind} ({here.platform}), jax {here.jax}; {flags.batch} images a step")
    print(f"\n{'':20}{'images/s':>10}{'of peak':>11}{'embedded/s':>12}{'predicted':>12}{'held':>11}")
    rows: dict[tuple[str, str], Row] = {}
    for name in ("baseline", "icre"):
        for dtype in ("bfloat16", "float32"):
            program = program_of(name, dtype, tuple(flags.image_size))
            row = rows[name, dtype] = measure(program, batch, dtype, flags.seconds)
            print(
                f"{name + ' ' + dtype:20}{row.images_per_second:10,.1f}{row.share:>11}{row.embedded_per_second:12,.1f}"
                f"{row.predicted_bytes / 2**30:8.2f} GiB{row.measured:>11}",
                flush=True,
            )
            gc.collect()  # its arrays, before the next one's

    program = program_of("icre", "bfloat16", tuple(flags.image_size))
    doors = {door: Steps(program, batch, door) for door in ("jit", "pmap")}
    timed = run_in_turns({door: lambda s=s: jax.block_until_ready(s()) for door, s in doors.items()}, rounds=5)
    middle, low, high = ratios(timed["pmap"], timed["jit"])
    print(f"\npmap / jit, ICRE in bfloat16: {middle:.2f} ({low:.2f} to {high:.2f}) of its time")
    del doors

    equal = []
    for dtype, tolerance in TOLERANCES.items():
        difference = differs_from_cpu(program_of("icre", dtype, (64, 32)), make_batch(8, (64, 32)))
        if difference is None:
            equal.append(f"{dtype} {_UNKNOWN}")
            continue
        verdict = "within" if difference <= tolerance else "NOT WITHIN"
        equal.append(f"{dtype} {difference:.0e}")
        print(f"differs from the CPU in {dtype} by {difference:.1e}, {verdict} {tolerance:.0e} (8 images of 64x32)")
    platform = {"gpu": "cuda"}.get(here.platform, here.platform)
    if platform != "cpu":
        text = program_text(trace_step(program, make_mesh(flags.batch), flags.batch), platform)
        faults = find_faults(text, program, "train", platform)
        print("faults of the program: " + ("none" if not faults else "\n  ".join(["", *faults])))

    cells = [f"{rows[key].images_per_second:,.0f} ({rows[key].share})" for key in rows]
    icre = rows["icre", "bfloat16"]
    cells += [f"{icre.embedded_per_second:,.0f}", f"{middle:.2f}"]
    cells += [f"{icre.measured} / {icre.predicted_bytes / 2**30:.1f} GiB", ", ".join(equal)]
    print(f"\n| {here.num_devices} x {here.device_kind}, jax {here.jax} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    command.run(main)
