"""Where and how the enhancement joins: each switch of `model.enhancement`, by what it must and must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, synthetic
from icre_jax.errors import InputError
from icre_jax.models.head import gem_pool
from icre_jax.models.network import build_network
from icre_jax.models.sdce import positions
from icre_jax.settings import parse


def small(variant="", **enhancement):
    config = synthetic.get_config(variant)
    config.model.width = 8
    config.model.mpfr.channels = config.model.sdce.width = 16
    config.model.enhancement.update(enhancement)
    return config


def build(config, *, train=False, change=None):
    """Outputs and maps of the first weights (changed, if asked), on one batch of three pairs."""
    network = build_network(parse(config), num_classes=5)
    images = jax.random.normal(jax.random.key(1), (6, 64, 32, 3))
    start = jax.jit(lambda key: network.init(key, images, modality="paired", train=True))
    variables = start(jax.random.key(0))
    if change is not None:
        variables = {**variables, "params": change(variables["params"])}

    def call(variables):
        if not train:
            return network.apply(variables, images, modality="paired", train=False)
        return network.apply(variables, images, modality="paired", train=True, mutable=["batch_stats"])[0]

    return *jax.jit(call)(variables), variables["params"]


@pytest.mark.parametrize("variant", ["", "mpfr", "sdce", "local"])
@pytest.mark.parametrize("gate_init", [0.0, 0.3])
def test_the_gate_starts_where_it_is_told(variant, gate_init):
    _, maps, params = build(small(variant, gate_init=gate_init), train=True)
    gate = {"": ("sdce", "gate"), "mpfr": ("gate",), "sdce": ("sdce", "gate"), "local": ("control", "gate")}[variant]
    for name in gate:
        params = params[name]
    np.testing.assert_array_equal(params["bn"]["scale"], jnp.full(64, gate_init))
    added = np.asarray(maps["enhanced"] - maps["stages"]["layer4"])
    # BatchNorm's output has a standard deviation of its scale, up to its epsilon and channels that are constant.
    assert added.std() == pytest.approx(gate_init, rel=0.1, abs=1e-6)


def test_the_map_is_pooled_with_what_was_added_or_the_vector_added_to():
    for join in ("map", "vector", "concat"):
        outputs, maps, _ = build(small(gate_init=0.3, join=join))
        deep = maps["stages"]["layer4"]
        added = (maps["enhanced"] - deep).mean(axis=(1, 2))
        expected = {
            "map": gem_pool(maps["enhanced"]),
            "vector": gem_pool(deep) + added,
            "concat": jnp.concatenate([gem_pool(deep), added], axis=1),
        }[join]
        np.testing.assert_allclose(outputs["features"], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outputs["deep_features"], gem_pool(deep), rtol=1e-5)


def test_the_gradient_of_the_vector_has_no_dead_zone():
    """Where F4 + Delta is below zero, GeM's clip gives Delta no gradient; added to the vector it always has one."""
    deep, delta = jnp.array([[1.0, 0.0]]).reshape(1, 1, 2, 1), jnp.array([[0.5, -0.5]]).reshape(1, 1, 2, 1)
    on_map = jax.grad(lambda d: gem_pool(deep + d).sum())(delta)
    on_vector = jax.grad(lambda d: (gem_pool(deep) + d.mean(axis=(1, 2))).sum())(delta)
    assert on_map[0, 0, 1, 0] == 0
    np.testing.assert_allclose(on_vector.ravel(), 0.5)


@pytest.mark.parametrize("variant", ["", "mpfr", "sdce", "local"])
def test_before_layer4_the_rest_of_the_backbone_sees_the_enhancement(variant):
    closed = small(variant, placement="before_layer4", gate_init=0.0)
    outputs, maps, params = build(small(variant, placement="before_layer4", gate_init=0.5))
    plain, plain_maps, _ = build(closed)
    np.testing.assert_array_equal(maps["stages"]["layer3"], plain_maps["stages"]["layer3"])
    assert np.abs(maps["stages"]["layer4"] - plain_maps["stages"]["layer4"]).max() > 1e-3
    np.testing.assert_array_equal(maps["enhanced"], maps["stages"]["layer4"])
    np.testing.assert_array_equal(outputs["features"], outputs["deep_features"])
    # Closed, it is the baseline.
    shared = {name: params[name] for name in ("backbone", "head")}
    baseline, _, _ = build(small("baseline"), change=lambda _: shared)
    np.testing.assert_allclose(plain["features"], baseline["features"], rtol=1e-4, atol=1e-5)


def test_without_cross_attention_nothing_is_made_for_it_to_read():
    config = small("sdce")
    config.model.sdce.cross_attention = False
    outputs, maps, params = build(config)
    assert "projection" not in params
    assert set(maps["attention"]) == {"self"}
    assert np.isfinite(outputs["features"]).all()


def test_the_offset_is_the_same_for_every_image_and_place():
    offset = jnp.linspace(-1, 1, 64)
    _, maps, _ = build(small("offset"), change=lambda params: {**params, "control": {"offset": offset}})
    added = maps["enhanced"] - maps["stages"]["layer4"]
    np.testing.assert_allclose(added, np.broadcast_to(offset, added.shape), atol=1e-5)


