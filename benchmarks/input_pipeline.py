"""Training batches per second, beside a PyTorch DataLoader: `python -m benchmarks.input_pipeline`.

People are rendered at about the size of real images. Both sides read the same plan of SYSU-MM01's recipe and resize,
crop, flip, exchange channels and erase with the same functions; what differs is everything around them. Rows:

    threads   ours: ArrayRecord, two threads, no worker process
    workers   ours, worker processes
    resized   ours, worker processes, from records at training size (`data.store_resized`); the same pixels
    resized0  the same with two threads and no worker process
    torch     DataLoader over the files, worker processes; float32, normalised in the worker, as the field's code
    torch8    the same DataLoader, but uint8 as ours, where normalisation is part of the training step

Rows take turns. Workers are started anew each time, and the first batches are not timed.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icre_jax import rendering
from icre_jax.data import augment
from icre_jax.data.compared import sum_of
from icre_jax.data.images import decode
from icre_jax.data.pipeline import RecordSource, training_batches
from icre_jax.data.plan import BalancedPlan
from icre_jax.data.prepared import open_or_prepare
from icre_jax.datasets import MODALITIES, VISIBLE
from icre_jax.errors import InputError
from icre_jax.machine import command
from icre_jax.settings.fields import Settings

_MEAN = np.array((0.485, 0.456, 0.406), np.float32)[:, None, None]
_STD = np.array((0.229, 0.224, 0.225), np.float32)[:, None, None]
_UNTIMED = 6  # batches: what the buffers hold when the workers are up
_RATIOS = (
    ("threads", "torch"), ("workers", "torch"), ("workers", "torch8"), ("resized", "torch"), ("resized", "torch8"),
    ("resized0", "torch"), ("resized", "workers"),
)  # fmt: skip

Batches = Callable[[], contextlib.AbstractContextManager[Iterator[Any]]]


class TorchImages:
    """A PyTorch data set of the slots of a plan."""

    def __init__(self, plan: BalancedPlan, source: RecordSource, settings: Settings, *, as_float: bool) -> None:
        self.slots = [slot for number in range(plan.num_batches) for slot in plan.batch(number)]
        self.root, self.index = Path(settings.data.data_dir), source.index
        self.size, self.augment, self.as_float = settings.data.image_size, settings.augment, as_float

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, position: int) -> Any:
        slot, rng, settings = self.slots[position], np.random.default_rng(position), self.augment
        height, width = self.size
        with Image.open(self.root / self.index.path[slot.record]) as file:
            image = np.asarray(file.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
        image = augment.pad_and_crop(image, rng, pad=settings.pad)
        image = augment.flip(image, rng, probability=settings.flip_probability)
        if MODALITIES[self.index.modality[slot.record]] == VISIBLE:
            image = augment.exchange_channels(image, rng, probability=settings.channel_probability)
        image = augment.erase(
            image,
            rng,
            probability=settings.erasing_probability,
            area=settings.erasing_area,
            aspect=settings.erasing_aspect,
        )
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
        if self.as_float:
            pixels = (pixels.astype(np.float32) / 255 - _MEAN) / _STD
        return pixels, slot.label


def ours(settings: Settings, plan: BalancedPlan, source: RecordSource, num_workers: int) -> Batches:
    """Batches of the grain pipeline."""
    data = settings.data.model_copy(update={"num_workers": num_workers})
    return lambda: contextlib.closing(
        training_batches(source, plan, data=data, settings=settings.augment, seed=settings.seed)
    )


def theirs(
    settings: Settings, plan: BalancedPlan, source: RecordSource, num_workers: int, *, as_float: bool
) -> Batches:
    """Batches of a DataLoader."""
    from torch.utils.data import DataLoader

    dataset = TorchImages(plan, source, settings, as_float=as_float)

    @contextlib.contextmanager
    def start() -> Iterator[Iterator[Any]]:
        loader: Any = DataLoader(dataset, batch_size=plan.batch_size, num_workers=num_workers)  # type: ignore[arg-type]
        yield iter(loader)

    return start


def images_per_second(batches: Batches, batch_size: int, num_timed: int) -> float:
    """Speed after the first batches."""
    with batches() as iterator:
        for _ in range(_UNTIMED):
            next(iterator)
        began = time.perf_counter()
        for _ in range(num_timed):
            next(iterator)
        return batch_size * num_timed / (time.perf_counter() - began)


def measure(rows: dict[str, Batches], batch_size: int, num_timed: int, rounds: int) -> None:
    """Print the table and the ratios."""
    speeds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, batches in rows.items():
            speeds[name].append(images_per_second(batches, batch_size, num_timed))
    print(f"{'':10}{'images/s':>9}{'slowest':>9}{'fastest':>9}")
    for name, values in speeds.items():
        print(f"{name:10}{statistics.median(values):9.0f}{min(values):9.0f}{max(values):9.0f}")
    for name, reference in _RATIOS:
        if name in speeds and reference in speeds:
            ratios = [a / b for a, b in zip(speeds[name], speeds[reference], strict=True)]
            print(f"{name} / {reference}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def report_sums(name: str, source: RecordSource, size: tuple[int, int]) -> None:
    """What comparing each image with its sum adds to reading it, in CPU time."""
    seconds = {"sum": 0.0, "reading": 0.0}
    for row in range(min(500, len(source.index))):
        image = source.image_bytes(row)
        for part, work in (
            ("sum", lambda image=image: sum_of(image)),
            ("reading", lambda row=row: decode(source.image_bytes(row), size)),
        ):
            began = time.thread_time()
            work()
            seconds[part] += time.thread_time() - began
    share = seconds["sum"] / (seconds["reading"] - seconds["sum"])
    print(f"{name}: comparing images with their sums adds {share:.1%} to reading and decoding them")


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--file_size", type=int, nargs=2, default=(320, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--num_ids", type=int, default=24, help="training identities to render, with six cameras each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=40, help="timed batches of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    flags, config_flags = command.split_config_flags(parser, arguments)
    if min(flags.num_ids - 7, flags.workers, flags.batches, flags.rounds) < 1:
        raise InputError("--num_ids must be 8 or more; --workers, --batches and --rounds 1 or more.")
    with tempfile.TemporaryDirectory() as folder:
        tree, records = Path(folder) / "tree", Path(folder) / "records"
        people = rendering.SyntheticSettings(
            seed=0,
            difficulty="default",
            num_train_ids=flags.num_ids,
            num_val_ids=1,
            num_test_ids=1,
            num_images_per_camera=2,
            image_size=tuple(flags.file_size),
        )
        print("rendering people", flush=True)
        rendering.write_tree("sysu_mm01", tree, people, num_workers=2)
        settings = command.read_config(
            [f"--config={flags.config or 'configs/sysu_mm01.py'}", f"--config.data.data_dir={tree}"]
            + [field for field in config_flags if not field.startswith("--config=")]
        )
        splits = settings.data.train_splits
        full = RecordSource(open_or_prepare("sysu_mm01", tree, records), splits)
        size = settings.data.image_size
        small = RecordSource(open_or_prepare("sysu_mm01", tree, records, stored_size=size), splits)
        plan = BalancedPlan(
            full.index,
            **settings.sampling.model_dump(),
            num_batches=_UNTIMED + flags.batches + 16,  # more than the buffers read ahead
            seed=settings.seed,
        )
        stored = sum(len(full.image_bytes(i)) for i in range(100)), sum(len(small.image_bytes(i)) for i in range(100))
        print(f"an image takes {stored[0] / 1e5:.0f} kB as it is, {stored[1] / 1e5:.0f} kB at {size[0]}x{size[1]}")
        report_sums("as they are", full, size)
        report_sums(f"at {size[0]}x{size[1]}", small, size)
        rows = {
            "threads": ours(settings, plan, full, 0),
            "workers": ours(settings, plan, full, flags.workers),
            "resized": ours(settings, plan, small, flags.workers),
            "resized0": ours(settings, plan, small, 0),
        }
        try:
            rows["torch"] = theirs(settings, plan, full, flags.workers, as_float=True)
            rows["torch8"] = theirs(settings, plan, full, flags.workers, as_float=False)
        except ImportError as error:
            print(f"No PyTorch reference: {error}.")
        measure(rows, plan.batch_size, flags.batches, flags.rounds)
    return 0


if __name__ == "__main__":
    command.run(main)
