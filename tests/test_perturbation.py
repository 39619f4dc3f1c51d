"""First weights moved by next to nothing: how far, which, from what, and when."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from icre_jax.data.pipeline import training_batches
from icre_jax.data.prepared import open_or_prepare
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.state import TrainState, perturb
from icre_jax.settings import differences, parse
from icre_jax.training.run import assemble, restore
from icre_jax.training.session import _describe_start
from tests.conftest import flags_of, refused, run_command
from tests.test_pretrained import published, write

NUMBERS = st.integers(1, 2**31 - 1)
WEIGHTS = np.random.default_rng(0).normal(0, 0.05, (60, 50)).astype(np.float32)
WEIGHTS[::7] = 0


def state_of(params) -> TrainState:
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, batch_stats={}, opt_state=())


def moved(number: int, params=None):
    params = {"a": {"kernel": WEIGHTS, "bias": np.zeros(5, np.float32)}} if params is None else params
    return jax.device_get(jax.jit(perturb)(state_of(params), np.int32(number))).params


@given(NUMBERS)
@settings(deadline=None, max_examples=25)
def test_weights_move_by_a_relative_1e_6_and_zeros_stay(number):
    after = moved(number)["a"]
    assert after["kernel"].dtype == np.float32
    changes = (after["kernel"].astype(np.float64) / np.where(WEIGHTS, WEIGHTS, 1) - 1)[WEIGHTS != 0]
    # Mean and spread of 2550 draws of N(0, 1), ± 6 standard errors, and the rounding of float32.
    assert abs(changes.mean()) < 0.12e-6
    assert 0.91e-6 < changes.std() < 1.09e-6
    assert np.abs(changes).max() < 7e-6
    assert not after["kernel"][WEIGHTS == 0].any()
    assert not after["bias"].any()


@given(NUMBERS, NUMBERS)
@settings(deadline=None, max_examples=25)
def test_one_number_is_one_start(number, other):
    first = moved(number)["a"]["kernel"]
    assert first.tobytes() == moved(number)["a"]["kernel"].tobytes()
    same = (first == moved(other)["a"]["kernel"])[WEIGHTS != 0].mean()
    assert same == 1 if number == other else same < 0.2  # by chance, as they are rounded


def test_arrays_of_one_shape_move_apart():
    ones = np.ones(200, np.float32)
    after = moved(1, {"a": ones, "b": ones})
    assert (after["a"] == after["b"]).mean() < 0.2


def started(config, folder: Path):
    """A run before its first step, on the small tree, and its state."""
    prepared = open_or_prepare("sysu_mm01", Path(config.data.data_dir), Path(config.data.prepared_dir))
    made = assemble(parse(config), folder, prepared)
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        return made, restore(made, checkpoints, step=None)


def batches_of(made):
    settings = made.settings
    return training_batches(
        made.source, made.plan, data=settings.data, settings=settings.augment, seed=settings.seed, start=0
    )


@pytest.mark.long
def test_a_run_starts_perturbed_and_sees_the_same_batches(config, tmp_path):
    """Also with weights from a file, and where averages are kept; the first step uses up the state's memory."""
    config.pretrained = str(write(tmp_path / "resnet18.safetensors", published(width=config.model.width)))
    config.optimizer.ema_decay = 0.9
    plain, before = started(config, tmp_path / "plain")
    config.perturbation = 5
    other, after = started(config, tmp_path / "other")
    for name, weights in jax.device_get(before.params).items():
        for ours, theirs in zip(jax.tree.leaves(weights), jax.tree.leaves(after.params[name]), strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=7e-6, atol=0)
            assert not ours.any() or ours.size < 4 or (ours != theirs).any(), name
    kernel = np.asarray(after.params["backbone"]["visible_stem"]["conv1"]["kernel"]).transpose(3, 2, 0, 1)
    file = load_file(config.pretrained)["conv1.weight"]
    assert 0.5e-6 < np.std(kernel.astype(np.float64) / file - 1) < 1.5e-6
    for ours, theirs in zip(jax.tree.leaves(after.params), jax.tree.leaves(after.ema["params"]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for group in ("batch_stats", "opt_state"):
        assert_equal(getattr(before, group), getattr(after, group))
    pairs = zip(batches_of(plain), batches_of(other), strict=True)
    for number, (ours, theirs) in enumerate(pairs):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
        if number == 0:
            _, metrics = other.step(after, {name: theirs[name] for name in ("image", "label", "modality")})
    assert np.isfinite(float(metrics["loss"]))


def assert_equal(first, second) -> None:
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_perturbation_is_another_run(config):
    """Which a work folder refuses to continue with; that it happens once, test_resume.py shows."""
    first = parse(config)
    config.perturbation = 3
    other = parse(config)
    assert differences(first, other) == ["perturbation: 0 -> 3"]
    words, moved = (_describe_start(SimpleNamespace(settings=each, facts={})) for each in (first, other))
    assert "perturbation" not in words
    assert moved.endswith(" Every weight is moved by a relative 1e-06 (perturbation 3).")


def test_a_perturbation_that_cannot_be_used(config, tmp_path):
    config.perturbation = -1
    process = run_command("icre_jax.train", *flags_of(config), "--workdir", str(tmp_path / "run"))
    refused(process, "perturbation = -1", "greater than or equal to 0")
    assert not (tmp_path / "run").exists()