def test_positions_tell_every_place_from_every_other():
    for channels in (16, 18, 512):
        table = positions(24, 9, channels)
        assert (table.shape, table.dtype) == ((216, channels), np.float32)
        distances = np.linalg.norm(table[:, None] - table[None], axis=-1)
        assert distances[~np.eye(216, dtype=bool)].min() > 0.1
        assert np.abs(table).max() <= 1


def test_without_positions_attention_does_not_know_places():
    """Tokens in another order give the same tokens in that order; with positions they do not."""
    moved = {}
    for kind in ("none", "sine", "tokens"):
        config = small(gate_init=0.5)
        config.model.sdce.positions = kind
        network = build_network(parse(config), num_classes=5)
        deep, guide = (jax.random.normal(jax.random.key(i), (2, 4, 2, size)) for i, size in ((1, 64), (2, 16)))
        variables = network.sdce.init(jax.random.key(0), deep, guide, train=False)
        delta, _ = network.sdce.apply(variables, deep, guide, train=False)
        turned, _ = network.sdce.apply(variables, deep[:, ::-1], guide[:, ::-1], train=False)
        moved[kind] = float(np.abs(turned[:, ::-1] - delta).max())
    assert moved["none"] < 1e-5
    assert min(moved["sine"], moved["tokens"]) > 1e-3


def test_positions_in_the_tokens_reach_the_values():
    """Tokens that are all equal are told apart only if what is answered, not just what is asked, knows places."""
    for kind, differ in (("sine", False), ("tokens", True)):
        config = small(gate_init=0.5)
        config.model.sdce.positions = kind
        network = build_network(parse(config), num_classes=5)
        deep, guide = (jnp.ones((1, 4, 2, size)) for size in (64, 16))
        variables = network.sdce.init(jax.random.key(0), deep, guide, train=False)
        delta, _ = network.sdce.apply(variables, deep, guide, train=False)
        assert (float(np.ptp(delta, axis=(1, 2)).max()) > 1e-3) == differ


def test_without_the_residual_sdce_holds_nothing_but_its_values():
    """Other deep features turn the attention alone: with one guide for all tokens they change nothing."""
    moved = {}
    for residual in (True, False):
        config = small(gate_init=0.5)
        config.model.sdce.residual = residual
        network = build_network(parse(config), num_classes=5)
        deep, other = (jax.random.normal(jax.random.key(i), (2, 4, 2, 64)) for i in (1, 2))
        guide = jnp.broadcast_to(jax.random.normal(jax.random.key(3), (2, 1, 1, 16)), (2, 4, 2, 16))
        variables = network.sdce.init(jax.random.key(0), deep, guide, train=False)
        deltas = [network.sdce.apply(variables, x, guide, train=False)[0] for x in (deep, other)]
        moved[residual] = float(np.abs(deltas[0] - deltas[1]).max())
    assert moved[True] > 1e-2
    assert moved[False] < 1e-5


def test_the_classifier_of_the_map_is_for_training_alone():
    config = small()
    config.loss.guide_weight = 0.5
    trained, maps, params = build(config, train=True)
    assert trained["guide_logits"].shape == (6, 5)
    assert set(params) == {"backbone", "mpfr", "sdce", "head", "guide_head"}
    tested, _, _ = build(config)
    assert "guide_logits" not in tested
    plain, _, without = build(small())
    assert "guide_head" not in without
    np.testing.assert_allclose(tested["embeddings"], plain["embeddings"], rtol=1e-4, atol=1e-5)
    pooled = np.asarray(maps["guide"], np.float64).mean(axis=(1, 2))
    neck = (pooled - pooled.mean(axis=0)) / np.sqrt(pooled.var(axis=0) + 1e-5)
    expected = neck @ np.asarray(params["guide_head"]["classifier"]["kernel"], np.float64)
    np.testing.assert_allclose(trained["guide_logits"], expected, rtol=1e-3, atol=1e-5)


OFFSET = {"model.mpfr.enabled": False, "model.sdce.enabled": False, "model.enhancement.control": "offset"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.enhancement.control": "local"}, "stands in the place of MPFR and SDCE"),
        (
            {"model.enhancement.placement": "before_layer4", "model.enhancement.join": "vector"},
            "'vector'; it needs .*after",
        ),
        (
            {"model.enhancement.join": "concat", "loss.icg_form": "guided", "loss.icg_space": "features"},
            "longer than those before",
        ),
        ({"model.enhancement.placement": "before_layer4", "model.mpfr.taps": (2, 3, 4)}, r"Set them to \(1, 2, 3\)"),
        ({"model.enhancement.placement": "before_layer4", "loss.icg_form": "guided"}, "before and after"),
        ({"model.mpfr.enabled": False, "loss.guide_weight": 0.5}, r"guide_weight is 0\.5; it is of MPFR's map"),
        (OFFSET | {"model.enhancement.join": "vector"}, "'offset' with join 'vector'"),
        (OFFSET | {"model.enhancement.join": "concat"}, "'offset' with join 'concat'"),
        (OFFSET | {"model.enhancement.placement": "before_layer4"}, "'offset' with .* placement 'before_layer4'"),
        ({"model.enhancement.gate_init": -0.1}, "gate_init = -0.1"),
        ({"model.sdce.roles": "deep_deep_deep"}, "roles = 'deep_deep_deep': .*'guide_guide_deep'"),
    ],
)
def test_switches_that_do_not_fit_each_other(changes, words):
    config = base.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=words):
        parse(config)
