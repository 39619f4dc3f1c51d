"""FLOPs and memory against arithmetic by hand, one layer of each kind; parameters by part; one ResNet, not three."""

import jax
import jax.numpy as jnp
import pytest
from jax import ShapeDtypeStruct

from configs import sysu_mm01
from icre_jax.costs.compare import baseline_of
from icre_jax.costs.compiled import analyse, embedding_cost, num_bytes, training_cost
from icre_jax.costs.parameters import list_modules
from icre_jax.engine.parallel import make_mesh
from icre_jax.engine.program import build_program
from icre_jax.models.convolution import convolve
from icre_jax.models.head import Head
from icre_jax.models.layers import batch_norm, conv
from icre_jax.models.network import ReIDNetwork, build_network
from icre_jax.models.resnet import DualStreamResNet
from icre_jax.models.sdce import Attention
from icre_jax.settings import parse

B, H, W, C, D = 4, 24, 9, 16, 32
MAP = ShapeDtypeStruct((B, H, W, C), jnp.float32)


def cost_of(call, *arguments):
    return analyse(jax.jit(call).trace(*arguments), num_images=B, batch_bytes=num_bytes(arguments[-1]))


def cost_of_layer(module, x):
    """Forward only, with the statistics of the batch."""
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    return cost_of(lambda v, x: module.apply(v, x, mutable=["batch_stats"])[0], variables, x), variables


def test_a_3x3_convolution():
    cost, _ = cost_of_layer(conv(D, 3, dtype=jnp.float32, name=None), MAP)
    # Padding is not counted: of three window rows the first and the last output row miss one, columns alike.
    positions = (3 * H - 2) * (3 * W - 2)
    assert cost.flops == cost.compiled_flops == 2 * B * positions * C * D
    assert cost.argument_bytes == 4 * (B * H * W * C + 9 * C * D)
    assert cost.batch_bytes == 4 * B * H * W * C
    assert cost.variable_bytes == 4 * 9 * C * D
    assert cost.output_bytes == 4 * B * H * W * D


def test_gradients_of_a_3x3_convolution_are_counted_as_on_accelerators():
    def loss(kernel, x):
        return jnp.sum(convolve(x, kernel))

    kernel = ShapeDtypeStruct((3, 3, C, 64), jnp.float32)
    cost = cost_of(jax.grad(loss, argnums=(0, 1)), kernel, MAP)
    forward = 2 * B * (3 * H - 2) * (3 * W - 2) * C * 64
    # The value is not read; the weight gradient is the forward pass again, and so is the input gradient.
    assert cost.flops == pytest.approx(2 * forward, rel=0.01)


