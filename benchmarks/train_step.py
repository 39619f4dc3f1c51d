"""Time of a training step and of embedding, against a hand-written PyTorch baseline and a plain matrix product.

    python -m benchmarks.train_step                                  # ResNet-50, 288x144, 16 images, float32
    python -m benchmarks.train_step --config configs/synthetic.py --image_size 96 48 --batch 64   # the demo's network
    python -m benchmarks.train_step --dtype bfloat16 --task embed

Everything runs in one process, in turns. "plain" is the baseline with the library's convolutions and max-pool and their
gradients, as the network was before `icre_jax/models/convolution.py` and `pooling.py`; "torch" needs torch and the
ResNet-50 of the real configs. Compiling takes most of the time; JAX_COMPILATION_CACHE_DIR=DIR keeps what was compiled.
"""

import argparse
import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.interleaved import Timed, ratios, run_in_turns
from icre_jax.costs.compiled import abstract_batch
from icre_jax.models import convolution, pooling
from icre_jax.parallel import make_mesh, make_state, make_train_step
from icre_jax.program import build_program
from icre_jax.settings import Settings, parse
from icre_jax.steps import embed_step

_PRODUCT = 2048  # rows of the square matrices whose product is the yardstick
_NUM_CLASSES = 395


def read_settings(flags: argparse.Namespace, variant: str) -> Settings:
    """The config of a row at the size that was asked for."""
    module = importlib.import_module(flags.config.removesuffix(".py").replace("/", "."))
    config = module.get_config("" if variant == "icre" else variant)
    config.model.dtype = flags.dtype
    if flags.image_size:
        config.data.image_size = tuple(flags.image_size)
    return parse(config)


def make_batch(num_images: int, image_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Random pictures; four rows are an identity."""
    rows = np.arange(num_images, dtype=np.int32)
    pixels = np.random.default_rng(0).integers(0, 256, (num_images, *image_size, 3), dtype=np.uint8)
    return {"image": pixels, "label": rows // 4 % _NUM_CLASSES, "modality": rows % 2}


@contextlib.contextmanager
def plain_layers() -> Iterator[None]:
    """What is traced inside uses the library's convolutions, those of 1x1 as well, and its max-pool."""
    with (
        mock.patch("icre_jax.models.layers.convolve", convolution._library),
        mock.patch("icre_jax.models.resnet.max_pool", pooling._library),
    ):
        yield


class Ours:
    """One row of the table: a program of ours, compiled, with its arrays."""

    def __init__(self, settings: Settings, batch: dict[str, np.ndarray], *, task: str, plain: bool) -> None:
        program = build_program(settings, num_classes=_NUM_CLASSES, steps_per_epoch=1000)
        num_images = len(batch["label"])
        mesh = make_mesh(num_images)
        parts: dict[str, Any] = {"network": program.network, "tx": program.tx}
        with jax.default_prng_impl("unsafe_rbg"):  # compiles in half the time
            self.state = make_state(mesh, 0, image_size=program.image_size, **parts)
        self.batch = batch
        with plain_layers() if plain else contextlib.nullcontext():
            if task == "train":
                step: Any = make_train_step(mesh, door="jit", objective=program.objective, **parts)
                traced = step.trace(program.abstract_state, abstract_batch(num_images, program.image_size))
            else:
                # A function of its own: `embed_step` would give back the program that it traced before.
                embed = jax.jit(functools.partial(embed_step.__wrapped__, network=program.network, modality="visible"))
                traced = embed.trace(self.state.variables, batch["image"])
            lowered = traced.lower()
            # Counted on the plain program, so that all forms of one network are divided by the same work.
            self.flops = traced.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]
            self.run = lowered.compile()
        self.task = task
        self.result: Any = None

    def __call__(self) -> None:
        """One call; the state moves on."""
        if self.task == "train":
            self.state, self.result = jax.block_until_ready(self.run(self.state, self.batch))
        else:
            self.result = jax.block_until_ready(self.run(self.state.variables, self.batch["image"]))


