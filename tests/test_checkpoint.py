"""Checkpoints: what comes back, what is kept, what is refused."""

import contextlib
import errno
import gc
import itertools
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from icre_jax.engine.checkpoint.damage import NOTES
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.state import create_state
from icre_jax.errors import InputError, NotSavedError
from icre_jax.models.head import Head
from icre_jax.models.network import ReIDNetwork
from icre_jax.models.resnet import DualStreamResNet

METRIC = "all/single/mAP"


def make_state(width=2, step=0, seed=0):
    network = ReIDNetwork(DualStreamResNet(depth=18, width=width), Head(num_classes=3))
    create = jax.jit(lambda s: create_state(s, network=network, tx=optax.adam(0.1), image_size=(32, 16)))
    return create(seed).replace(step=jnp.int32(step))


@pytest.fixture(scope="module")
def state():
    return make_state()


@pytest.fixture
def checkpoints(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path, keep_latest=2, best_metric=METRIC)) as opened:
        yield opened


@pytest.mark.versions
def test_everything_comes_back_bit_for_bit(checkpoints, state):
    checkpoints.save(state.replace(step=jnp.int32(7)), {"class_pids": [4, 9]})
    restored = checkpoints.restore(7, like=make_state(seed=1))
    assert int(restored.step) == 7
    for name in ("params", "batch_stats", "opt_state"):
        expected, actual = getattr(state, name), getattr(restored, name)
        assert jax.tree.structure(expected) == jax.tree.structure(actual)
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    assert checkpoints.read_facts(7) == {"class_pids": [4, 9]}
    variables = checkpoints.restore_variables(7, jax.eval_shape(lambda: make_state().variables))
    jax.tree.map(np.testing.assert_array_equal, variables, state.variables)


@pytest.mark.versions
def test_variables_alone_and_without_a_network(checkpoints, state):
    checkpoints.save_variables(0, state.variables, {"depth": 18})
    assert checkpoints.read_facts(0) == {"depth": 18}
    checkpoints.save(state.replace(step=jnp.int32(7)), {})
    for step in (0, 7):
        read = checkpoints.read_variables(step)
        assert jax.tree.structure(read) == jax.tree.structure(state.variables)
        jax.tree.map(np.testing.assert_array_equal, read, state.variables)
        assert all(type(leaf) is np.ndarray and leaf.dtype == np.float32 for leaf in jax.tree.leaves(read))
    with pytest.raises(InputError, match="no checkpoint of step 3"):
        checkpoints.read_variables(3)


@pytest.mark.versions
def test_another_process_reads_it(tmp_path, state):
    with contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC)) as opened:
        opened.save(state.replace(step=jnp.int32(4)), {"a": 1}, {METRIC: 0.5})
    with contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC, read_only=True)) as opened:
        assert opened.best_step == opened.latest_step == 4
        restored = opened.restore(4, like=make_state(seed=1))
    jax.tree.map(np.testing.assert_array_equal, restored.params, state.params)


@pytest.mark.versions
def test_the_latest_and_the_best_are_kept(checkpoints, state):
    scores = {1: 0.2, 2: 0.9, 3: None, 4: 0.5, 5: None, 6: 0.9, 7: 0.1, 8: None}
    for step, score in scores.items():
        checkpoints.save(state.replace(step=jnp.int32(step)), {}, None if score is None else {METRIC: score})
        if step == 4:
            assert checkpoints.steps == [2, 3, 4]
            assert checkpoints.best_step == 2
    assert checkpoints.steps == [6, 7, 8]  # 6 is the newest of the best
    assert checkpoints.best_step == 6
    assert checkpoints.latest_step == 8


def test_nothing_scored_means_no_best(checkpoints, state):
    assert checkpoints.latest_step is None
    checkpoints.save(state, {})
    assert checkpoints.latest_step == 0
    assert checkpoints.best_step is None


def test_a_step_that_is_not_there(checkpoints, state):
    checkpoints.save(state.replace(step=jnp.int32(3)), {})
    with pytest.raises(InputError, match=r"no checkpoint of step 5; there are \[3\]"):
        checkpoints.restore(5, like=state)


def test_another_network_is_refused_with_what_differs(checkpoints, state):
    checkpoints.save(state, {})
    with pytest.raises(InputError, match=r"(?s)another network.*saved \(.*this network \("):
        checkpoints.restore(0, like=make_state(width=4))


def test_a_damaged_checkpoint_is_refused(tmp_path, state):
    with contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC)) as opened:
        opened.save(state, {})
    for file in (tmp_path / "checkpoints" / "0" / "params").rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with (
        contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC)) as opened,
        pytest.raises(InputError, match="is damaged"),
    ):
        opened.restore(0, like=state)


def test_damaged_scores_are_said_with_the_step_that_is_left(tmp_path, state):
    """Who deletes the only checkpoint, as he was told once, begins at step 0."""
    with contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC)) as opened:
        for step in (1, 2):
            opened.save(state.replace(step=jnp.int32(step)), {}, {METRIC: 0.3 - step / 10})
    folder = tmp_path / "checkpoints"
    scores = folder / "2" / "metrics" / "metrics"
    scores.write_bytes(scores.read_bytes().replace(b"0", b"9", 1))
    with pytest.raises(InputError, match=r"step 2 .*: metrics/metrics .* continues after step 1, which is whole"):
        Checkpoints(tmp_path, best_metric=METRIC)
    shutil.rmtree(folder / "1")
    with pytest.raises(InputError, match=r"No other checkpoint there is whole. Take another copy of the run"):
        Checkpoints(tmp_path, best_metric=METRIC)


