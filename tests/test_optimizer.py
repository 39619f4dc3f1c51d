"""Learning rates by hand, update rules against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from icre_jax.engine.optimizer import group_of_parameters, learning_rate, make_optimizer
from icre_jax.settings.fields import Optimizer, Schedule

RECIPE = Schedule(num_epochs=150, warmup_epochs=10, boundaries=(20, 80), factors=(0.1, 0.01))
SGD = Optimizer(
    name="sgd",
    backbone_learning_rate=0.01,
    enhancement_learning_rate=0.03,
    head_learning_rate=0.1,
    momentum=0.9,
    enhancement_name="sgd",
    backbone_weight_decay=5e-4,
    enhancement_weight_decay=0.0,
    head_weight_decay=5e-4,
    accumulate_steps=1,
    ema_decay=0.0,
)


@pytest.mark.parametrize(
    ("step", "expected"),
    # Seven steps an epoch. Warm-up: 70 steps; epochs 20 and 80 begin with steps 140 and 560.
    [
        (0, 0.1 / 70), (1, 0.2 / 70), (6, 0.01), (7, 0.8 / 70), (34, 0.05), (68, 6.9 / 70), (69, 0.1), (70, 0.1),
        (139, 0.1), (140, 0.01), (559, 0.01), (560, 0.001), (1049, 0.001), (5000, 0.001),
    ],
)  # fmt: skip
def test_recipe_of_method_md(step, expected):
    rate = learning_rate(0.1, RECIPE, steps_per_epoch=7)
    assert float(rate(step)) == pytest.approx(expected)
    assert float(jax.jit(rate)(jnp.int32(step))) == pytest.approx(expected)


def test_one_epoch_of_warm_up_rises_within_it():
    rate = learning_rate(1.0, Schedule(num_epochs=2, warmup_epochs=1, boundaries=(1,), factors=(0.5,)), 4)
    assert [float(rate(step)) for step in range(8)] == [0.25, 0.5, 0.75, 1, 0.5, 0.5, 0.5, 0.5]


def test_a_boundary_within_warm_up_and_a_run_that_ends_in_it():
    schedule = Schedule(num_epochs=3, warmup_epochs=4, boundaries=(1,), factors=(0.5,))
    rates = [float(learning_rate(1.0, schedule, 2)(step)) for step in range(6)]
    assert rates == [1 / 8, 2 / 8, 3 / 16, 4 / 16, 5 / 16, 6 / 16]


def test_rate_stays_after_the_last_epoch_and_without_warm_up():
    rate = learning_rate(1.0, Schedule(num_epochs=2, warmup_epochs=0, boundaries=(1,), factors=(0.5,)), 3)
    assert [float(rate(step)) for step in (0, 2, 3, 5, 6, 100)] == [1, 1, 0.5, 0.5, 0.5, 0.5]


def test_updates_follow_the_warm_up_from_the_first_step_on():
    """Of plain gradient descent, an update is the rate of its step times the gradient."""
    plain = SGD.model_copy(update={"momentum": 0.0, "backbone_weight_decay": 0.0, "head_weight_decay": 0.0})
    tx = make_optimizer(plain, Schedule(num_epochs=1, warmup_epochs=1, boundaries=(), factors=()), steps_per_epoch=4)
    state, ones = tx.init(PARAMS), jax.tree.map(jnp.ones_like, PARAMS)
    for share in (0.25, 0.5, 0.75, 1.0):
        updates, state = tx.update(ones, state, PARAMS)
        for group, base in (("backbone", 0.01), ("sdce", 0.03), ("head", 0.1)):
            for leaf in jax.tree.leaves(updates[group]):
                np.testing.assert_allclose(leaf, -base * share, rtol=1e-6)


PARAMS = {
    "backbone": {"conv1": {"kernel": jnp.array([1.0, -2.0])}},
    "sdce": {"embed": {"kernel": jnp.array([[-1.5]]), "bias": jnp.array([0.7])}},
    "head": {"classifier": {"kernel": jnp.array([3.0])}, "neck": {"scale": jnp.array([0.5])}},
}
ONE_EPOCH = Schedule(num_epochs=1, warmup_epochs=0, boundaries=(), factors=())


def run_updates(settings: Optimizer, num_steps: int):
    tx = make_optimizer(settings, ONE_EPOCH, steps_per_epoch=100)
    params, state = PARAMS, tx.init(PARAMS)
    for step in range(num_steps):
        gradients = jax.tree.map(lambda p, step=step: 0.1 * p + 0.01 * (step + 1), params)
        updates, state = jax.jit(tx.update)(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


# Per group: rate, weight decay in the gradient, decoupled weight decay of kernels.
BY_HAND = {"backbone": (0.01, 5e-4, 0.0), "sdce": (0.03, 0.0, 0.2), "head": (0.1, 1e-3, 0.0)}


def sgd_by_hand(p, rate, coupled, decoupled, num_steps):
    """torch.optim.SGD(nesterov=True, weight_decay) as its documentation writes it, with AdamW's decay beside it."""
    buffer = 0.0
    for step in range(num_steps):
        g = 0.1 * p + 0.01 * (step + 1) + coupled * p
        buffer = 0.9 * buffer + g
        p = p - rate * (g + 0.9 * buffer + decoupled * p)
    return p


