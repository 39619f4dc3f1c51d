"""Batches: their content, and that workers, threads and the starting point do not change them."""

import contextlib
import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from icre_jax.data import pipeline
from icre_jax.data.images import decode
from icre_jax.data.pipeline import RecordSource, evaluation_batches, training_batches
from icre_jax.data.plan import BalancedPlan
from icre_jax.data.prepared import open_or_prepare
from icre_jax.settings import parse, to_json
from tests.conftest import ROOT


@pytest.fixture
def settings(config):
    return parse(config)


@pytest.fixture
def source(prepared):
    return RecordSource(prepared, ("train", "val"))


@pytest.fixture
def plan(source):
    return BalancedPlan(source.index, num_ids_per_batch=4, num_images_per_id=2, num_batches=6, seed=7)


def collect(source, plan, settings, *, workers=0, threads=2, start=0, seed=7):
    data = settings.data.model_copy(update={"num_workers": workers, "num_threads": threads})
    batches = training_batches(source, plan, data=data, settings=settings.augment, seed=seed, start=start)
    with contextlib.closing(batches):
        return [hashlib.sha256(b["image"].tobytes() + b["label"].tobytes()).hexdigest() for b in batches]


@pytest.mark.versions
def test_workers_threads_and_start_do_not_change_the_batches(source, plan, settings):
    expected = collect(source, plan, settings)
    assert len(set(expected)) == plan.num_batches
    for workers, threads, start in ((1, 2, 0), (2, 1, 0), (2, 4, 3), (0, 1, 5)):
        assert collect(source, plan, settings, workers=workers, threads=threads, start=start) == expected[start:]


def test_records_at_training_size_give_the_same_batches(source, plan, settings, tree, tmp_path):
    resized = open_or_prepare("sysu_mm01", tree, tmp_path, stored_size=settings.data.image_size)
    assert collect(RecordSource(resized, ("train", "val")), plan, settings) == collect(source, plan, settings)


ENDLESS = """
import multiprocessing, sys, time
from pathlib import Path
from icre_jax.data.pipeline import RecordSource, evaluation_batches
from icre_jax.data.prepared import open_or_prepare
from icre_jax.settings import from_json
data = from_json(sys.argv[1]).data
prepared = open_or_prepare("sysu_mm01", Path(data.data_dir), Path(data.prepared_dir))
batches = evaluation_batches(RecordSource(prepared, ("query",)), data=data, batch_size=2)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


@pytest.mark.long
def test_workers_end_with_a_process_that_is_killed(config):
    config.data.num_workers = 2
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, to_json(parse(config))], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < deadline, workers
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # not only its name is left
    except OSError:
        return False


def test_the_seed_changes_the_augmentation(source, plan, settings):
    assert collect(source, plan, settings, seed=7) != collect(source, plan, settings, seed=8)


def test_a_training_batch_without_augmentation_is_the_plans_images(source, plan, settings):
    plain = settings.augment.model_copy(
        update={"pad": 0, "flip_probability": 0.0, "channel_probability": 0.0, "erasing_probability": 0.0}
    )
    batches = training_batches(source, plan, data=settings.data, settings=plain, seed=0)
    with contextlib.closing(batches):
        batch = next(batches)
    size = settings.data.image_size
    assert batch["image"].dtype == np.uint8
    assert batch["image"].shape == (16, *size, 3)
    for row in range(plan.batch_size):
        slot = plan.batch(0)[row]
        np.testing.assert_array_equal(batch["image"][row], decode(source.image_bytes(slot.record), size))
        assert batch["label"][row] == slot.label
    assert batch["modality"].tolist() == [0, 1] * 8


def test_infrared_stays_grey_and_visible_gets_the_channel_augmentation(source, plan, settings):
    always = settings.augment.model_copy(update={"erasing_probability": 0.0, "channel_probability": 1.0})
    never = settings.augment.model_copy(update={"erasing_probability": 0.0, "channel_probability": 0.0})

    def share_of_grey(augment, rows):
        batches = training_batches(source, plan, data=settings.data, settings=augment, seed=0)
        with contextlib.closing(batches):
            images = next(batches)["image"][rows]
        return float((images[..., 0] == images[..., 1]).all(axis=(1, 2)).mean())

    visible, infrared = slice(0, None, 2), slice(1, None, 2)
    assert share_of_grey(always, visible) == 1.0
    assert share_of_grey(never, visible) == 0.0
    assert share_of_grey(never, infrared) == 1.0


@pytest.mark.versions
def test_evaluation_pads_the_last_batch_and_says_so(prepared, settings):
    source = RecordSource(prepared, ("query",))
    size = settings.data.image_size
    batches = list(evaluation_batches(source, data=settings.data, batch_size=10))
    count = len(source.index)
    assert count % 10  # or there would be nothing to pad
    assert all(batch["image"].shape == (10, *size, 3) for batch in batches)
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert mask.sum() == count
    assert mask[:count].all()
    rows = np.concatenate([batch["image"] for batch in batches])[mask]
    for row in range(0, count, 3):
        np.testing.assert_array_equal(rows[row], decode(source.image_bytes(row), size))


def test_records_of_several_splits_lie_end_to_end(prepared, source):
    for split, offset in (("train", 0), ("val", len(prepared.index["train"]))):
        row = len(prepared.index[split]) - 1
        assert source.image_bytes(offset + row) == prepared.source(split)[row]["image"]
        assert source.index.path[offset + row] == prepared.index[split].path[row]


def test_a_closed_iterator_gives_nothing_more(source, plan, settings):
    batches = pipeline.training_batches(source, plan, data=settings.data, settings=settings.augment, seed=0)
    next(batches)
    batches.close()
    assert next(batches, None) is None
