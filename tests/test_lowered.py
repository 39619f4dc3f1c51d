"""What the compilers of accelerators are given, read off programs that are lowered here; and that faults are seen."""

import collections
import dataclasses
import functools
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icre_jax.costs.compiled import trace_step
from icre_jax.costs.lowered import count_collectives, find_faults, mapped_collectives, program_text
from icre_jax.engine import forward, steps
from icre_jax.engine.parallel import BATCH_AXIS, make_mesh
from icre_jax.engine.program import build_program
from icre_jax.models import convolution, layers, pooling
from icre_jax.models.network import over_axis
from icre_jax.settings import parse
from tests.conftest import ROOT
from tests.test_precision import BATCH, PLATFORMS, program_of


@pytest.fixture
def cpu_forms(monkeypatch):
    """Layers that take their form for CPUs everywhere, however small they are."""
    monkeypatch.setattr(convolution, "_ENOUGH_WORK", 0)
    monkeypatch.setattr(
        convolution.lax, "platform_dependent", lambda *arrays, cpu=None, **others: (cpu or others["default"])(*arrays)
    )


def training_text(program, platform):
    return program_text(trace_step(program, make_mesh(BATCH), BATCH), platform)


def embedding_text(program, platform, modality="visible"):
    """Of a function of its own: `embed_step` would give back what it traced before."""
    images = program.abstract_batch(BATCH)["image"]
    step = functools.partial(forward.embed_step.__wrapped__, network=program.network, modality=modality)
    return program_text(jax.jit(step).trace(program.abstract_state.variables, images), platform)


def mapped_text(program, platform):
    """The step under `pmap`, on the one device that there is: its exchanges are in the program all the same."""
    mapped = dataclasses.replace(program, network=over_axis(program.network, BATCH_AXIS))
    step = jax.pmap(
        functools.partial(steps.train_step, program=mapped, axis_name=BATCH_AXIS),
        axis_name=BATCH_AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
    )
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), program.abstract_batch(BATCH))
    return program_text(jax.jit(step).trace(program.abstract_state, batch), platform)


def test_a_step_and_an_embedding_have_no_fault():
    program = program_of(dtype="bfloat16")
    traced = trace_step(program, make_mesh(BATCH), BATCH)
    for platform in PLATFORMS:
        assert find_faults(program_text(traced, platform), program, "train", platform) == []
    assert find_faults(embedding_text(program, "cuda", "visible"), program, "visible", "cuda") == []
    assert find_faults(embedding_text(program, "tpu", "infrared"), program, "infrared", "tpu") == []


@pytest.mark.long
def test_forms_for_cpus_are_seen_in_a_step(cpu_forms):
    program = program_of()
    kernels = 18
    faults = find_faults(training_text(program, "tpu"), program, "train", "tpu")
    assert faults == [
        f"0 weight gradients are convolutions, of {kernels} kernels larger than 1x1",
        "0 stems are in blocks, of 2",
    ]