def test_a_strided_1x1_convolution():
    cost, _ = cost_of_layer(conv(D, 1, 2, dtype=jnp.float32, name=None), MAP)
    assert cost.flops == cost.compiled_flops == 2 * B * (H // 2) * ((W + 1) // 2) * C * D


def test_a_dense_layer():
    head = ShapeDtypeStruct((B, C), jnp.float32)
    cost = cost_of(lambda kernel, x: x @ kernel, ShapeDtypeStruct((C, D), jnp.float32), head)
    assert cost.flops == cost.compiled_flops == 2 * B * C * D
    assert cost.peak_bytes == 4 * (B * C + C * D + B * D) + cost.temporary_bytes


def test_attention():
    L, heads, width = 60, 4, 64
    tokens = ShapeDtypeStruct((B, L, width), jnp.float32)
    cost = cost_of(lambda q, k, v: jax.nn.dot_product_attention(q, k, v), *[tokens.update(shape=(B, L, heads, 16))] * 3)
    products = 2 * (2 * B * L * L * width)  # Q K^T and A V
    softmax = B * heads * L * L  # times a few: scale, maximum, difference, exponential, sum, quotient
    assert products + softmax < cost.flops < products + 10 * softmax
    assert cost.temporary_bytes >= 4 * B * heads * L * L  # A itself


def test_batch_norm_is_a_few_operations_per_number():
    cost, _ = cost_of_layer(batch_norm(train=True, dtype=jnp.float32, axis_name=None, name=None), MAP)
    size = B * H * W * C
    assert 3 * size < cost.flops < 10 * size
    assert cost.output_bytes >= 4 * size


def test_a_backward_pass_is_twice_the_forward_pass():
    def loss(kernel, x):
        return jnp.sum((x @ kernel) ** 2)

    shapes = ShapeDtypeStruct((C, C), jnp.float32), ShapeDtypeStruct((B * 64, C), jnp.float32)
    forward = 2 * B * 64 * C * C
    assert cost_of(jax.grad(loss, argnums=(0, 1)), *shapes).flops == pytest.approx(3 * forward, rel=0.1)


def test_the_attention_map_costs_nothing_where_nobody_reads_it():
    tokens = ShapeDtypeStruct((B, 60, 64), jnp.float32)
    attention = Attention(64, 4)
    variables = jax.eval_shape(attention.init, jax.random.key(0), tokens, tokens, tokens)
    unread = cost_of(lambda v, x: attention.apply(v, x, x, x)[0], variables, tokens)
    both = cost_of(lambda v, x: attention.apply(v, x, x, x), variables, tokens)
    assert both.flops - unread.flops >= 2 * B * 60 * 60 * 64  # the map is Q K^T once more
    by_hand = 4 * (2 * B * 60 * 64 * 64) + 2 * (2 * B * 60 * 60 * 64)  # four projections, two products
    assert unread.flops < 1.05 * by_hand


@pytest.fixture(scope="module")
def icre():
    return parse(sysu_mm01.get_config())


def totals(settings):
    network = build_network(settings, num_classes=395)
    rows = {row.name: row for row in list_modules(network, settings.data.image_size)}
    return {name: row.num_parameters for name, row in rows.items()}, rows


def test_parameters_of_mpfr_and_sdce_by_hand(icre):
    numbers, _ = totals(icre)
    C = d = 512
    projections = sum(channels * C + 2 * C for channels in (256, 512, 1024))  # convolution and BatchNorm
    masks, fusion = 3 * (C + 1), 3 * C * C + 2 * C
    assert numbers["mpfr"] == projections + masks + fusion == 1_709_571
    assert numbers["mpfr/projection_3"] == 1024 * C + 2 * C

    embed, norms, attention = 2048 * d + d, 4 * 2 * d, 4 * (d * d + d)
    mlp, gate = d * 4 * d + 4 * d + 4 * d * d + d, d * 2048 + 2 * 2048
    assert numbers["sdce"] == embed + norms + 2 * attention + mlp + gate == 6_306_816
    assert numbers["sdce/self_attention"] == attention
    assert f"{numbers['mpfr'] / 1e6:.2f}, {numbers['sdce'] / 1e6:.2f}" == "1.71, 6.31"  # what the method says
    assert numbers["head/classifier"] == 395 * 2048


def test_rows_add_up_and_have_the_sizes_of_the_method(icre):
    numbers, rows = totals(icre)
    for part in ("backbone", "mpfr", "sdce", "head"):
        assert rows[part].is_total
        assert numbers[part] == sum(number for name, number in numbers.items() if name.startswith(f"{part}/"))
    assert sum(row.share for row in rows.values() if row.is_total) == pytest.approx(1)
    assert rows["backbone/infrared_stem"].output_shape == (96, 36, 64)
    assert rows["backbone/layer1"].output_shape == (96, 36, 256)
    assert rows["backbone/layer4"].output_shape == (24, 9, 2048)
    assert rows["mpfr"].output_shape == (24, 9, 512)
    assert rows["sdce/cross_attention"].output_shape == (216, 512)
    assert rows["head/classifier"].output_shape == (395,)
    assert next(iter(rows)) == "backbone"  # in the order in which they run
    assert list(numbers).index("mpfr/projection_1") < list(numbers).index("mpfr/fusion")


def test_non_local_blocks_and_what_stands_in_for_a_part_have_rows_of_their_own():
    numbers, rows = totals(parse(sysu_mm01.get_config("agw")))
    plain, _ = totals(parse(sysu_mm01.get_config("baseline")))
    blocks = [name for name in numbers if "non_local" in name]
    assert len(blocks) == 2 + 3
    # theta, phi, g and the way back, each with a bias, and a BatchNorm.
    assert numbers["backbone/layer3/non_local_5"] == 3 * (1024 + 1) + 1024 + 1024 + 2 * 1024
    assert numbers["backbone/layer3"] == plain["backbone/layer3"]
    assert sum(number for name, number in numbers.items() if name.startswith("backbone/")) == numbers["backbone"]
    assert rows["backbone"].is_total

    mpfr, _ = totals(parse(sysu_mm01.get_config("mpfr")))
    assert mpfr["gate"] == 512 * 2048 + 2 * 2048
    sdce, _ = totals(parse(sysu_mm01.get_config("sdce")))
    assert sdce["projection"] == 1024 * 512 + 2 * 512
    network = ReIDNetwork(DualStreamResNet(depth=18, width=8, specific_until="layer1"), Head(num_classes=5))
    names = [row.name for row in list_modules(network, (64, 32))]
    assert "backbone/visible_layer1" in names
    assert "backbone/infrared_layer1" in names


def count(jaxpr, *primitives):
    """Calls of a primitive in a jaxpr and in those inside it; of the forms for several platforms, those of one."""
    number = 0
    for equation in jaxpr.eqns:
        number += equation.primitive.name in primitives
        if equation.primitive.name == "cond":
            (each,) = {count(branch.jaxpr, *primitives) for branch in equation.params["branches"]}
            number += each
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                number += count(inner, *primitives)
    return number


def test_the_paired_forward_pass_is_one_resnet_and_one_more_stem(icre):
    """Never three ResNets: neither in layers nor in parameters."""
    network = build_network(baseline_of(icre), num_classes=395).backbone
    images = jnp.zeros((2, 64, 32, 3))
    both = jax.eval_shape(lambda key: network.init(key, images, modality="paired", train=True), jax.random.key(0))

    def layers(modality):
        def run(variables):
            return network.apply(variables, images, modality=modality, train=True, mutable=["batch_stats"])

        return count(jax.make_jaxpr(run)(both).jaxpr, "conv_general_dilated", "dot_general")

    resnet50 = 1 + 3 * (3 + 4 + 6 + 3) + 4  # stem, bottlenecks, shortcuts
    assert layers("visible") == layers("infrared") == resnet50
    assert layers("paired") == resnet50 + 1
    stem = 7 * 7 * 3 * 64 + 2 * 64
    assert sum(leaf.size for leaf in jax.tree.leaves(both["params"])) == 25_557_032 - 2_049_000 + stem


def test_the_paired_forward_pass_is_the_work_of_one_resnet():
    network = DualStreamResNet(depth=18, width=8)
    images = jnp.zeros((2, 64, 32, 3))
    both = jax.eval_shape(lambda key: network.init(key, images, modality="paired", train=True), jax.random.key(0))

    def flops(modality):
        call = jax.jit(lambda v, x: network.apply(v, x, modality=modality, train=False)["layer4"])
        return call.lower(both, images).cost_analysis()["flops"]

    assert flops("paired") == pytest.approx(flops("visible"), rel=0.01)
    assert flops("infrared") == flops("visible")


def test_cost_of_a_step_and_of_embedding(config):
    settings = parse(config)
    program = build_program(settings, num_classes=8, steps_per_epoch=1)
    training, embedding = training_cost(program, make_mesh(16), 16), embedding_cost(program, 16)
    images = 16 * 32 * 16 * 3
    assert training.batch_bytes == images + 2 * 4 * 16
    state = program.abstract_state
    assert training.optimizer_bytes == num_bytes(state.opt_state) >= 2 * num_bytes(state.params)  # Adam's moments
    assert training.variable_bytes == pytest.approx(num_bytes(state.variables), rel=0.01)
    assert training.output_bytes < 0.01 * training.argument_bytes  # the state is written over; scalars are left
    assert embedding.optimizer_bytes == 0
    assert embedding.batch_bytes == images
    # One stem, no classifier.
    assert embedding.variable_bytes < num_bytes(state.variables) - num_bytes(state.params["head"]["classifier"])
    assert embedding.output_bytes == pytest.approx(16 * 32 * 4, abs=64)  # embeddings of 4 * 8 channels
    assert 2 < training.flops_per_image / embedding.flops_per_image < 4
    assert training.compiled_flops == pytest.approx(training.flops, rel=0.25)
    assert training.temporary_bytes_per_image > embedding.temporary_bytes_per_image
