"""Our BatchNorm against the library's and against float64: values, statistics, gradients, and what it keeps."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icre_jax.models.normalization import BatchNorm

SHAPE = (4, 6, 3, 5)


def arrays(shape=SHAPE, dtype=jnp.float32, seed=0, offset=0.5):
    """Input, gradient of the output, and variables that are nothing special."""
    rng = np.random.default_rng(seed)
    channels = shape[-1:]
    variables = {
        "params": {"scale": rng.normal(size=channels), "bias": rng.normal(size=channels)},
        "batch_stats": {"mean": rng.normal(size=channels), "var": rng.uniform(0.5, 2, channels)},
    }
    x, g = rng.normal(offset, 2, shape), rng.normal(size=shape)
    return jnp.asarray(x, dtype), jnp.asarray(g, dtype), jax.tree.map(jnp.float32, variables)


def value_and_gradients(layer, variables, x, g):
    """Output, new statistics, and gradients of the parameters and of x."""

    def run(params, x):
        return layer.apply(variables | {"params": params}, x, mutable=["batch_stats"])

    y, pull, updated = jax.vjp(run, variables["params"], x, has_aux=True)
    return y, updated["batch_stats"], *pull(g)


def exact(variables, x, g):
    """The same in float64, by the derivative as textbooks give it."""
    x, g = np.float64(x), np.float64(g)
    p, s = (jax.tree.map(np.float64, variables[name]) for name in ("params", "batch_stats"))
    axes = tuple(range(x.ndim - 1))
    mean, var = x.mean(axes), x.var(axes)
    normal = (x - mean) / np.sqrt(var + 1e-5)
    for_x = p["scale"] / np.sqrt(var + 1e-5) * (g - g.mean(axes) - normal * (g * normal).mean(axes))
    statistics = {"mean": 0.9 * s["mean"] + 0.1 * mean, "var": 0.9 * s["var"] + 0.1 * var}
    return normal * p["scale"] + p["bias"], statistics, {"scale": (g * normal).sum(axes), "bias": g.sum(axes)}, for_x


def assert_near(actual, expected, tolerance):
    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())

    jax.tree.map(check, actual, expected)


@pytest.mark.parametrize("shape", [SHAPE, (16, 8), (2, 24, 12, 64)])
def test_it_is_the_librarys_and_the_textbooks(shape):
    x, g, variables = arrays(shape)
    ours = jax.jit(lambda *a: value_and_gradients(BatchNorm(False), *a))(variables, x, g)
    library = value_and_gradients(nn.BatchNorm(False, momentum=0.9), variables, x, g)
    assert jax.tree.structure(ours) == jax.tree.structure(library)
    assert_near(ours, library, 2e-6)
    assert_near(ours, exact(variables, x, g), 2e-6)


def test_with_running_statistics_it_is_the_librarys():
    x, _, variables = arrays()
    assert_near(BatchNorm(True).apply(variables, x), nn.BatchNorm(True).apply(variables, x), 1e-6)
    infinite = variables | {"batch_stats": variables["batch_stats"] | {"var": jnp.full(5, jnp.inf)}}
    np.testing.assert_array_equal(BatchNorm(True).apply(infinite, x)[0, 0, 0], variables["params"]["bias"])


def test_bfloat16_is_as_near_to_the_truth_as_the_format_allows():
    x, g, variables = arrays(dtype=jnp.bfloat16)
    y, statistics, for_params, for_x = value_and_gradients(BatchNorm(False, jnp.bfloat16), variables, x, g)
    true = exact(variables, x, g)
    assert (y.dtype, for_x.dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert_near((statistics, for_params), true[1:3], 2e-6)  # sums of numbers that bfloat16 holds exactly
    assert_near((np.float64(y), np.float64(for_x)), (true[0], true[3]), 2**-8)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9)),
    offset=st.floats(-20, 20),
    seed=st.integers(0, 99),
)
def test_any_shape_and_offset(shape, offset, seed):
    """With a mean of ten standard deviations a hundred times the rounding is left, of x^2 in the variance."""
    x, _, variables = arrays(shape, seed=seed, offset=offset)
    y = BatchNorm(False).apply(variables, x, mutable=["batch_stats"])[0]
    true = exact(variables, x, np.zeros(shape))[0]
    spread = float(np.asarray(x).std((0, 1, 2)).min())
    assert_near(y, true, 1e-5 * (1 + offset**2) / min(spread, 1) ** 2)


def test_over_a_mapped_axis_the_statistics_are_those_of_all_rows():
    x, g, variables = arrays()
    whole = value_and_gradients(BatchNorm(False), variables, x, g)
    halves = jax.tree.map(lambda rows: rows.reshape(2, -1, *SHAPE[1:]), (x, g))
    mapped = jax.vmap(
        lambda x, g: value_and_gradients(BatchNorm(False, axis_name="rows"), variables, x, g), axis_name="rows"
    )
    y, statistics, for_params, for_x = mapped(*halves)
    assert_near(y.reshape(SHAPE), whole[0], 1e-6)
    assert_near(for_x.reshape(SHAPE), whole[3], 2e-6)
    for half in range(2):
        assert_near(jax.tree.map(lambda s, half=half: s[half], statistics), whole[1], 1e-6)
    assert_near(jax.tree.map(lambda s: s.sum(0), for_params), whole[2], 2e-6)


def test_it_starts_as_the_librarys():
    x, _, _ = arrays()
    for scale_init in (nn.initializers.ones_init(), nn.initializers.zeros_init()):
        ours = BatchNorm(False, scale_init=scale_init).init(jax.random.key(0), x)
        assert_near(ours, nn.BatchNorm(False, scale_init=scale_init).init(jax.random.key(0), x), 0)
    assert "bias" not in BatchNorm(False, use_bias=False).init(jax.random.key(0), x)["params"]


def kept(layer):
    """How many arrays of the size of x, no two the same, are kept for the backward pass."""
    x, _, variables = arrays((4, 6, 3, 50))
    pull = jax.vjp(lambda x: layer.apply(variables, x, mutable=["batch_stats"])[0], x)[1]
    return len({id(leaf) for leaf in jax.tree.leaves(pull) if leaf.size == x.size})


def test_the_input_alone_is_kept():
    assert kept(BatchNorm(False)) == 1
    assert kept(nn.BatchNorm(False)) == 2
