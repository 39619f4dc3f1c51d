"""The fast convolutions and max-pool against the library's: values, gradients, and what other platforms get."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from icre_jax.engine.parallel import make_mesh, make_state, make_train_step
from icre_jax.engine.program import build_program
from icre_jax.models import convolution
from icre_jax.models.convolution import convolve
from icre_jax.models.normalization import BatchNorm
from icre_jax.models.pooling import max_pool
from icre_jax.settings import parse


@pytest.fixture(autouse=True)
def small_arrays_take_the_fast_form_too(request, monkeypatch):
    if "work" not in request.node.name:
        monkeypatch.setattr(convolution, "_ENOUGH_WORK", 0)


def plain(x, kernel, stride):
    """The library's convolution, whose gradients are the library's too."""
    padding = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def exact(x, kernel, g, stride):
    """Value and both gradients in float64, tap by tap."""
    size = kernel.shape[0]
    padding = size // 2
    padded = np.pad(np.float64(x), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    kernel, g = np.float64(kernel), np.float64(g)
    value, for_input, for_kernel = np.zeros(g.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    height, width = ((n - 1) * stride + 1 for n in g.shape[1:3])
    for i in range(size):
        for j in range(size):
            rows, columns = slice(i, i + height, stride), slice(j, j + width, stride)
            value += padded[:, rows, columns] @ kernel[i, j]
            for_kernel[i, j] = np.einsum("bhwc,bhwd->cd", padded[:, rows, columns], g)
            for_input[:, rows, columns] += g @ kernel[i, j].T
    return value, for_input[:, padding : padding + x.shape[1], padding : padding + x.shape[2]], for_kernel


def value_and_gradients(function, x, kernel, g, stride):
    value, pull = jax.vjp(lambda x, kernel: function(x, kernel, stride), x, kernel)
    return value, *pull(g)


def arrays(shape, channels, size, stride, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=shape), dtype)
    kernel = jnp.asarray(rng.normal(size=(size, size, shape[-1], channels)), dtype)
    out = (shape[0], -(-shape[1] // stride), -(-shape[2] // stride), channels)
    return x, kernel, jnp.asarray(rng.normal(size=out), dtype)


# Everything the network has: stems, 3x3 of both strides, 1x1 of both; even and odd sizes; few channels and many; one
# row or column, and one image.
CASES = [
    ((2, 16, 8, 3), 64, 7, 2),
    ((2, 17, 9, 3), 64, 7, 2),
    ((2, 12, 6, 3), 16, 7, 2),
    ((3, 9, 4, 16), 64, 3, 1),
    ((2, 8, 5, 20), 72, 3, 1),
    ((2, 6, 3, 8), 8, 3, 1),
    ((2, 9, 7, 24), 64, 3, 2),
    ((2, 8, 6, 16), 96, 3, 2),
    ((2, 5, 4, 4), 8, 3, 2),
    ((1, 1, 1, 16), 64, 3, 2),
    ((1, 1, 3, 5), 64, 3, 1),
    ((2, 7, 5, 12), 20, 1, 1),
    ((2, 8, 5, 12), 64, 1, 2),
]


@pytest.mark.parametrize(("shape", "channels", "size", "stride"), CASES)
def test_float32_is_the_librarys(shape, channels, size, stride):
    x, kernel, g = arrays(shape, channels, size, stride, jnp.float32)
    run = jax.jit(functools.partial(value_and_gradients, stride=stride), static_argnums=0)
    fast, library, truth = run(convolve, x, kernel, g), run(plain, x, kernel, g), exact(x, kernel, g, stride)
    for ours, theirs, true in zip(fast, library, truth, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        scale = np.abs(true).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-6 * scale)
        np.testing.assert_allclose(ours, true, rtol=0, atol=3e-6 * scale)


@pytest.mark.parametrize(("shape", "channels", "size", "stride"), CASES)
def test_bfloat16_is_as_near_to_the_truth_as_the_format_allows(shape, channels, size, stride):
    x, kernel, g = arrays(shape, channels, size, stride, jnp.bfloat16)
    run = jax.jit(functools.partial(value_and_gradients, stride=stride), static_argnums=0)
    for ours, true in zip(run(convolve, x, kernel, g), exact(x, kernel, g, stride), strict=True):
        assert ours.dtype == jnp.bfloat16
        # Half a unit in the last of 8 digits of each result; the sums behind them are of float32.
        np.testing.assert_allclose(np.float64(ours), true, rtol=2**-8, atol=1e-5 * np.abs(true).max())


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 15, 16, 17]),
    out=st.sampled_from([5, 64]),
    size=st.sampled_from([1, 3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_any_shape(batch, height, width, channels, out, size, stride, seed):
    x, kernel, g = arrays((batch, height, width, channels), out, size, stride, jnp.float32, seed)
    run = jax.jit(functools.partial(value_and_gradients, convolve, stride=stride))
    for ours, true in zip(run(x, kernel, g), exact(x, kernel, g, stride), strict=True):
        np.testing.assert_allclose(ours, true, rtol=0, atol=3e-6 * max(np.abs(true).max(), 1))


def library_pool(x):
    padding = [(0, 0), (1, 1), (1, 1), (0, 0)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (2, 9, 7, 3), (3, 2, 3, 2), (1, 1, 1, 2)])
def test_max_pool_is_the_librarys_to_the_last_bit_at_ties_too(shape, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 3, shape), dtype)  # of three values: most windows are ties
    ours, theirs = max_pool(x), library_pool(x)
    np.testing.assert_array_equal(ours, theirs)
    g = jnp.asarray(rng.integers(1, 50, ours.shape), dtype)
    value, pull = jax.vjp(jax.jit(max_pool), x)
    np.testing.assert_array_equal(value, theirs)
    np.testing.assert_array_equal(pull(g)[0], jax.vjp(library_pool, x)[1](g)[0])


def operations(text):
    """Names of the operations of a lowered program."""
    return set(re.findall(r"stablehlo\.(\w+)", text))


def test_other_platforms_get_the_librarys_own():
    x, kernel, g = arrays((2, 8, 6, 16), 64, 3, 2, jnp.float32)

    def program(function):
        return jax.jit(lambda x, kernel, g: value_and_gradients(function, x, kernel, g, 2)).trace(x, kernel, g)

    ours = program(convolve)
    for platform in ("tpu", "cuda"):
        text = ours.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == 3
        assert "dot_general" not in operations(text)
        theirs = program(plain).lower(lowering_platforms=(platform,))
        assert ours.lower(lowering_platforms=(platform,)).cost_analysis()["flops"] == theirs.cost_analysis()["flops"]
    text = ours.lower(lowering_platforms=("cpu",)).as_text()
    assert text.count("stablehlo.dot_general") == 9
    assert text.count("stablehlo.convolution") == 2  # forward, and for the input

    pooled = jax.jit(jax.grad(lambda x: max_pool(x).sum())).trace(x)
    assert "select_and_scatter" in operations(pooled.lower(lowering_platforms=("tpu",)).as_text())
    assert not {"select_and_scatter", "reduce_window"} & operations(pooled.lower().as_text())
    # On a GPU the library's gradient differs from run to run; its maximum does not.
    for platform in ("cuda", "rocm"):
        of_gpu = operations(pooled.lower(lowering_platforms=(platform,)).as_text())
        assert "select_and_scatter" not in of_gpu
        assert "reduce_window" in of_gpu


@pytest.mark.parametrize(("shape", "products"), [((16, 36, 18, 128), 9), ((64, 6, 3, 128), 0)])
def test_products_are_taken_where_the_work_is_worth_it(shape, products):
    """ResNet-50's layer2 at 288x144, and the demo's layer4."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 128, 128), jnp.float32)
    gradient = jax.jit(jax.grad(lambda kernel, x: convolve(x, kernel).sum()))
    assert gradient.lower(kernel, x).as_text().count("stablehlo.dot_general") == products


