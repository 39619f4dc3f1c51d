"""The network: parameter counts from outside, shapes, stems, precision, the head by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import synthetic
from icre_jax.engine.state import num_parameters
from icre_jax.models.head import Head, gem_pool
from icre_jax.models.network import ReIDNetwork, build_network
from icre_jax.models.pooling import max_pool
from icre_jax.models.resnet import NUM_BLOCKS, DualStreamResNet
from icre_jax.settings import parse

# torchvision's totals for 1000 classes, minus fc, plus a second stem (conv1 3 * 64 * 49, bn1 2 * 64).
STEM = 3 * 64 * 49 + 2 * 64
KNOWN_TOTALS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160}
KNOWN_FC = {18: 513_000, 34: 513_000, 50: 2_049_000, 101: 2_049_000}


def shapes_of(module, images, **kwargs):
    return jax.eval_shape(lambda key: module.init(key, images, train=False, **kwargs), jax.random.key(0))


@pytest.mark.versions
@pytest.mark.parametrize("depth", NUM_BLOCKS)
def test_parameter_count_is_torchvisions_plus_one_stem(depth):
    backbone = DualStreamResNet(depth=depth)
    shapes = shapes_of(backbone, jnp.zeros((2, 64, 32, 3)), modality="paired")
    assert num_parameters(shapes["params"]) == KNOWN_TOTALS[depth] - KNOWN_FC[depth] + STEM


def test_one_modality_stores_one_stem():
    shapes = shapes_of(DualStreamResNet(depth=50), jnp.zeros((1, 64, 32, 3)), modality="visible")
    assert num_parameters(shapes["params"]) == 25_557_032 - 2_049_000
    assert "infrared_stem" not in shapes["params"]


def test_layer_names_are_torchvisions():
    shapes = shapes_of(DualStreamResNet(depth=50), jnp.zeros((2, 64, 32, 3)), modality="paired")["params"]
    assert set(shapes) == {"visible_stem", "infrared_stem", "layer1", "layer2", "layer3", "layer4"}
    assert set(shapes["layer1"]) == {"0", "1", "2"}
    assert set(shapes["layer1"]["0"]) == {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample"}
    assert set(shapes["layer1"]["1"]) == {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3"}
    assert set(shapes["layer1"]["0"]["downsample"]) == {"0", "1"}
    assert shapes["layer4"]["0"]["conv2"]["kernel"].shape == (3, 3, 512, 512)


@pytest.mark.parametrize(
    ("depth", "last_stride", "channels", "rows"), [(50, 1, 2048, 24), (50, 2, 2048, 12), (18, 1, 512, 24)]
)
def test_stage_shapes_at_384x144(depth, last_stride, channels, rows):
    backbone = DualStreamResNet(depth=depth, last_stride=last_stride)

    def run(key):
        images = jnp.zeros((2, 384, 144, 3))
        return backbone.init_with_output(key, images, modality="paired", train=False)[0]

    maps = jax.eval_shape(run, jax.random.key(0))
    assert maps["layer1"].shape == (2, 96, 36, channels // 8)
    assert maps["layer2"].shape == (2, 48, 18, channels // 4)
    assert maps["layer3"].shape == (2, 24, 9, channels // 2)
    assert maps["layer4"].shape[:2] == (2, rows)
    assert maps["layer4"].shape[3] == channels


@pytest.fixture(scope="module")
def small():
    network = ReIDNetwork(DualStreamResNet(depth=18, width=8), Head(num_classes=5))
    images = jax.random.normal(jax.random.key(1), (6, 32, 16, 3))
    variables = network.init(jax.random.key(0), images, modality="paired", train=True)
    # Statistics other than 0 and 1, and other in the two stems.
    noise = jax.random.uniform(jax.random.key(2), (2000,), minval=-0.1, maxval=0.1)
    stats = jax.tree.map(lambda x: noise[: x.size].reshape(x.shape) + x, variables["batch_stats"])
    return network, {"params": variables["params"], "batch_stats": stats}, images


@pytest.mark.versions
def test_one_modality_gives_the_rows_of_the_joint_call(small):
    network, variables, images = small
    joint, _ = network.apply(variables, images, modality="paired", train=False)
    visible, _ = network.apply(variables, images[0::2], modality="visible", train=False)
    infrared, _ = network.apply(variables, images[1::2], modality="infrared", train=False)
    for name, rows in joint.items():
        np.testing.assert_allclose(visible[name], rows[0::2], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(infrared[name], rows[1::2], rtol=1e-5, atol=1e-6)
    # The stems differ, so that swapping them would be seen.
    swapped, _ = network.apply(variables, images[0::2], modality="infrared", train=False)
    assert float(jnp.abs(swapped["features"] - visible["features"]).max()) > 1e-3


def test_training_updates_both_stems_and_the_neck(small):
    network, variables, images = small
    _, updated = network.apply(variables, images, modality="paired", train=True, mutable=["batch_stats"])
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), variables["batch_stats"], updated["batch_stats"])
    assert all(jax.tree.leaves(changed))


def test_bfloat16_computes_low_and_stores_high(small):
    network, variables, images = small
    low = ReIDNetwork(network.backbone.clone(dtype=jnp.bfloat16), network.head)
    outputs, intermediates = low.apply(variables, images, modality="paired", train=False)
    assert intermediates["stages"]["layer4"].dtype == jnp.bfloat16
    assert all(value.dtype == jnp.float32 for value in outputs.values())
    created = low.init(jax.random.key(0), images, modality="paired", train=True)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(created))
    exact, _ = network.apply(variables, images, modality="paired", train=False)
    np.testing.assert_allclose(outputs["features"], exact["features"], rtol=0.1, atol=0.05)


def test_wrong_calls_are_refused(small):
    network, variables, images = small
    with pytest.raises(ValueError, match="thermal"):
        network.apply(variables, images, modality="thermal", train=False)
    with pytest.raises(ValueError, match="5"):
        network.apply(variables, images[:5], modality="paired", train=False)


def test_max_pool_by_hand():
    x = -jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)  # negative: padding with zeros would win
    np.testing.assert_array_equal(max_pool(x)[0, :, :, 0], [[-1, -2], [-5, -6]])


def test_gem_pool_by_hand():
    x = jnp.array([[1.0, 2.0], [3.0, -4.0]]).reshape(1, 2, 2, 1)
    expected = ((1 + 8 + 27 + 1e-18) / 4) ** (1 / 3)
    np.testing.assert_allclose(gem_pool(x)[0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(gem_pool(jnp.abs(x), p=1.0)[0, 0], 2.5, rtol=1e-6)
    assert np.isfinite(jax.grad(lambda y: gem_pool(y).sum())(jnp.zeros((1, 2, 2, 3)))).all()


@pytest.mark.versions
def test_head_against_numpy():
    head = Head(num_classes=3)
    x = gem_pool(jax.random.uniform(jax.random.key(0), (4, 2, 3, 5)))
    variables = head.init(jax.random.key(1), x, train=True)
    assert set(variables["params"]["neck"]) == {"scale"}  # no bias
    assert set(variables["params"]["classifier"]) == {"kernel"}
    outputs, _ = head.apply(variables, x, train=True, mutable=["batch_stats"])
    features = np.asarray(x, np.float64)
    embeddings = (features - features.mean(axis=0)) / np.sqrt(features.var(axis=0) + 1e-5)
    logits = embeddings @ np.asarray(variables["params"]["classifier"]["kernel"], np.float64)
    np.testing.assert_allclose(outputs["features"], features, rtol=1e-5)
    np.testing.assert_allclose(outputs["embeddings"], embeddings, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(outputs["logits"], logits, rtol=1e-3, atol=1e-5)


def test_the_necks_scale_starts_at_one_or_around_it():
    """AGW draws it from N(1, 0.01); the classifier is N(0, 0.001) in every network."""
    x = jnp.ones((2, 4000))
    plain, drawn = (
        Head(num_classes=50, neck_init_std=std).init(jax.random.key(0), x, train=True)["params"] for std in (0.0, 0.01)
    )
    np.testing.assert_array_equal(plain["neck"]["scale"], np.ones(4000))
    scale, kernel = (np.asarray(drawn[name][array]) for name, array in (("neck", "scale"), ("classifier", "kernel")))
    assert np.mean(scale) == pytest.approx(1, abs=1e-3)
    assert np.std(scale) == pytest.approx(0.01, rel=0.05)
    assert (np.mean(kernel), np.std(kernel)) == (pytest.approx(0, abs=1e-5), pytest.approx(0.001, rel=0.02))
    np.testing.assert_array_equal(kernel, plain["classifier"]["kernel"])


def test_classifier_starts_small():
    head = Head(num_classes=400)
    kernel = head.init(jax.random.key(1), jnp.ones((2, 512)), train=True)["params"]["classifier"]["kernel"]
    assert abs(float(kernel.std()) - 0.001) < 5e-5


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.long)])
def test_blocks_computed_again_give_the_same_gradient_and_statistics(depth):
    plain = DualStreamResNet(depth=depth, width=8, non_local_blocks=(0, 1, 0, 0))
    saving = plain.clone(remat=True)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((8, 64, 32, 3)), jnp.float32)
    variables = plain.init(jax.random.key(0), images, modality="paired", train=True)
    # The same tree: a checkpoint of the one is one of the other.
    again = shapes_of(saving, images, modality="paired")
    assert jax.tree.structure(again) == jax.tree.structure(variables)

    def make(backbone):
        def loss(params):
            maps, updated = backbone.apply(
                {"params": params, "batch_stats": variables["batch_stats"]},
                images,
                modality="paired",
                train=True,
                mutable=["batch_stats"],
            )
            return (maps["layer4"] ** 2).mean(), updated

        lowered = jax.jit(jax.grad(loss, has_aux=True)).lower(variables["params"])
        return lowered.compile({"xla_backend_optimization_level": 1})  # compiles in half the time

    programs = make(plain), make(saving)
    expected, found = (program(variables["params"]) for program in programs)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(a).max()))
    before, after = (program.cost_analysis()["flops"] for program in programs)
    assert after > 1.1 * before  # they are computed again
    before, after = (program.memory_analysis().temp_size_in_bytes for program in programs)
    assert after < 0.75 * before  # and not at once


def test_a_network_computed_again_gives_the_same_gradient_maps_and_statistics():
    small = parse(synthetic.get_config())
    images = jnp.asarray(np.random.default_rng(0).standard_normal((8, 64, 32, 3)), jnp.float32)
    plain, saving = (
        build_network(
            small.model_copy(update={"model": small.model.model_copy(update={"width": 8, "remat": remat})}), 5
        )
        for remat in (False, True)
    )
    rng = np.random.default_rng(1)
    # No scale is zero, as that of a gate may be at first: every part has a gradient.
    variables = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.1, x.shape) if x.ndim > 1 else rng.uniform(0.5, 1.5, x.shape), x.dtype),
        jax.eval_shape(lambda key: plain.init(key, images, modality="paired", train=True), jax.random.key(0)),
    )

    def make(network):
        def loss(params):
            (outputs, maps), updated = network.apply(
                variables | {"params": params}, images, modality="paired", train=True, mutable=["batch_stats"]
            )
            return sum((value**2).mean() for value in outputs.values()), (updated, maps)

        lowered = jax.jit(jax.grad(loss, has_aux=True)).lower(variables["params"])
        return lowered.compile({"xla_backend_optimization_level": 1})  # compiles in half the time

    programs = make(plain), make(saving)
    expected, found = (program(variables["params"]) for program in programs)
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    # Of a bias in front of a BatchNorm the gradient is rounding alone.
    rounding = 1e-6 * max(float(jnp.abs(a).max()) for a in jax.tree.leaves(expected[0]))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.abs(a).max()) + rounding)
    before, after = (program.memory_analysis().temp_size_in_bytes for program in programs)
    assert after < 0.85 * before
