"""Grad-CAM of a pair, beside a second formula in float64 that is differentiated by finite differences, and by hand."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import icre_jax
from icre_jax.engine.forward import embed_step
from icre_jax.engine.saliency import explain_maps, explain_pairs, look_step
from icre_jax.engine.state import create_state
from icre_jax.errors import InputError
from icre_jax.figures.heat import lay_over
from icre_jax.models.head import Head
from icre_jax.models.network import ReIDNetwork, build_network
from icre_jax.models.resnet import DualStreamResNet
from icre_jax.settings import parse

B, H, W, D = 2, 3, 2, 4


def head_of(neck: dict[str, np.ndarray], join: str, p: float):
    """A network of which nothing but what follows the maps is there."""
    network = ReIDNetwork(backbone=DualStreamResNet(depth=18), head=Head(3), join=join, gem_p=p)
    size = len(neck["scale"])
    params = {"neck": {"scale": neck["scale"]}, "classifier": {"kernel": np.zeros((size, 3), np.float32)}}
    stats = {"neck": {"mean": neck["mean"], "var": neck["var"]}}
    return network, {"params": {"head": params}, "batch_stats": {"head": stats}}


def similarity_in_float64(first, second, neck, join, p):
    """Of one pair; each of the two is (map,) or (F4, Delta), [h, w, D]."""

    def embed(maps):
        f = np.mean(np.maximum(maps[0], 1e-6) ** p, axis=(0, 1)) ** (1 / p)
        if len(maps) == 2:
            added = maps[1].mean(axis=(0, 1))
            f = f + added if join == "vector" else np.concatenate([f, added])
        return (f - neck["mean"]) / np.sqrt(neck["var"] + 1e-5) * neck["scale"]

    a, b = embed(first), embed(second)
    return a @ b / np.sqrt((a @ a) * (b @ b))


def heat_by_finite_differences(first, second, neck, join, p, step=1e-6):
    """Of the first image."""
    total = 0.0
    for which, values in enumerate(first):
        slope = np.zeros_like(values)
        for place in np.ndindex(values.shape):
            moved = []
            for sign in (1, -1):
                changed = [x.copy() for x in first]
                changed[which][place] += sign * step
                moved.append(similarity_in_float64(changed, second, neck, join, p))
            slope[place] = (moved[0] - moved[1]) / (2 * step)
        total = total + (slope.mean(axis=(0, 1)) * values).sum(axis=-1)
    return np.maximum(total, 0)


@pytest.mark.parametrize(("join", "num_maps"), [("map", 1), ("vector", 2), ("concat", 2), ("vector", 1)])
def test_grad_cam_is_what_finite_differences_say(join, num_maps):
    rng = np.random.default_rng(0)
    size = 2 * D if join == "concat" else D
    neck = {
        "scale": rng.uniform(0.5, 1.5, size).astype(np.float32),
        "mean": rng.normal(0, 0.3, size).astype(np.float32),
        "var": rng.uniform(0.5, 2, size).astype(np.float32),
    }
    # Away from GeM's clip, where there is no slope to be compared.
    maps = rng.uniform(0.1, 2, (2, num_maps, B, H, W, D))
    maps[:, 1:] -= 1
    network, variables = head_of(neck, join, 3.0)
    first, second = (tuple(jnp.asarray(x, jnp.float32) for x in side) for side in maps)
    similarity, heat = explain_maps(variables, first, second, network=network)
    assert heat.shape == (2, B, H, W)
    assert np.asarray(heat).max() > 1e-3
    for i in range(B):
        one, other = ([x[i] for x in side] for side in maps)
        np.testing.assert_allclose(similarity[i], similarity_in_float64(one, other, neck, join, 3.0), rtol=1e-5)
        for side, pair in enumerate(((one, other), (other, one))):
            expected = heat_by_finite_differences(*pair, neck, join, 3.0)
            np.testing.assert_allclose(heat[side, i], expected, rtol=1e-3, atol=2e-6)


def test_by_hand():
    # Average pooling and a neck that changes nothing: f1 = (1, 1), f2 = (1, 0), s = 1 / sqrt(2), and
    # ds/df1 = (f2 - s f1 / |f1|) / |f1| = (1, -1) / (2 sqrt(2)). A place has half of that, in channel 0 the left one
    # alone: the right one holds 0, below GeM's clip. alpha_0 = 1 / (8 sqrt(2)), and the left place holds 2.
    neck = {"scale": np.ones(2, np.float32), "mean": np.zeros(2, np.float32), "var": np.full(2, 1 - 1e-5, np.float32)}
    network, variables = head_of(neck, "map", 1.0)
    first = (jnp.array([[[[2.0, 0.0], [0.0, 2.0]]]]),)
    second = (jnp.array([[[[2.0, 0.0], [0.0, 0.0]]]]),)
    similarity, heat = explain_maps(variables, first, second, network=network)
    np.testing.assert_allclose(similarity, [0.5**0.5], rtol=1e-5)
    np.testing.assert_allclose(heat[0], [[[1 / (4 * 2**0.5), 0.0]]], atol=1e-6)
    np.testing.assert_allclose(heat[1], [[[0.0, 0.0]]], atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(
    ("join", "placement"),
    [("map", "after_layer4"), ("vector", "after_layer4"), ("concat", "after_layer4"), ("map", "before_layer4")],
)
def test_the_pooled_maps_decide_the_embedding_and_maps_have_their_shapes(config, join, placement):
    config.model.enhancement.update(join=join, placement=placement, gate_init=0.5)
    config.model.last_stride = 2  # layer3 and layer4 are of different sizes
    settings = parse(config)
    network = build_network(settings, 5)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 32, 3), np.uint8)
    variables = create_state(jnp.int32(0), network=network, tx=optax.identity(), image_size=(64, 32)).variables
    seen = look_step(variables, images, network=network, modality="visible")
    assert len(seen["pooled"]) == (1 if join == "map" else 2)
    z = network.apply(variables, *seen["pooled"], method="embed_maps")
    expected = embed_step(variables, images, network=network, modality="visible")
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)
    places = (4, 2) if placement == "before_layer4" else (2, 1)
    assert seen["masks"].shape == (2, *places, 3)
    for attention in seen["attention"].values():
        assert attention.shape == (2, 2, *places, *places)
        np.testing.assert_allclose(attention.sum(axis=(-2, -1)), 1, rtol=1e-5)
    (one,) = explain_pairs(variables, images[:1], images[1:], network=network, modalities=("visible", "visible"))
    a, b = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    assert one.similarity == pytest.approx(float(a @ b), abs=1e-5)


@pytest.fixture(scope="module")
def net():
    return icre_jax.load("synthetic")


def test_of_a_loaded_network(net):
    query, candidate = np.random.default_rng(0).integers(0, 256, (2, 128, 64, 3), np.uint8)
    seen = net.explain(query, candidate)
    vectors = [net.embed([query], modality="infrared")[0], net.embed([candidate], modality="visible")[0]]
    assert seen.similarity == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
    assert (seen.heat.shape, seen.images.shape) == ((2, 8, 4), (2, 128, 64, 3))
    assert seen.heat.min() >= 0
    other_way = net.explain(candidate, query, modalities=("visible", "infrared"))
    np.testing.assert_allclose(other_way.heat, seen.heat[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("modalities", "words"),
    [(("infrared", "thermal"), "modality is 'thermal'; allowed"), ("visible", "one for each of the two images")],
)
def test_modalities_that_are_none(net, modalities, words):
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(InputError, match=words):
        net.explain(image, image, modalities=modalities)


def test_an_image_that_cannot_be_used_is_named(net):
    with pytest.raises(InputError, match="no such file"):
        net.explain("nowhere.png", np.zeros((8, 8, 3), np.uint8))


def test_heat_over_an_image():
    image = np.full((4, 2, 3), 100, np.uint8)
    heat = np.array([[0.0], [1.0]])
    shown = lay_over(image, heat, strength=1.0)
    assert shown.dtype == np.uint8
    # From the darkest colour of the scale, nearly black, to the brightest.
    assert shown[0].max() < 10
    assert shown[-1, :, :2].min() > 240
    np.testing.assert_array_equal(lay_over(image, heat, strength=0.0), image)
    np.testing.assert_array_equal(lay_over(image, np.zeros((2, 1)), strength=1.0)[:, :, 0], 0)
    # On one scale the same value is the same colour.
    half = lay_over(image, heat / 2, high=1.0, strength=1.0)
    assert half[-1, 0].sum() < shown[-1, 0].sum()
