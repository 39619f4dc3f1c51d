"""A part taken out of a trained network: by a change of its weights, against the network built without the part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import synthetic
from icre_jax.models import removal
from icre_jax.models.network import build_network
from icre_jax.settings import parse


def settings_of(variant="", **changes):
    config = synthetic.get_config(variant)
    config.model.width = 8
    config.model.mpfr.channels = config.model.sdce.width = 16
    for name, value in changes.items():
        group, field = name.split("__")
        config.model[group][field] = value
    return parse(config)


def make(settings, seed=0):
    """A network with weights and statistics that no part of it is at rest with."""
    network = build_network(settings, num_classes=5)
    images = jax.random.normal(jax.random.key(1), (6, 32, 16, 3))
    shapes = jax.eval_shape(lambda k: network.init(k, images, modality="paired", train=True), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(path, x):
        spread = 1.0 / np.sqrt(np.prod(x.shape[:-1])) if len(x.shape) > 1 else 0.2
        centre = 1.0 if path[-1].key in ("scale", "var") else 0.0
        return jnp.asarray(centre + np.clip(spread * rng.standard_normal(x.shape), -0.8, 0.8), jnp.float32)

    return network, jax.tree_util.tree_map_with_path(draw, shapes), images


def call(network, variables, images):
    return jax.jit(lambda v: network.apply(v, images, modality="paired", train=False))(variables)


@pytest.mark.parametrize(
    ("variant", "changes", "parts"),
    [
        ("", {}, list(removal.PARTS)),
        ("", {"enhancement__placement": "before_layer4"}, list(removal.PARTS)),
        ("", {"enhancement__join": "vector"}, list(removal.PARTS)),
        ("", {"sdce__self_attention": False}, [part for part in removal.PARTS if part != "self_attention"]),
        ("mpfr", {}, ["masks", "guide", "gate", "enhancement"]),
        ("sdce", {}, [part for part in removal.PARTS if part != "masks"]),
        ("local", {}, ["gate", "enhancement"]),
        ("offset", {}, ["enhancement"]),
        ("baseline", {}, []),
    ],
)
def test_every_part_changes_what_a_network_says_and_its_shapes_stay(variant, changes, parts):
    network, variables, images = make(settings_of(variant, **changes))
    assert removal.parts_of(variables["params"]) == parts
    full = call(network, variables, images)[0]["embeddings"]
    for part in parts:
        reduced = removal.without(variables, part)
        assert jax.tree.map(jnp.shape, reduced) == jax.tree.map(jnp.shape, variables)
        moved = np.abs(call(network, reduced, images)[0]["embeddings"] - full).max()
        assert moved > 1e-4, f"{part} can be taken out and nothing changes"
    for part in set(removal.PARTS) - set(parts):
        with pytest.raises(ValueError, match="has no"):
            removal.without(variables, part)


@pytest.mark.parametrize("step", ["cross_attention", "self_attention", "refinement"])
def test_without_a_step_it_is_the_network_that_never_had_it(step):
    network, variables, images = make(settings_of())
    bare = network.clone(sdce=network.sdce.clone(**{step: False}))
    outputs = call(network, removal.without(variables, step), images)[0]
    expected = call(bare, variables, images)[0]
    np.testing.assert_allclose(outputs["embeddings"], expected["embeddings"], rtol=1e-4, atol=1e-5)


def test_without_the_enhancement_it_is_the_baseline_and_without_the_gate_an_offset():
    network, variables, images = make(settings_of())
    plain = build_network(settings_of("baseline"), num_classes=5)
    shared = {kind: {name: tree[name] for name in ("backbone", "head")} for kind, tree in variables.items()}
    outputs, _ = call(network, removal.without(variables, "enhancement"), images)
    expected, _ = call(plain, shared, images)
    np.testing.assert_allclose(outputs["embeddings"], expected["embeddings"], rtol=1e-4, atol=1e-5)
    _, maps = call(network, removal.without(variables, "gate"), images)
    added = np.asarray(maps["enhanced"] - maps["stages"]["layer4"])
    np.testing.assert_allclose(
        added, np.broadcast_to(variables["params"]["sdce"]["gate"]["bn"]["bias"], added.shape), atol=1e-5
    )


def test_flat_masks_and_a_constant_map():
    network, variables, images = make(settings_of())
    _, maps = call(network, removal.without(variables, "guide"), images)
    np.testing.assert_allclose(np.ptp(np.asarray(maps["guide"]), axis=(0, 1, 2)), 0, atol=1e-6)
    full, (_, flat) = call(network, variables, images)[1], call(network, removal.without(variables, "masks"), images)
    masks = np.asarray(flat["masks"])
    np.testing.assert_allclose(np.ptp(masks, axis=(0, 1, 2)), 0, atol=1e-6)
    assert np.asarray(full["masks"]).std(axis=(0, 1, 2)).max() > 1e-3


def test_flat_masks_have_the_level_of_a_usual_one():
    """Of T = ReLU(BN(x)) with normal x the expected score is exact; drawn here by the hundred thousand."""
    rng = np.random.default_rng(0)
    scale, bias = rng.normal(0, 1, 6), rng.normal(0, 1, 6)
    kernel, offset = rng.normal(0, 1, (6, 1)), np.array([0.3])
    drawn = np.maximum(rng.standard_normal((400_000, 6)) * scale + bias, 0)
    variables = {
        "params": {
            "mpfr": {
                "projection_1": {"bn": {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}},
                "mask_1": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(offset)},
            }
        }
    }
    mask = removal.without(variables, "masks")["params"]["mpfr"]["mask_1"]
    assert not np.any(mask["kernel"])
    np.testing.assert_allclose(mask["bias"], (drawn @ kernel).mean() + offset, atol=0.02)


def test_an_unknown_part():
    with pytest.raises(ValueError, match=r"part is 'nose'; allowed are masks, guide"):
        removal.without({"params": {}}, "nose")
