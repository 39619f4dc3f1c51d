"""The stem and the means of blocks in their forms for TPUs, against the forms of other platforms and float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icre_jax.models import pooling
from icre_jax.models.pooling import block_means
from icre_jax.models.stem import Stem, max_of_blocks
from tests.test_convolution import library_pool


def value_and_gradients(stem, variables, images, g):
    """Output, new statistics, gradients of the parameters."""

    def run(params):
        return stem.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])

    y, pull, updated = jax.vjp(run, variables["params"], has_aux=True)
    return y, updated["batch_stats"], pull(g)[0]


def start(dtype, shape=(4, 32, 24, 3)):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=shape), dtype)
    variables = Stem(8, dtype).init(jax.random.key(0), images, train=True)
    bn = {name: jnp.asarray(rng.normal(0.5, 1, 8), jnp.float32) for name in ("scale", "bias")}
    variables = {**variables, "params": {**variables["params"], "bn1": bn}}
    return variables, images, jnp.asarray(rng.normal(size=(4, 8, 6, 8)), dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_in_blocks_it_is_the_same_stem(dtype, tolerance):
    variables, images, g = start(dtype)
    with jax.default_matmul_precision("highest"):
        plain, blocks = (value_and_gradients(Stem(8, dtype, in_blocks=b), variables, images, g) for b in (False, True))
    for ours, theirs in zip(jax.tree.leaves(blocks), jax.tree.leaves(plain), strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = np.float64(ours), np.float64(theirs)
        assert np.linalg.norm(ours - theirs) < tolerance * np.linalg.norm(theirs)


@pytest.mark.parametrize("shape", [(2, 8, 12, 3), (1, 4, 4, 2)])
def test_the_maximum_of_blocks_is_that_of_the_library_at_ties_too(shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 4, shape), jnp.float32)  # of four values: most windows are ties
    phases = tuple(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1))
    theirs, pull = jax.vjp(library_pool, x)
    ours, pull_blocks = jax.vjp(max_of_blocks, phases)
    np.testing.assert_array_equal(ours, theirs)
    g = jnp.asarray(rng.integers(1, 50, ours.shape), jnp.float32)
    for phase, gradient, (i, j) in zip(phases, pull_blocks(g)[0], [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        # Of a ReLU: where it gave 0 nothing passes.
        expected = pull(g)[0][:, i::2, j::2] * (phase > 0)
        np.testing.assert_array_equal(gradient * (phase > 0), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 4e-3)])
def test_means_by_rows_are_means(dtype, tolerance):
    x = jnp.asarray(np.random.default_rng(0).normal(1, 1, (2, 8, 12, 5)), dtype)
    true = np.float64(x).reshape(2, 2, 4, 3, 4, 5).mean(axis=(2, 4))
    for means in (block_means(x, (2, 3)), pooling._means_by_rows((2, 3), x)):
        assert means.dtype == dtype
        np.testing.assert_allclose(np.float64(means), true, rtol=0, atol=tolerance * np.abs(true).max())
    g = jnp.asarray(np.random.default_rng(1).normal(size=true.shape), dtype)
    gradient = jax.vjp(lambda x: block_means(x, (2, 3)), x)[1](g)[0]
    np.testing.assert_allclose(
        np.float64(gradient), np.repeat(np.repeat(np.float64(g) / 16, 4, 1), 4, 2), rtol=0, atol=tolerance
    )


def lowered(function, *arrays):
    traced = jax.jit(function).trace(*arrays)
    return {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda", "tpu")}


def test_only_a_tpu_gets_them_and_only_in_training():
    variables, images, g = start(jnp.bfloat16)
    texts = lowered(lambda *a: value_and_gradients(Stem(8, jnp.bfloat16), *a), variables, images, g)
    plain = lowered(lambda *a: value_and_gradients(Stem(8, jnp.bfloat16, in_blocks=False), *a), variables, images, g)
    names = {platform: re.findall(r"stablehlo\.(\w+)", text) for platform, text in texts.items()}
    assert "4x8x6x48xbf16" in texts["tpu"]
    assert "4x8x6x32xbf16" in texts["tpu"]
    # Nothing computes maps of 8 channels at half the image's size; zeros stand for what the other form would keep.
    computing = r"stablehlo\.(convolution|add|subtract|multiply|maximum|select|convert)\b.*x16x12x8x"
    assert not re.search(computing, texts["tpu"])
    assert re.search(computing, texts["cuda"])
    assert not {"select_and_scatter", "reduce_window"} & {*names["tpu"]}
    for platform in ("cpu", "cuda"):
        count = {n: names[platform].count(n) for n in ("convolution", "dot_general", "reduce", "maximum", "multiply")}
        of_plain = re.findall(r"stablehlo\.(\w+)", plain[platform])
        assert count == {name: of_plain.count(name) for name in count}
    embedded = lowered(lambda v, x: Stem(8, jnp.bfloat16).apply(v, x, train=False), variables, images)
    assert "4x8x6x48xbf16" not in embedded["tpu"]
    odd = lowered(
        lambda v, x: Stem(8, jnp.bfloat16).apply(v, x, train=True, mutable=["batch_stats"]), variables, images[:, :30]
    )
    assert "reduce_window" in odd["tpu"]


def test_on_a_cpu_every_bit_is_as_without_the_choice():
    variables, images, g = start(jnp.float32)
    ours, plain = (
        jax.jit(lambda *a, b=b: value_and_gradients(Stem(8, in_blocks=b), *a))(variables, images, g)
        for b in (None, False)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, plain)