def adam_by_hand(p, rate, coupled, decoupled, num_steps):
    """torch.optim.Adam(weight_decay) and AdamW as their documentation writes them."""
    m = v = 0.0
    for step in range(num_steps):
        g = 0.1 * p + 0.01 * (step + 1) + coupled * p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        update = (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
        p = p - rate * (update + decoupled * p)
    return p


RULES = {"sgd": sgd_by_hand, "adam": adam_by_hand}


@pytest.mark.versions
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("enhancement_name", RULES)
def test_updates_and_groups_against_numpy(name, enhancement_name):
    changes = {"name": name, "enhancement_name": enhancement_name}
    changes |= {"enhancement_weight_decay": 0.2, "head_weight_decay": 1e-3}
    params = run_updates(SGD.model_copy(update=changes), 5)
    for group, (rate, coupled, decoupled) in BY_HAND.items():
        rule = RULES[enhancement_name if group == "sdce" else name]
        leaves = jax.tree_util.tree_leaves_with_path(PARAMS[group])
        for (path, before), after in zip(leaves, jax.tree.leaves(params[group]), strict=True):
            own = decoupled if path[-1].key == "kernel" else 0.0  # biases and scales are left alone
            expected = rule(np.asarray(before, np.float64), rate, coupled, own, 5)
            np.testing.assert_allclose(after, expected, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_a_zero_gradient_moves_no_weight_of_the_enhancement(name):
    """What lies behind a closed gate stays what it is, whatever the decay; L2 within Adam would shrink it."""
    changes = {"name": name, "enhancement_name": name, "enhancement_weight_decay": 0.5}
    tx = make_optimizer(SGD.model_copy(update=changes), ONE_EPOCH, steps_per_epoch=100)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(5):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
    for before, after in zip(jax.tree.leaves(PARAMS["sdce"]), jax.tree.leaves(params["sdce"]), strict=True):
        np.testing.assert_array_equal(before, after)
    assert float(params["backbone"]["conv1"]["kernel"][0]) < 1  # as in the recipes that the field shares


def test_groups():
    enhancement = {"mpfr", "sdce", "projection", "gate", "control"}
    groups = group_of_parameters(dict.fromkeys([*enhancement, "backbone", "head", "guide_head"], 0))
    assert {name for name, group in groups.items() if group == "enhancement"} == enhancement
    assert (groups["backbone"], groups["head"], groups["guide_head"]) == ("backbone", "head", "head")