@pytest.mark.versions
def test_a_step_is_on_the_disk_before_it_has_a_name_and_named_before_the_older_one_goes(tmp_path, state, monkeypatch):
    folder, synced = tmp_path / "checkpoints", []

    def note(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), {e.name for e in folder.iterdir()}))

    with contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC)) as opened:
        opened.save(state.replace(step=jnp.int32(1)), {})
        monkeypatch.setattr(os, "fsync", note)
        opened.save(state.replace(step=jnp.int32(2)), {})
    # Below the folder of the step, whose name was a temporary one.
    before = {Path(*place.parts[len(folder.parts) + 1 :]) for place, names in synced if "2" not in names}
    content = {path.relative_to(folder / "2") for path in (folder / "2").rglob("*")} - {*map(Path, NOTES)}
    assert len(content) > 20
    assert content <= before
    assert (folder, {"1", "2"}) in [(place, names & {"1", "2"}) for place, names in synced]
    assert [entry.name for entry in folder.iterdir()] == ["2"]


@pytest.mark.parametrize(("number", "is_saved"), [(errno.EIO, False), (errno.EINVAL, True)])
def test_a_disk_that_cannot_be_written_through(checkpoints, state, monkeypatch, number, is_saved):
    """EINVAL: the file system has no such thing."""

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    checkpoints.save(state.replace(step=jnp.int32(1)), {})
    monkeypatch.setattr(os, "fsync", fail)
    with contextlib.nullcontext() if is_saved else pytest.raises(NotSavedError, match=r"Input/output error.*\[1\]"):
        checkpoints.save(state.replace(step=jnp.int32(2)), {})
    assert checkpoints.steps == ([1, 2] if is_saved else [1])


def test_a_missing_item_is_refused(tmp_path, state):
    with contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC)) as opened:
        opened.save(state, {})
    shutil.rmtree(tmp_path / "checkpoints" / "0" / "batch_stats")
    with (
        contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC)) as opened,
        pytest.raises(InputError, match="is damaged"),
    ):
        opened.restore(0, like=state)


def test_what_a_killed_save_left_is_gone_when_the_folder_is_opened(tmp_path, state):
    with contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC)) as opened:
        opened.save(state.replace(step=jnp.int32(4)), {})
    torn = tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp" / "params"
    torn.mkdir(parents=True)
    (torn / "half").write_bytes(b"x")
    with contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC, read_only=True)) as opened:
        assert opened.steps == [4]
    assert torn.exists()  # reading changes nothing
    with contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC)) as opened:
        assert opened.steps == [4]
        assert not torn.parent.exists()


def test_reading_never_makes_a_folder(tmp_path):
    with pytest.raises(InputError, match="holds no checkpoints"):
        Checkpoints(tmp_path / "mistyped", read_only=True)
    assert not (tmp_path / "mistyped").exists()


def test_too_little_space_is_said_before_anything_is_written(checkpoints, state, monkeypatch):
    checkpoints.save(state, {})
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(NotSavedError, match=r"0 MiB free; the checkpoint of step 9 needs \d+ MiB"):
        checkpoints.save(state.replace(step=jnp.int32(9)), {})
    assert checkpoints.steps == [0]


def test_a_clock_that_is_set_while_a_checkpoint_is_written_has_no_effect(checkpoints, state, monkeypatch):
    """Forward by hours at every look, and now and then back."""
    real, looks = time.time, itertools.count(1)

    def jumping() -> float:
        look = next(looks)
        return real() + 86_400 * (-(look % 5) if look % 7 == 0 else look / 50 % 1)

    monkeypatch.setattr(time, "time", jumping)
    for step in (1, 2):
        checkpoints.save(state.replace(step=jnp.int32(step)), {"class_pids": []})
    assert next(looks) > 10, "nobody looked at the clock"
    restored = checkpoints.restore(2, like=make_state(seed=1))
    jax.tree.map(np.testing.assert_array_equal, restored.variables, state.variables)


def test_running_averages_are_kept_and_are_what_is_scored_and_exported(tmp_path, state):
    averages = jax.tree.map(lambda x: x + 1, {"params": state.params, "batch_stats": state.batch_stats})
    ours = state.replace(step=jnp.int32(3), ema=averages)
    with contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC)) as opened:
        opened.save(ours, {})
    with contextlib.closing(Checkpoints(tmp_path, best_metric=METRIC, read_only=True)) as opened:
        restored = opened.restore(3, like=ours)
        for name in ("params", "ema", "opt_state"):
            jax.tree.map(np.testing.assert_array_equal, getattr(restored, name), getattr(ours, name))
        shapes = jax.eval_shape(lambda: make_state().variables)
        jax.tree.map(np.testing.assert_array_equal, opened.restore_variables(3, shapes), averages)
        jax.tree.map(np.testing.assert_array_equal, opened.read_variables(3), averages)
        with pytest.raises(InputError, match="another network"):
            opened.restore_variables(3, jax.eval_shape(lambda: make_state(width=4).variables))


@pytest.mark.long
def test_what_saves_keep_in_memory_is_not_ours(checkpoints, state):
    """tensorstore never frees the strings that it makes of a JSON; docs/attacks.md says what that comes to."""
    of_tensorstore = tracemalloc.Filter(inclusive=False, filename_pattern="*/tensorstore_utils.py")
    kept = []
    tracemalloc.start()
    try:
        for step in range(1, 14):
            checkpoints.save(state.replace(step=jnp.int32(step)), {})
            if step in (3, 13):  # the first saves fill caches
                gc.collect()
                taken = tracemalloc.take_snapshot().filter_traces([of_tensorstore])
                kept.append(len(taken.traces))
    finally:
        tracemalloc.stop()
    # Blocks, since the arrays of the last save may still wait to be freed. One tree of the state has 241.
    assert kept[1] - kept[0] < 10 * 150
