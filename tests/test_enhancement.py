"""MPFR, SDCE and the non-local block against the equations of docs/method.md, written a second time in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, synthetic
from icre_jax.engine.state import num_parameters
from icre_jax.errors import InputError
from icre_jax.models.layers import pool_to
from icre_jax.models.mpfr import MPFR
from icre_jax.models.network import build_network
from icre_jax.models.non_local import NonLocal
from icre_jax.models.sdce import SDCE
from icre_jax.settings import parse

erf = np.vectorize(math.erf)


def start(module, *arrays, **flags):
    """Initial variables. Compiled as a whole: eagerly, every operation would be compiled by itself."""
    return jax.jit(lambda key: module.init(key, *arrays, **flags))(jax.random.key(0))


def run(module, variables, *arrays, train=True, **flags):
    """What the module returns, without the updated statistics."""

    def call(variables):
        if not train:
            return module.apply(variables, *arrays, train=False, **flags)
        return module.apply(variables, *arrays, train=True, mutable=["batch_stats"], **flags)[0]

    return jax.jit(call)(variables)


def randomised(variables, seed=0):
    """Other values than those of the start, so that no scale is 0 or 1 and no bias is 0."""
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [x + 0.3 * rng.standard_normal(x.shape).astype(np.float32) for x in leaves])


def doubles(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def batch_norm64(x, params):
    """In training: statistics over batch and space."""
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return (x - mean) / np.sqrt(variance + 1e-5) * params["scale"] + params["bias"]


def layer_norm64(x, params):
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * params["scale"] + params["bias"]


def softmax64(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def pool64(x, size):
    """Adaptive average pooling, output by output."""
    out = np.zeros((x.shape[0], *size, x.shape[3]))
    for i in range(size[0]):
        for j in range(size[1]):
            rows = slice(i * x.shape[1] // size[0], math.ceil((i + 1) * x.shape[1] / size[0]))
            columns = slice(j * x.shape[2] // size[1], math.ceil((j + 1) * x.shape[2] / size[1]))
            out[:, i, j] = x[:, rows, columns].mean(axis=(1, 2))
    return out


@pytest.mark.parametrize(("before", "after"), [((8, 4), (4, 2)), ((7, 5), (3, 2)), ((6, 3), (6, 3)), ((9, 4), (2, 4))])
def test_adaptive_pooling(before, after):
    x = np.random.default_rng(0).standard_normal((2, *before, 3))
    np.testing.assert_allclose(pool_to(jnp.asarray(x), after), pool64(x, after), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def stages():
    """Shapes like those of a ResNet-50 of width 4 on 64x40 images: layer1 to layer4."""
    rng = np.random.default_rng(1)
    sizes = {"layer1": (16, 10, 16), "layer2": (8, 5, 32), "layer3": (4, 3, 64), "layer4": (4, 3, 128)}
    return {name: jnp.asarray(rng.standard_normal((4, *size)), jnp.float32) for name, size in sizes.items()}


def mpfr64(stages, params, taps, mask, fusion):
    size = stages["layer4"].shape[1:3]
    scales, scores = [], []
    for tap in taps:
        p = params[f"projection_{tap}"]
        t = np.maximum(batch_norm64(stages[f"layer{tap}"] @ p["conv"]["kernel"][0, 0], p["bn"]), 0)
        scales.append(pool64(t, size))
        scores.append(scales[-1] @ params[f"mask_{tap}"]["kernel"] + params[f"mask_{tap}"]["bias"])
    scores = np.concatenate(scores, axis=-1)
    masks = 1 / (1 + np.exp(-scores)) if mask == "sigmoid" else softmax64(scores)
    masked = [masks[..., i : i + 1] * t for i, t in enumerate(scales)]
    fused = np.concatenate(masked, axis=-1) if fusion == "concat" else masked[0] + masked[1] + masked[2]
    return np.maximum(batch_norm64(fused @ params["fusion"]["kernel"][0, 0], params["fusion_bn"]), 0), masks


@pytest.mark.parametrize("taps", [(1, 2, 3), (2, 3, 4)])
@pytest.mark.parametrize(("mask", "fusion"), [("sigmoid", "concat"), ("softmax", "sum")])
def test_mpfr_against_float64(stages, taps, mask, fusion):
    module = MPFR(channels=6, taps=taps, mask=mask, fusion=fusion)
    variables = randomised(start(module, stages, stages["layer4"], train=True))
    guide, masks = run(module, variables, stages, stages["layer4"])
    expected_guide, expected_masks = mpfr64(doubles(stages), doubles(variables["params"]), taps, mask, fusion)
    assert guide.shape == (4, 4, 3, 6)
    assert masks.shape == (4, 4, 3, 3)
    np.testing.assert_allclose(masks, expected_masks, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(guide, expected_guide, rtol=1e-3, atol=1e-4)
    if mask == "softmax":
        np.testing.assert_allclose(masks.sum(axis=-1), 1, rtol=1e-5)


def test_masks_start_open():
    """Neither all open nor all shut: a saturated mask would not learn."""
    config = parse(base.get_config()).model
    module = MPFR(**config.mpfr.model_dump(exclude={"enabled"}))
    rng = np.random.default_rng(0)
    stages = {f"layer{i}": jnp.asarray(rng.standard_normal((2, 4, 2, 128 * 2**i)), jnp.float32) for i in (1, 2, 3, 4)}
    _, masks = run(module, start(module, stages, stages["layer4"], train=True), stages, stages["layer4"])
    assert 0.3 < float(masks.mean()) < 0.7
    assert float(masks.min()) > 0.02
    assert float(masks.max()) < 0.98


def attention64(queries, keys, values, p):
    """softmax(Q K^T / sqrt(d / heads)) V, head by head."""
    out, maps = 0, []
    for h in range(p["query"]["kernel"].shape[1]):
        q, k, v = (
            x @ p[name]["kernel"][:, h] + p[name]["bias"][h]
            for x, name in ((queries, "query"), (keys, "key"), (values, "value"))
        )
        maps.append(softmax64(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])))
        out = out + maps[-1] @ v @ p["out"]["kernel"][h]
    return out + p["out"]["bias"], np.stack(maps, axis=1)


def gelu64(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def positions64(height, width, channels):
    """Sine and cosine of the row in the first half of the channels, of the column in the second, one by one."""
    table, quarter = np.zeros((height, width, channels)), channels // 4
    for i, j, k in np.ndindex(height, width, quarter):
        frequency = 10_000 ** (-k / quarter)
        for first, place in ((0, i), (channels // 2, j)):
            table[i, j, first + k] = math.sin(place * frequency)
            table[i, j, first + quarter + k] = math.cos(place * frequency)
    return table.reshape(height * width, channels)


def sdce64(deep, guide, p, steps, roles="deep_guide_guide", positions="none"):
    batch, height, width, channels = deep.shape

    def placed(tokens):
        return tokens + (positions64(height, width, tokens.shape[-1]) if positions == "sine" else 0)

    x = deep.reshape(batch, -1, channels) @ p["embed"]["kernel"] + p["embed"]["bias"]
    s = guide.reshape(batch, height * width, -1)
    maps = {}
    if "cross_attention" in steps:
        tokens = {"deep": layer_norm64(x, p["deep_norm"]), "guide": layer_norm64(s, p["guide_norm"])}
        q, k, v = (tokens[name] for name in roles.split("_"))
        y, maps["cross"] = attention64(placed(q), placed(k), v, p["cross_attention"])
        x = x + y
    if "self_attention" in steps:
        normed = layer_norm64(x, p["self_norm"])
        y, maps["self"] = attention64(placed(normed), placed(normed), normed, p["self_attention"])
        x = x + y
    if "refinement" in steps:
        hidden = gelu64(layer_norm64(x, p["mlp_norm"]) @ p["mlp_in"]["kernel"] + p["mlp_in"]["bias"])
        x = x + hidden @ p["mlp_out"]["kernel"] + p["mlp_out"]["bias"]
    x = x.reshape(batch, height, width, -1)
    return batch_norm64(x @ p["gate"]["conv"]["kernel"][0, 0], p["gate"]["bn"]), maps


STEPS = ("cross_attention", "self_attention", "refinement")


@pytest.mark.parametrize(
    ("steps", "how"),
    [
        *[(steps, {}) for steps in (STEPS, STEPS[:1], STEPS[1:2], STEPS[2:], ())],
        (STEPS, {"roles": "guide_deep_deep"}),
        (STEPS, {"roles": "guide_guide_deep", "positions": "sine"}),
        (STEPS, {"positions": "sine"}),
    ],
)
def test_sdce_against_float64(stages, steps, how):
    deep, guide = stages["layer4"], jax.random.normal(jax.random.key(5), (4, 4, 3, 6))
    module = SDCE(width=8, num_heads=2, mlp_ratio=3, **{step: step in steps for step in STEPS}, **how)
    variables = randomised(start(module, deep, guide, train=True))
    delta, maps = run(module, variables, deep, guide)
    expected, expected_maps = sdce64(
        np.asarray(deep, np.float64), np.asarray(guide, np.float64), doubles(variables["params"]), steps, **how
    )
    np.testing.assert_allclose(delta, expected, rtol=1e-3, atol=2e-4)
    assert set(maps) == set(expected_maps)
    for name, values in expected_maps.items():
        assert maps[name].shape == (4, 2, 12, 12)
        np.testing.assert_allclose(maps[name], values, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(maps[name].sum(axis=-1), 1, rtol=1e-5)


def test_sdce_gradient_by_finite_differences(stages):
    deep, guide = stages["layer4"][:2], jax.random.normal(jax.random.key(5), (2, 4, 3, 6))
    module = SDCE(width=8, num_heads=2)
    variables = randomised(start(module, deep, guide, train=True))
    weights = np.random.default_rng(0).standard_normal(deep.shape)

    @jax.jit
    def loss(guide):
        (delta, _), _ = module.apply(variables, deep, guide, train=True, mutable=["batch_stats"])
        return jnp.sum(delta * weights)

    gradient = np.asarray(jax.grad(loss)(guide))
    params, deep64, guide64 = doubles(variables["params"]), *(np.asarray(x, np.float64) for x in (deep, guide))
    for index in [(0, 0, 0, 0), (1, 3, 2, 5), (0, 2, 1, 3)]:
        shift = np.zeros_like(guide64)
        shift[index] = 1e-5
        up, down = ((sdce64(deep64, guide64 + sign * shift, params, STEPS)[0] * weights).sum() for sign in (1.0, -1.0))
        assert gradient[index] == pytest.approx((up - down) / 2e-5, rel=1e-2, abs=1e-3)


def test_attention_stays_inside_one_image(stages):
    deep, guide = stages["layer4"], jax.random.normal(jax.random.key(5), (4, 4, 3, 6))
    module = SDCE(width=8, num_heads=2)
    variables = randomised(start(module, deep, guide, train=False))
    variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    before, _ = run(module, variables, deep, guide, train=False)
    after, _ = run(module, variables, deep, guide.at[2].set(guide[2, ::-1] ** 2), train=False)
    changed = np.abs(np.asarray(after - before)).max(axis=(1, 2, 3))
    assert changed[2] > 1e-3
    np.testing.assert_array_equal(changed[[0, 1, 3]], 0)


@pytest.mark.parametrize("size", [(2, 3), (9, 7)], ids=["fewer tokens than channels", "more"])
@pytest.mark.parametrize(("channels", "inner"), [(None, 5), (1, 1), (3, 3)])
def test_non_local_against_float64(size, channels, inner):
    x = np.random.default_rng(0).standard_normal((2, *size, 10))
    module = NonLocal(channels)
    variables = start(module, jnp.asarray(x), train=True)
    assert variables["params"]["theta"]["kernel"].shape == (1, 1, 10, inner)
    assert variables["params"]["out"]["kernel"].shape == (1, 1, inner, 10)
    unchanged = run(module, variables, jnp.asarray(x))
    np.testing.assert_array_equal(unchanged, np.asarray(x, np.float32))
    variables = randomised(variables)
    actual = run(module, variables, jnp.asarray(x))
    p = doubles(variables["params"])
    theta, phi, g = (x.reshape(2, -1, 10) @ p[n]["kernel"][0, 0] + p[n]["bias"] for n in ("theta", "phi", "g"))
    y = theta @ phi.transpose(0, 2, 1) / (size[0] * size[1]) @ g
    y = (y @ p["out"]["kernel"][0, 0] + p["out"]["bias"]).reshape(x.shape)
    np.testing.assert_allclose(actual, x + batch_norm64(y, p["bn"]), rtol=1e-3, atol=1e-3)


def test_non_local_blocks_start_as_pytorchs_convolutions_do():
    """U(-b, b) with b = 1 / sqrt(inputs), kernels and biases; the BatchNorm at 0."""
    params = start(NonLocal(4), jnp.zeros((2, 2, 2, 400)), train=True)["params"]
    for name, bound in (("theta", 1 / 20), ("phi", 1 / 20), ("g", 1 / 20), ("out", 1 / 2)):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        assert np.abs(kernel).max() <= bound
        assert np.abs(bias).max() <= bound
        assert np.std(kernel) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert np.abs(bias).min() > 0
    assert not np.any(params["bn"]["scale"])
    assert not np.any(params["bn"]["bias"])


def shapes_of(variant, *changes):
    config = base.get_config()
    base.use_variant(config, variant)
    for change in changes:
        change(config)
    network = build_network(parse(config), num_classes=395)
    images = jnp.zeros((2, 384, 144, 3))

    def call(key):
        return network.init_with_output(key, images, modality="paired", train=False)

    (outputs, maps), variables = jax.eval_shape(call, jax.random.key(0))
    return outputs, maps, {name: num_parameters(tree) for name, tree in variables["params"].items()}


def test_parameters_of_mpfr_and_sdce_by_hand():
    _, _, counts = shapes_of("")
    C = d = 512
    projections = sum(c * C + 2 * C + (C + 1) for c in (256, 512, 1024))  # conv, BN, mask with bias
    assert counts["mpfr"] == projections + 3 * C * C + 2 * C == 1_709_571
    attentions = 2 * 4 * (d * d + d)
    mlp = d * 4 * d + 4 * d + 4 * d * d + d
    norms = 4 * 2 * d
    assert counts["sdce"] == (2048 * d + d) + attentions + mlp + norms + (d * 2048 + 2 * 2048) == 6_306_816
    assert (round(counts["mpfr"] / 1e6, 2), round(counts["sdce"] / 1e6, 2)) == (1.71, 6.31)


def test_each_row_of_the_ablation_has_its_parts():
    parts = {
        variant: set(shapes_of(variant)[2])
        for variant in ("baseline", "mpfr", "sdce", "icg", "mpfr_sdce", "offset", "local", "agw")
    }
    assert parts["baseline"] == parts["icg"] == parts["agw"] == {"backbone", "head"}
    assert parts["mpfr"] == {"backbone", "head", "mpfr", "gate"}
    assert parts["sdce"] == {"backbone", "head", "projection", "sdce"}
    assert parts["offset"] == parts["local"] == {"backbone", "head", "control"}
    assert parts["mpfr_sdce"] == {"backbone", "head", "mpfr", "sdce"}
    backbones = [shapes_of(variant)[2]["backbone"] for variant in ("baseline", "agw")]
    non_local = lambda c, inner: 3 * (c * inner + inner) + (inner * c + c) + 2 * c  # noqa: E731
    assert backbones[1] - backbones[0] == 2 * non_local(512, 1) + 3 * non_local(1024, 1)
    of_the_paper = shapes_of("agw", lambda config: config.model.update(non_local_channels=None))[2]["backbone"]
    assert of_the_paper - backbones[0] == 2 * non_local(512, 256) + 3 * non_local(1024, 512)


def test_named_maps():
    outputs, maps, _ = shapes_of("")
    assert {name: value.shape for name, value in outputs.items()} == {
        "features": (2, 2048), "deep_features": (2, 2048), "embeddings": (2, 2048), "logits": (2, 395),
    }  # fmt: skip
    assert set(maps) == {"stages", "masks", "guide", "attention", "delta", "enhanced"}
    assert maps["delta"].shape == maps["enhanced"].shape
    assert maps["masks"].shape == (2, 24, 9, 3)
    assert maps["guide"].shape == (2, 24, 9, 512)
    assert maps["attention"]["cross"].shape == maps["attention"]["self"].shape == (2, 8, 216, 216)
    assert maps["enhanced"].shape == maps["stages"]["layer4"].shape == (2, 24, 9, 2048)


@pytest.fixture(scope="module")
def small_networks():
    """Every variant at the size of the synthetic config, and one batch."""
    networks = {}
    for variant in ("", "baseline", "mpfr", "sdce", "mpfr_sdce", "offset", "local", "agw"):
        config = synthetic.get_config(variant)
        config.model.width = 8
        config.model.enhancement.gate_init = 0.0
        networks[variant] = build_network(parse(config), num_classes=5)
    return networks, jax.random.normal(jax.random.key(1), (6, 32, 16, 3))


@pytest.mark.parametrize("variant", ["", "mpfr", "sdce", "mpfr_sdce", "offset", "local", "agw"])
@pytest.mark.parametrize("train", [True, False])
def test_with_a_closed_gate_every_variant_gives_the_features_of_the_baseline(small_networks, variant, train):
    networks, images = small_networks
    variables = start(networks[variant], images, modality="paired", train=True)
    baseline = start(networks["baseline"], images, modality="paired", train=True)
    # The same weights where both have them.
    shared = jax.tree_util.tree_map_with_path(lambda path, _: _at(variables, path), baseline)
    # Eagerly, so that the compiler has no larger program to round differently in.
    ours, _ = run_eagerly(networks[variant], variables, images, train)
    theirs, _ = run_eagerly(networks["baseline"], shared, images, train)
    for name in ("features", "embeddings", "logits"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_array_equal(ours["deep_features"], ours["features"])


def run_eagerly(network, variables, images, train):
    if not train:
        return network.apply(variables, images, modality="paired", train=False)
    return network.apply(variables, images, modality="paired", train=True, mutable=["batch_stats"])[0]


def _at(tree, path):
    for entry in path:
        tree = tree[entry.key]
    return tree


def test_everything_learns_after_the_first_step(small_networks):
    """With a closed gate only BN0 is moved at first; from then on every weight of MPFR and SDCE has a gradient."""
    networks, images = small_networks
    network = networks[""]
    variables = start(network, images, modality="paired", train=True)
    target = jax.random.normal(jax.random.key(3), (6, 64))

    @jax.jit
    def gradient(params):
        def loss(params):
            variables_now = {"params": params, "batch_stats": variables["batch_stats"]}
            (outputs, _), _ = network.apply(
                variables_now, images, modality="paired", train=True, mutable=["batch_stats"]
            )
            return jnp.sum(outputs["features"] * target)

        return jax.grad(loss)(params)

    def moved(tree):
        return {name for name, x in flat(tree) if np.abs(x).max() > 1e-9 and name.split("/")[0] in ("mpfr", "sdce")}

    first = gradient(variables["params"])
    assert moved(first) == {"sdce/gate/bn/scale", "sdce/gate/bn/bias"}
    stepped = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], first)
    every = {name for name, _ in flat(variables["params"]) if name.split("/")[0] in ("mpfr", "sdce")}
    # A bias on all keys shifts every score of a row alike, and softmax takes that out again.
    assert every - moved(gradient(stepped)) <= {f"sdce/{kind}_attention/key/bias" for kind in ("cross", "self")}


def flat(tree):
    return [
        ("/".join(entry.key for entry in path), np.asarray(x)) for path, x in jax.tree_util.tree_leaves_with_path(tree)
    ]


def test_specific_until_layer1():
    config = synthetic.get_config()
    config.model.width = 8
    config.model.specific_until = "layer1"
    network = build_network(parse(config), num_classes=5)
    images = jax.random.normal(jax.random.key(1), (6, 32, 16, 3))
    variables = start(network, images, modality="paired", train=True)
    names = set(variables["params"]["backbone"])
    assert names == {f"{m}_{part}" for m in ("visible", "infrared") for part in ("stem", "layer1")} | {
        "layer2",
        "layer3",
        "layer4",
    }
    joint, _ = run(network, variables, images, modality="paired", train=False)
    for row, modality in enumerate(("visible", "infrared")):
        alone, _ = run(network, variables, images[row::2], modality=modality, train=False)
        np.testing.assert_allclose(alone["features"], joint["features"][row::2], rtol=1e-4, atol=1e-5)


def test_settings_that_cannot_be_built():
    config = synthetic.get_config()
    config.model.sdce.num_heads = 7
    with pytest.raises(InputError, match=r"sdce.width = \d+ does not divide into model.sdce.num_heads = 7"):
        build_network(parse(config), num_classes=5)
    config = synthetic.get_config("agw")
    config.model.non_local_blocks = (0, 2, 3, 0)
    network = build_network(parse(config), num_classes=5)
    with pytest.raises(InputError, match=r"asks for 3 in layer3, which has 2 blocks in a ResNet-18"):
        jax.eval_shape(
            lambda k: network.init(k, jnp.zeros((2, 32, 16, 3)), modality="paired", train=True), jax.random.key(0)
        )
    config = base.get_config()
    config.model.mpfr.taps = (1, 3, 4)
    config.sampling.num_ids_per_batch = 1
    with pytest.raises(InputError, match=r"taps.*\(1, 2, 3\) or \(2, 3, 4\) is needed"):
        parse(config)
    config.model.mpfr.taps = (2, 3, 4)
    with pytest.raises(InputError, match=r"num_ids_per_batch is 1; .* need 2 or more"):
        parse(config)
