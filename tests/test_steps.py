"""One step of training against second formulas: micro-batches, and running averages of the weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from icre_jax.data import augment
from icre_jax.engine.forward import normalize_images
from icre_jax.engine.program import Program
from icre_jax.engine.state import TrainState
from icre_jax.engine.steps import train_step
from icre_jax.errors import InputError
from icre_jax.losses.objective import objective
from icre_jax.models.head import Head
from icre_jax.models.network import ReIDNetwork
from icre_jax.models.resnet import DualStreamResNet
from icre_jax.settings import differences, parse

LOSS = {
    "label_smoothing": 0.1,
    "icg_weight": 1.0,
    "icg_form": "relative",
    "icg_rho1": 0.3,
    "icg_rho2": 0.3,
    "icg_space": "features",
    "icg_hinge": "hinge",
    "icg_margin_unit": "one",
    "guide_weight": 0.0,
    "triplet_weight": 0.0,
    "triplet_form": "batch_hard",
    "triplet_margin": 0.3,
}
LOSSES = {
    "relative": {},
    "absolute": {"icg_form": "absolute", "icg_rho1": 0.7},
    "guided": {"icg_form": "guided", "triplet_weight": 1.0, "triplet_form": "weighted"},
    "batch-hard": {"icg_weight": 0.0, "triplet_weight": 1.0},
    "identity alone": {"icg_weight": 0.0},
    "of embeddings": {"icg_space": "embeddings", "icg_hinge": "softplus", "icg_margin_unit": "mean_distance"},
}
RNG = np.random.default_rng(0)
BATCH = {
    "image": RNG.integers(0, 256, (16, 32, 16, 3), dtype=np.uint8),
    # Identities of 2, 4 and 10 rows: no micro-batch holds whole ones only.
    "label": np.repeat(np.arange(3, dtype=np.int32), (2, 4, 10)),
    "modality": np.arange(16, dtype=np.int32) % 2,
}


def normalized_on_the_host(images):
    """What other code bases do in their input: to [0, 1], ImageNet's mean and deviation taken out; in float64."""
    return (np.float64(images) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


def test_pixels_that_are_augmented_on_the_host_are_normalised_on_the_device_as_on_the_host():
    every_value = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 16, 16, 3)
    augmented = np.stack(
        [
            augment.erase(image, np.random.default_rng(i), probability=0.5, area=(0.1, 0.3), aspect=(0.5, 2.0))
            for i, image in enumerate(np.concatenate([BATCH["image"], BATCH["image"][::-1]]))
        ]
    )
    for images in (every_value, augmented):
        on_device, on_host = np.asarray(jax.jit(normalize_images)(images)), normalized_on_the_host(images)
        assert on_device.dtype == np.float32
        np.testing.assert_allclose(on_device, on_host, rtol=0, atol=1e-6)
        for statistic in (np.mean, np.std):
            np.testing.assert_allclose(
                statistic(np.float64(on_device), (0, 1, 2)), statistic(on_host, (0, 1, 2)), rtol=1e-5, atol=1e-6
            )
    # The host erases with whole grey levels: after normalisation that is 0 to half a level.
    erased = normalize_images(np.array(augment.ERASED, np.uint8))
    np.testing.assert_array_less(np.abs(erased), 0.5 / 255 / np.array([0.229, 0.224, 0.225]) + 1e-6)


class WithoutBatchNorm:
    """A network whose rows do not see each other: micro-batches change nothing but the order of sums."""

    def apply(self, variables, images, *, modality, train, mutable):
        features = jnp.tanh(images.reshape(len(images), -1) @ variables["params"]["embed"])
        outputs = {
            "features": features,
            "deep_features": features**2,
            "embeddings": features - 0.1,
            "logits": features @ variables["params"]["classify"],
        }
        return (outputs, {}), {"batch_stats": {"mean": jnp.mean(images)}}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("num_micro", [2, 8])
def test_micro_batches_give_the_gradient_of_the_whole_batch(loss, num_micro):
    rng = np.random.default_rng(1)
    params = {
        "embed": jnp.asarray(rng.normal(size=(32 * 16 * 3, 6), scale=0.02), jnp.float32),
        "classify": jnp.asarray(rng.normal(size=(6, 4)), jnp.float32),
    }
    judge = functools.partial(objective, **LOSS | LOSSES[loss])
    program = Program(WithoutBatchNorm(), optax.sgd(1.0), judge, (32, 16))
    state = TrainState(jnp.int32(0), params, {"mean": jnp.float32(0)}, program.tx.init(params))
    with jax.default_matmul_precision("highest"):
        whole, metrics = train_step(state, BATCH, program=program)
        micro, others = train_step(state, BATCH, program=dataclasses.replace(program, accumulate_steps=num_micro))
    assert metrics.keys() == others.keys()
    for name, value in metrics.items():
        assert float(others[name]) == pytest.approx(float(value), rel=1e-5), name
    for name, start in params.items():
        update = np.asarray(whole.params[name] - start)
        assert np.abs(update).max() > 1e-3
        np.testing.assert_allclose(micro.params[name] - start, update, atol=1e-5 * np.abs(update).max())
    np.testing.assert_allclose(micro.batch_stats["mean"], whole.batch_stats["mean"], rtol=1e-5)