def gradient_of_layers(num_layers, size):
    """Compiled gradient of convolutions with BatchNorm and ReLU, 8 channels in, 16 out (of 1x1) or 8 (of 3x3)."""
    x, kernel, _ = arrays((4, 12, 6, 8), 16 if size == 1 else 8, size, 1, jnp.float32)
    scale, bias = jnp.ones(kernel.shape[-1]), jnp.zeros(kernel.shape[-1])
    layer = BatchNorm(False)

    def loss(kernels, x):
        for kernel in kernels:
            variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": bias, "var": scale}}
            x = nn.relu(layer.apply(variables, convolve(x, kernel), mutable=["batch_stats"])[0])
        return (x**2).sum()

    return x, jax.jit(jax.grad(loss)).lower([kernel] * num_layers, x).compile()


def test_the_taps_of_a_layer_are_made_when_its_gradient_is_known():
    """XLA would make them in the forward pass, nine times the activations of all layers, and keep them."""
    x, few = gradient_of_layers(3, 3)
    _, many = gradient_of_layers(6, 3)
    more = many.memory_analysis().temp_size_in_bytes - few.memory_analysis().temp_size_in_bytes
    assert more < 3 * 4 * x.nbytes  # three layers keep what goes into them and into BatchNorm, and not 3 x 9 taps


def test_nothing_is_transposed_for_the_weight_gradient_of_1x1():
    x, program = gradient_of_layers(1, 1)
    num_rows = x.size // 8
    text = program.as_text()
    assert f"f32[{num_rows},16]" in text
    assert f"f32[16,{num_rows}]" not in text


def test_a_gradient_that_nobody_reads_is_not_computed():
    """As that of the images, on every platform."""
    x, kernel, _ = arrays((2, 8, 6, 3), 64, 7, 2, jnp.float32)
    traced = jax.jit(jax.grad(lambda kernel: convolve(x, kernel, 2).sum())).trace(kernel)
    assert traced.lower(lowering_platforms=("tpu",)).as_text().count("stablehlo.convolution") <= 2
    assert traced.lower(lowering_platforms=("cpu",)).as_text().count("stablehlo.convolution") <= 1


def test_a_loop_compiles_its_step_once_and_gives_its_state_away(config):
    loaded = parse(config)
    program = build_program(loaded, num_classes=4, steps_per_epoch=2)
    mesh = make_mesh(8)
    step = make_train_step(mesh, program)
    state = make_state(mesh, 0, program)
    rng = np.random.default_rng(0)
    shapes = program.abstract_batch(8)
    for _ in range(3):
        batch = {name: np.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}
        batch["image"] = rng.integers(0, 256, batch["image"].shape, dtype=np.uint8)
        batch["label"], batch["modality"] = np.arange(8, dtype=np.int32) // 2, np.arange(8, dtype=np.int32) % 2
        before = state
        state, _ = step(state, batch)
        assert step.__wrapped__._cache_size() == 1
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))  # its memory is the new state's
