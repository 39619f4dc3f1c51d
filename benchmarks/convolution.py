"""Gradients of single convolutions and of the max-pool: the library's form against the one that we take on a CPU.

    python -m benchmarks.convolution

Shapes of ResNet-50 at 288x144 with 16 images and of the demo's network with 64; float32. The forms run in turns.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.interleaved import run_in_turns
from icre_jax.machine import command
from icre_jax.models.convolution import _library, convolve
from icre_jax.models.pooling import _library as library_pool
from icre_jax.models.pooling import max_pool

# Input, output channels, size, stride.
_RESNET50 = [
    ((8, 288, 144, 3), 64, 7, 2),
    ((16, 72, 36, 64), 64, 3, 1),
    ((16, 72, 36, 128), 128, 3, 2),
    ((16, 36, 18, 128), 128, 3, 1),
    ((16, 36, 18, 256), 256, 3, 2),
    ((16, 18, 9, 256), 256, 3, 1),
    ((16, 18, 9, 512), 512, 3, 1),
    ((16, 72, 36, 64), 256, 1, 1),
    ((16, 72, 36, 256), 512, 1, 2),
    ((16, 18, 9, 1024), 256, 1, 1),
]
_DEMO = [
    ((32, 112, 56, 3), 16, 7, 2),
    ((64, 28, 14, 16), 32, 3, 2),
    ((64, 14, 7, 32), 64, 3, 2),
    ((64, 7, 4, 64), 64, 3, 1),
    ((64, 7, 4, 128), 128, 3, 1),
]
_POOLS = [(8, 144, 72, 64), (32, 56, 28, 16)]


def _gradient(function: Callable[..., Array], argument: int, *arrays: Array) -> Callable[[], Any]:
    """Compiled: the gradient with respect to one argument, for a given output gradient (the last array)."""

    def run(*arrays: Array) -> Array:
        return jax.vjp(function, *arrays[:-1])[1](arrays[-1])[argument]

    compiled = jax.jit(run).lower(*arrays).compile()
    return lambda: jax.block_until_ready(compiled(*arrays))


def _report(name: str, library: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> None:
    timed = run_in_turns({"library": library, "ours": ours}, rounds)
    fastest = [1e3 * min(timed[form].seconds) for form in ("library", "ours")]
    cpu = [1e3 * float(np.median(timed[form].cpu_seconds)) for form in ("library", "ours")]
    print(f"{name:44}" + "".join(f"{a:9.1f}{b:9.1f}{a / b:8.2f}" for a, b in (fastest, cpu)), flush=True)


def main(arguments: Sequence[str]) -> int:
    """The command; it takes no flags."""
    del arguments
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    print(f"{'milliseconds':44}{'library':>9}{'ours':>9}{'ratio':>8}{'library':>9}{'ours':>9}{'ratio':>8}")
    print(f"{'':44}{'fastest, by the clock':>26}{'median, CPU time':>26}")
    for shape, channels, size, stride in _RESNET50 + _DEMO:
        x, kernel = normal(*shape), normal(size, size, shape[3], channels)
        forms = [functools.partial(function, stride=stride) for function in (_library, convolve)]
        g = normal(*jax.eval_shape(forms[0], x, kernel).shape)
        for argument, what in enumerate(("input", "weight")):
            if what == "weight" or size == 1:  # else both are the same
                calls = [_gradient(form, argument, x, kernel, g) for form in forms]
                _report(f"{size}x{size}/{stride} {shape} -> {channels}, {what}", *calls, rounds=9)
    for shape in _POOLS:
        x = jnp.maximum(normal(*shape), 0)
        g = normal(*library_pool(x).shape)
        calls = [_gradient(form, 0, x, g) for form in (library_pool, max_pool)]
        _report(f"max-pool {shape}", *calls, rounds=9)
    return 0


if __name__ == "__main__":
    command.run(main)