def patches_and_a_product(x, kernel, stride=1):
    """A convolution as it is often written for CPUs."""
    if kernel.shape[0] == 1:
        return convolution.convolve(x, kernel, stride)
    padding = kernel.shape[0] // 2
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = (-(-n // stride) for n in x.shape[1:3])
    taps = [
        padded[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def in_float32(x, kernel, stride=1):
    return convolution.convolve(x.astype(jnp.float32), kernel.astype(jnp.float32), stride).astype(x.dtype)


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (patches_and_a_product, r"^0 convolutions forward and to the input; there should be 17 or more$"),
        (in_float32, r"^stablehlo\.(convolution|dot_general) of f32 and f32 at .*backbone.*/conv\d"),
    ],
)
def test_faults_of_a_layer_are_seen(faulty, words, monkeypatch):
    program = program_of(dtype="bfloat16")
    monkeypatch.setattr(layers, "convolve", faulty)
    faults = find_faults(embedding_text(program, "cuda"), program, "visible", "cuda")
    assert faults
    assert any(re.search(words, fault) for fault in faults), faults


def ask_the_host(images):
    shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)
    return jax.pure_callback(lambda x: np.asarray(x, np.float32), shape, images)


def print_on_the_host(images):
    jax.debug.print("{}", images[0, 0, 0, 0])
    return images.astype(jnp.float32)


@pytest.mark.parametrize("faulty", [ask_the_host, print_on_the_host])
def test_calls_of_the_host_are_seen(faulty, monkeypatch):
    program = program_of(dtype="bfloat16")
    monkeypatch.setattr(forward, "normalize_images", faulty)
    faults = find_faults(embedding_text(program, "cpu"), program, "visible", "cuda")
    assert len(faults) == 1
    assert re.search(r"^custom call \w*callback\w* at .*: a call of the host", faults[0]), faults
    # For devices that are not there JAX does not even lower them.
    with pytest.raises(ValueError, match="different from the lowering platform cuda"):
        embedding_text(program, "cuda")


def test_a_product_of_which_nobody_knows_the_place_is_no_exception():
    program = program_of(dtype="bfloat16")
    line = "%1 = stablehlo.dot_general %0, %0 : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>"
    assert any("f32 and f32" in fault for fault in find_faults(line, program, "visible", "cuda"))
    infeed = '%1:2 = "stablehlo.infeed"(%0) : (!stablehlo.token) -> (tensor<4xf32>, !stablehlo.token) loc(#loc)'
    assert any("waits for the host" in fault for fault in find_faults(infeed, program, "visible", "cuda"))


@pytest.mark.long
@pytest.mark.parametrize(
    "changes", [{"remat": True}, {"accumulate_steps": 2}, {"variant": "agw"}, {"variant": "baseline"}], ids=str
)
def test_other_programs_have_no_fault(changes):
    program = program_of(dtype="bfloat16", **changes)
    traced = trace_step(program, make_mesh(BATCH), BATCH)
    for platform in PLATFORMS:
        assert find_faults(program_text(traced, platform), program, "train", platform) == []


@pytest.mark.long
def test_the_recipe_at_its_size_has_no_fault():
    """Its convolutions are large enough for the forms for CPUs, which the tiny network's are not."""
    from configs import llcm

    config = llcm.get_config()
    config.model.dtype = "bfloat16"
    program = build_program(parse(config), num_classes=713, steps_per_epoch=100)
    traced = trace_step(program, make_mesh(48), 48)
    for platform in PLATFORMS:
        assert find_faults(program_text(traced, platform), program, "train", platform) == []
    faults = find_faults(program_text(traced, "cpu"), program, "train", "cuda")
    assert any("weight gradients are convolutions" in fault for fault in faults)


@pytest.mark.long
def test_a_gradient_of_which_gpus_have_no_repeatable_form_is_seen(monkeypatch):
    monkeypatch.setattr(pooling, "_gradient_by_slices", pooling._library_gradient)
    program = program_of()
    faults = find_faults(training_text(program, "cuda"), program, "train", "cuda")
    assert faults == ["2 x select_and_scatter; there should be 0 on cuda"]


_CARRIERS = ("case", "constant", "return", "broadcast_in_dim")


def operations(text):
    """Operation -> how often; without what only carries constants to the choice of a platform, or zeros from it.

    A form keeps zeros for the backward pass of the others, which nobody reads.
    """
    names = collections.Counter(re.findall(r"\bstablehlo\.(\w+)", text))
    return {name: number for name, number in names.items() if name not in _CARRIERS}


@pytest.mark.long
def test_for_a_tpu_it_is_the_program_without_forms_for_cpus(monkeypatch):
    monkeypatch.setattr(convolution, "_ENOUGH_WORK", 0)
    text = training_text(program_of(), "tpu")
    monkeypatch.setattr(
        convolution.lax, "platform_dependent", lambda *arrays, default, tpu=None, **_: (tpu or default)(*arrays)
    )
    assert operations(training_text(program_of(), "tpu")) == operations(text)


@pytest.mark.long
def test_under_pmap_there_are_the_exchanges_that_are_meant(monkeypatch):
    program = program_of(dtype="bfloat16")
    expected = mapped_collectives(program)
    for platform in PLATFORMS:
        text = mapped_text(program, platform)
        assert count_collectives(text) == expected
        assert find_faults(text, program, "train", platform, collectives=expected) == []
    # 27 BatchNorms, 116 arrays of parameters, 54 of running statistics.
    assert expected == {"all_reduce": 27 + 27 + 116 + 54, "all_gather": 4, "reduce_scatter": 2}

    real = steps.normalize_images

    def with_all_images(images):
        return jax.lax.all_gather(real(images), BATCH_AXIS, tiled=True)[: len(images)]

    monkeypatch.setattr(steps, "normalize_images", with_all_images)
    faults = find_faults(mapped_text(program, "cuda"), program, "train", "cuda", collectives=expected)
    assert "5 x all_gather between devices; there should be 4" in faults


COMPILE = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
from icre_jax.costs.compiled import num_bytes, trace_step
from icre_jax.costs.slices import list_collectives
from icre_jax.engine.parallel import make_mesh
from tests.test_precision import program_of
program = program_of()
text = trace_step(program, make_mesh(16), 16).lower().compile().as_text()
found = {row.kind: [row.count, row.num_bytes] for row in list_collectives(text)}
state = program.abstract_state
print(json.dumps([found, num_bytes(state.params), num_bytes(state.batch_stats)]))
"""


@pytest.mark.long
def test_under_jit_gradients_and_statistics_are_all_that_is_large_in_the_exchanges():
    """XLA puts the exchanges in; on simulated devices by the same partitioner as on others."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    found, parameters, statistics = json.loads(done.stdout.splitlines()[-1])
    assert "all-reduce" in found
    assert set(found) <= {"all-reduce", "all-gather", "collective-permute", "all-to-all", "reduce-scatter"}
    # The gradient once, each BatchNorm's moments forward and backward, and a few rows of the losses.
    least = parameters + statistics
    assert least <= found["all-reduce"][1] < parameters + 2 * statistics + 0.2 * parameters
    assert sum(size for kind, (_, size) in found.items() if kind != "all-reduce") < 0.5 * parameters