def matrix_product(dtype: str) -> Callable[[], Any]:
    """The yardstick."""
    a = jax.random.normal(jax.random.key(0), (_PRODUCT, _PRODUCT), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(a, a))


def torch_program(params: Any, settings: Settings, batch: dict[str, np.ndarray], task: str) -> Callable[[], Any] | None:
    """The reference with the same weights, checked to be the same function; None (and why) where it cannot be."""
    try:
        from benchmarks.torch_baseline import Reference
    except ImportError as error:
        print(f"No PyTorch reference: {error}.")
        return None
    if (settings.model.depth, settings.model.width) != (50, 64):
        print("No PyTorch reference: it is written for ResNet-50 at full width.")
        return None
    reference = Reference(
        params,
        num_classes=_NUM_CLASSES,
        label_smoothing=settings.loss.label_smoothing,
        dtype=settings.model.dtype,
    )
    if task == "train":
        return lambda: reference.train_step(batch["image"], batch["label"])
    return lambda: reference.embed(batch["image"])


def report(timed: dict[str, Timed], flops: dict[str, float], num_images: int) -> None:
    """The table, and what stands to what."""
    peak = flops["matrix product"] / timed["matrix product"].median
    print(f"\n{'':16}{'median':>9}{'fastest':>9}{'slowest':>9}{'cores':>7}{'GFLOP':>9}{'GFLOP/s':>9}{'of peak':>9}")
    for name, times in timed.items():
        busy = sum(times.cpu_seconds) / sum(times.seconds)
        line = f"{name:16}{times.median:9.3f}{min(times.seconds):9.3f}{max(times.seconds):9.3f}{busy:7.2f}"
        if name in flops:
            speed = flops[name] / times.median
            line += f"{flops[name] / 1e9:9.0f}{speed / 1e9:9.0f}{speed / peak:9.0%}"
        print(line)
    print(f"seconds per call of {num_images} images; cores: CPU time over clock time\n")
    for name, reference in (
        ("baseline", "torch"), ("plain", "torch"), ("baseline", "plain"), ("agw", "baseline"), ("icre", "baseline"),
    ):  # fmt: skip
        if name in timed and reference in timed:
            middle, low, high = ratios(timed[name], timed[reference])
            cpu = min(timed[name].cpu_seconds) / min(timed[reference].cpu_seconds)
            more = f"; FLOPs {flops[name] / flops[reference]:.2f}" if reference == "baseline" else ""
            print(f"{name} / {reference}: {middle:.2f} ({low:.2f} to {high:.2f}); CPU time {cpu:.2f}{more}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="configs/sysu_mm01.py")
    parser.add_argument("--rows", nargs="+", default=["plain", "baseline", "agw", "icre", "torch"])
    parser.add_argument("--task", choices=["train", "embed"], default="train")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--image_size", type=int, nargs=2, default=[288, 144])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    batch = make_batch(flags.batch, tuple(flags.image_size))

    calls: dict[str, Callable[[], Any]] = {"matrix product": matrix_product(flags.dtype)}
    flops = {"matrix product": 2.0 * _PRODUCT**3}
    weights: Any = None
    for row in flags.rows:
        variant = "baseline" if row in ("plain", "torch") else row
        settings = read_settings(flags, variant)
        if row == "torch":
            call = torch_program(weights, settings, batch, flags.task)
            if call is None:
                continue
            calls[row] = call
            flops[row] = flops.get("baseline", flops.get("plain", float("nan")))
        else:
            ours = Ours(settings, batch, task=flags.task, plain=row == "plain")
            calls[row], flops[row] = ours, ours.flops
            if variant == "baseline":
                weights = jax.device_get(ours.state.params)  # before the first step, which uses them up
        print(f"{row}: ready", flush=True)
    report(run_in_turns(calls, flags.rounds), flops, flags.batch)


if __name__ == "__main__":
    main()
