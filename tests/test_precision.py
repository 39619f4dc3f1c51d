"""Products of float32 numbers are float32 on every platform, in every program, unless the config says otherwise.

Read off the programs as they are handed to a platform's compiler; no such device is needed.
"""

import collections
import re

import jax
import jax.numpy as jnp
import pytest

from configs import synthetic
from icre_jax.costs.compiled import trace_step
from icre_jax.engine import provenance
from icre_jax.engine.forward import embed_step
from icre_jax.engine.parallel import make_mesh
from icre_jax.engine.program import build_program
from icre_jax.errors import InputError
from icre_jax.models.convolution import convolve
from icre_jax.models.network import over_axis
from icre_jax.settings import differences, parse

PLATFORMS = ("cuda", "tpu")
BATCH = 16


def program_of(variant="", precision=None, dtype="float32", remat=False, accumulate_steps=1):
    config = synthetic.get_config(variant)
    config.data.image_size = (32, 16)
    config.model.update(width=4, dtype=dtype, remat=remat)
    config.model.mpfr.channels = config.model.sdce.width = 8
    config.model.sdce.num_heads = 2
    config.optimizer.accumulate_steps = accumulate_steps
    if precision is not None:
        config.model.precision = precision
    return build_program(parse(config), num_classes=4, steps_per_epoch=2)


def products(traced, platform):
    """(operation, types of its operands, precision) -> how often it stands in the program."""
    found = collections.Counter()
    for line in traced.lower(lowering_platforms=(platform,)).as_text().splitlines():
        operation = re.search(r"stablehlo\.(dot_general|convolution|dot)\b", line)
        if operation:
            stated = re.search(r"precision = \[(\w+), (\w+)\]", line)
            stated = stated or re.search(r"#stablehlo<precision (\w+)>, #stablehlo<precision (\w+)>", line)
            types = re.findall(r"tensor<(?:\d+x)*(\w+)>", line.rsplit(" : ", 1)[1])[:2]
            found[operation[1], *types, stated and stated.groups()] += 1
    return found


def precisions(found):
    """Precision -> how many products have it."""
    total = collections.Counter()
    for (*_, stated), number in found.items():
        total[stated and "/".join(sorted({*stated}))] += number
    return total


def training(program):
    return trace_step(program, make_mesh(BATCH), BATCH)


def embedding(program):
    images, variables = program.abstract_batch(BATCH)["image"], program.abstract_state.variables
    return embed_step.trace(variables, images, network=program.network, modality="visible")


def judging(program):
    """The loss alone and its gradient with respect to what the network gives out."""
    rows = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    outputs = {
        name: jax.ShapeDtypeStruct((BATCH, 32), jnp.float32) for name in ("features", "deep_features", "embeddings")
    }
    outputs["logits"] = jax.ShapeDtypeStruct((BATCH, 4), jnp.float32)
    return jax.jit(jax.grad(program.objective, has_aux=True)).trace(outputs, rows, rows)


@pytest.mark.parametrize(
    "changes",
    [{}, {"remat": True}, {"variant": "agw", "accumulate_steps": 2}, {"variant": "sdce"}],
    ids=["icre", "parts computed again", "agw in micro-batches", "sdce alone"],
)
def test_as_configured_every_product_of_training_is_float32(changes):
    traced = training(program_of(**changes))
    for platform in PLATFORMS:
        found = products(traced, platform)
        assert {precision for *_, precision in found} == {("HIGHEST", "HIGHEST")}
        # Forward and both gradients of the 3x3 and of the 1x1 convolutions.
        numbers = collections.Counter(operation for operation, *_ in found.elements())
        assert numbers["convolution"] >= 3 * 17
        assert numbers["dot_general"] >= 40


def test_by_default_precision_the_losses_alone_stay_float32():
    program = program_of(precision="default")
    traced, losses = training(program), judging(program)
    for platform in PLATFORMS:
        found, of_losses = precisions(products(traced, platform)), precisions(products(losses, platform))
        assert found.keys() == {"DEFAULT", "HIGHEST"}
        assert of_losses == {"HIGHEST": found["HIGHEST"]}
        assert found["DEFAULT"] > 5 * found["HIGHEST"]


@pytest.mark.parametrize("precision", ["highest", "high", "default"])
def test_embedding_has_the_networks_precision(precision):
    traced = embedding(program_of(precision=precision))
    for platform in PLATFORMS:
        assert precisions(products(traced, platform)).keys() == {precision.upper()}


def test_products_of_bfloat16_numbers_are_left_to_the_device():
    """More precision could only cost there. The head is float32, and so are its classifier's three products."""
    program = program_of(dtype="bfloat16")
    traced, losses = training(program), judging(program)
    for platform in PLATFORMS:
        found = products(traced, platform)
        low = {key: number for key, number in found.items() if "bf16" in key}
        assert {precision for *_, precision in low} == {("DEFAULT", "DEFAULT")}
        assert sum(low.values()) > 100
        high = precisions(found - collections.Counter(low))
        assert high == {"HIGHEST": 3 + precisions(products(losses, platform))["HIGHEST"]}


@pytest.mark.versions
@pytest.mark.parametrize("platform", ["cpu", *PLATFORMS])
def test_the_gradient_of_a_convolution_has_the_precision_of_its_forward_pass(platform):
    """It is traced when the forward pass is over, in both of its forms."""
    x = jax.ShapeDtypeStruct((8, 32, 32, 64), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)

    def loss(x, kernel):
        with jax.default_matmul_precision("high"):
            y = convolve(x, kernel)
        return jnp.sum(y**2)

    found = products(jax.jit(jax.grad(loss, argnums=(0, 1))).trace(x, kernel), platform)
    assert precisions(found).keys() == {"HIGH"}
    assert sum(found.values()) == (2 + 9 if platform == "cpu" else 3)


def test_the_mapped_network_keeps_its_precision():
    assert over_axis(program_of(precision="high").network, "batch").precision == "high"


def test_a_run_says_its_precision_and_keeps_it(config, prepared):
    settings = parse(config)
    facts = provenance.collect(settings, prepared, step=1, checkpoint="last")
    assert (facts["dtype"], facts["precision"]) == ("float32", "highest")
    config.model.precision = "default"
    assert differences(settings, parse(config)) == ["model.precision: highest -> default"]
    config.model.precision = "tf32"
    with pytest.raises(InputError, match=r"model\.precision = 'tf32': Input should be 'highest', 'high' or 'default'"):
        parse(config)