@pytest.fixture(scope="module")
def network():
    return ReIDNetwork(DualStreamResNet(depth=18, width=2), Head(num_classes=3))


@pytest.fixture(scope="module")
def program(network):
    return Program(network, optax.sgd(0.1), functools.partial(objective, **LOSS), (32, 16), ema_decay=0.2)


@pytest.fixture(scope="module")
def start(program):
    return jax.jit(program.create_state)(0)


def step_of(program, **changes):
    """The step of a program with other fields, to be compiled."""
    return functools.partial(train_step, program=dataclasses.replace(program, **changes))


def test_with_batch_norm_it_is_the_whole_loss_over_micro_batches_normalised_alone(network, program, start):
    """The same written down plainly: each half through the network, one loss over both, one gradient of that."""
    judge = functools.partial(objective, **LOSS)
    halves = [np.flatnonzero(np.arange(16) // 2 % 2 == a) for a in range(2)]  # pairs 0, 2, .. and 1, 3, ..

    def loss_of(params, labels, modality):
        outputs, stats = {}, []
        for rows in halves:
            (out, _), updated = network.apply(
                {"params": params, "batch_stats": start.batch_stats},
                normalize_images(BATCH["image"][rows]),
                modality="paired",
                train=True,
                mutable=["batch_stats"],
            )
            for name, values in out.items():
                outputs.setdefault(name, jnp.zeros((16, values.shape[1])))
                outputs[name] = outputs[name].at[rows].set(values)
            stats.append(updated["batch_stats"])
        return judge(outputs, labels, modality)[0], stats

    plainly = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    (loss, stats), gradients = plainly(start.params, BATCH["label"], BATCH["modality"])
    state, metrics = jax.jit(step_of(program, accumulate_steps=2, ema_decay=0.0))(start, BATCH)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert float(metrics["gradient_norm"]) == pytest.approx(float(optax.tree.norm(gradients)), rel=1e-3)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, start.params, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), state.params, expected)
    expected = jax.tree.map(lambda a, b: (a + b) / 2, *stats)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state.batch_stats, expected)


@pytest.mark.slow
def test_micro_batches_need_less_memory(program, start):
    def temporary_bytes(num_micro):
        step = step_of(program, accumulate_steps=num_micro, ema_decay=0.0)
        batch = {
            "image": jax.ShapeDtypeStruct((64, 64, 32, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((64,), jnp.int32),
            "modality": jax.ShapeDtypeStruct((64,), jnp.int32),
        }
        return jax.jit(step).lower(start, batch).compile().memory_analysis().temp_size_in_bytes

    whole, micro = temporary_bytes(1), temporary_bytes(8)
    assert micro < whole / 3


def test_running_averages_by_hand(program, start):
    """keep = min(decay, (1 + t) / (10 + t)), t finished steps: 0.1, 2/11, 0.2 with a decay of 0.2."""
    step, plain = jax.jit(step_of(program)), jax.jit(step_of(program, ema_decay=0.0))
    state, alone = start, start.replace(ema=None)
    average = jax.tree.map(np.asarray, {"params": start.params, "batch_stats": start.batch_stats})
    for keep in (0.1, 2 / 11, 0.2):
        state, _ = step(state, BATCH)
        alone, _ = plain(alone, BATCH)
        now = {"params": state.params, "batch_stats": state.batch_stats}
        average = jax.tree.map(lambda old, new, keep=keep: keep * old + (1 - keep) * np.asarray(new), average, now)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.ema, average)
    # Training itself does not see them; what is scored does.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), state.params, alone.params)
    assert alone.ema is None
    assert state.variables is state.ema
    assert alone.variables["params"] is alone.params


def test_settings_of_both(config):
    plain = parse(config)
    assert (plain.optimizer.accumulate_steps, plain.optimizer.ema_decay) == (1, 0.0)
    config.optimizer.ema_decay = 0.999
    # Nothing of them can be switched within a run.
    assert differences(plain, parse(config)) == ["optimizer.ema_decay: 0.0 -> 0.999"]
    for field, value in (("ema_decay", 1.0), ("ema_decay", -0.1), ("accumulate_steps", 0)):
        with config.optimizer.unlocked():
            config.optimizer[field] = value
        with pytest.raises(InputError, match=rf"optimizer\.{field} = {value}"):
            parse(config)
        config.optimizer.update(accumulate_steps=1, ema_decay=0.5)
