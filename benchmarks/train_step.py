"""Time of a training step and of embedding, against a hand-written PyTorch baseline and a plain matrix product.

    python -m benchmarks.train_step                                  # ResNet-50, 288x144, 16 images, float32
    python -m benchmarks.train_step --config configs/synthetic.py --image_size 112 56 --batch 64   # the demo's network
    python -m benchmarks.train_step --dtype bfloat16 --task embed

Everything runs in one process, in turns. "plain" is the baseline with the library's convolutions, max-pool and
BatchNorm, as the network was before `icre_jax/models/` had its own; "torch" needs torch and the ResNet-50 of the real
configs. Compiling takes most of the time; JAX_COMPILATION_CACHE_DIR=DIR keeps what was compiled.
"""

import argparse
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.interleaved import Timed, ratios, run_in_turns
from icre_jax.costs.compiled import count_flops
from icre_jax.engine.forward import embed_step
from icre_jax.engine.parallel import make_mesh, make_state, make_train_step
from icre_jax.engine.program import build_program
from icre_jax.errors import InputError
from icre_jax.machine import command
from icre_jax.models import convolution, pooling
from icre_jax.models.stem import Stem
from icre_jax.settings.fields import Settings

_PRODUCT = 2048  # rows of the square matrices whose product is the yardstick
_NUM_CLASSES = 395


def read_settings(file: str, row: str, fields: Sequence[str]) -> Settings:
    """The config of a row."""
    variant = {"icre": "", "plain": ":baseline", "torch": ":baseline"}.get(row, f":{row}")
    return command.read_config([f"--config={file}{variant}", *fields])


def make_batch(num_images: int, image_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Random images; four rows are an identity."""
    rows = np.arange(num_images, dtype=np.int32)
    pixels = np.random.default_rng(0).integers(0, 256, (num_images, *image_size, 3), dtype=np.uint8)
    return {"image": pixels, "label": rows // 4 % _NUM_CLASSES, "modality": rows % 2}


@contextlib.contextmanager
def plain_layers() -> Iterator[None]:
    """What is traced inside uses the library's convolutions, those of 1x1 as well, its pooling and its BatchNorm."""

    def batch_norm(
        use_running_average: bool, dtype: Any, axis_name: str | None, *, repeats: int, **rest: Any
    ) -> nn.BatchNorm:
        assert repeats == 1
        return nn.BatchNorm(use_running_average, momentum=0.9, dtype=dtype, axis_name=axis_name, **rest)

    def block_means(x: jax.Array, size: tuple[int, int]) -> jax.Array:
        return pooling._means_of_the_library(size, x)

    with (
        mock.patch("icre_jax.models.layers.BatchNorm", batch_norm),
        mock.patch("icre_jax.models.layers.convolve", convolution._library),
        mock.patch("icre_jax.models.layers.block_means", block_means),
        mock.patch("icre_jax.models.resnet.Stem", functools.partial(Stem, in_blocks=False)),
        mock.patch("icre_jax.models.stem.max_pool", pooling._library),
    ):
        yield


class Ours:
    """One row of the table: a program of ours, compiled, with its arrays."""

    def __init__(self, settings: Settings, batch: dict[str, np.ndarray], *, task: str, plain: bool) -> None:
        program = build_program(settings, num_classes=_NUM_CLASSES, steps_per_epoch=1000)
        num_images = len(batch["label"])
        mesh = make_mesh(num_images)
        with jax.default_prng_impl("unsafe_rbg"):  # compiles in half the time
            self.state = make_state(mesh, 0, program)
        self.batch = batch
        with plain_layers() if plain else contextlib.nullcontext():
            if task == "train":
                step: Any = make_train_step(mesh, program)
                traced = step.__wrapped__.trace(program.abstract_state, program.abstract_batch(num_images))
            else:
                # A function of its own: `embed_step` would give back the program that it traced before.
                embed = jax.jit(functools.partial(embed_step.__wrapped__, network=program.network, modality="visible"))
                traced = embed.trace(self.state.variables, batch["image"])
            lowered = traced.lower()
            # Counted on the plain program, so that all forms of one network are divided by the same work.
            self.flops = count_flops(traced)
            self.run = lowered.compile()
        self.task = task

    def __call__(self) -> np.ndarray:
        """The loss before the step, or the embeddings; the state moves on."""
        if self.task == "train":
            self.state, metrics = jax.block_until_ready(self.run(self.state, self.batch))
            return np.asarray(metrics["loss"])
        return np.asarray(self.run(self.state.variables, self.batch["image"]))


def matrix_product(dtype: str) -> Callable[[], Any]:
    """The yardstick."""
    a = jax.random.normal(jax.random.key(0), (_PRODUCT, _PRODUCT), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(a, a))


def torch_program(params: Any, settings: Settings, batch: dict[str, np.ndarray], task: str) -> Callable[[], Any] | None:
    """The reference with the same weights; None where there is none, and it says why."""
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


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=["plain", "baseline", "agw", "icre", "torch"],
        default=["plain", "baseline", "agw", "icre", "torch"],
    )
    parser.add_argument("--task", choices=["train", "embed"], default="train")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--image_size", type=int, nargs=2, default=(288, 144), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=16, help="images, a multiple of 4")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each row")
    flags, config_flags = command.split_config_flags(parser, arguments)
    if flags.batch < 8 or flags.batch % 4:
        raise InputError(f"--batch is {flags.batch}; two identities of four rows are the least: 8, 12, 16, ...")
    if flags.rounds < 1:
        raise InputError(f"--rounds is {flags.rounds}; allowed is 1 or more.")
    size = tuple(flags.image_size)
    fields = [f"--config.data.image_size={size}", f"--config.model.dtype={flags.dtype}"]
    fields += [field for field in config_flags if not field.startswith("--config=")]
    file = flags.config or "configs/sysu_mm01.py"
    batch = make_batch(flags.batch, size)

    calls: dict[str, Any] = {"matrix product": matrix_product(flags.dtype)}
    flops = {"matrix product": 2.0 * _PRODUCT**3}
    for row in [row for row in flags.rows if row != "torch"]:
        ours = Ours(read_settings(file, row, fields), batch, task=flags.task, plain=row == "plain")
        calls[row], flops[row] = ours, ours.flops
        print(f"{row}: ready", flush=True)
    if "torch" in flags.rows:
        # Before the first step, which uses the weights up.
        same = calls.get("baseline", calls.get("plain"))
        if same is None:
            raise InputError("The row torch takes its weights from the row baseline or plain; ask for one of them too.")
        call = torch_program(jax.device_get(same.state.params), read_settings(file, "torch", fields), batch, flags.task)
        if call is not None:
            calls["torch"], flops["torch"] = call, same.flops
            theirs, mine = call(), same()
            print(f"torch: ready; largest difference from ours {np.abs(theirs - mine).max() / np.abs(mine).max():.1e}")
    report(run_in_turns(calls, flags.rounds), flops, flags.batch)
    return 0


if __name__ == "__main__":
    command.run(main)
