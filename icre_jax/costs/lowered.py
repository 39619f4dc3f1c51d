"""What is wrong with a program for a GPU or a TPU, read off it as that compiler gets it; no device is needed.

Four things that nobody sees in the numbers, and that cost most of an accelerator's speed: a form of an operation that
is for CPUs, a call of the host in the middle of a step, products of float32 numbers where the config says bfloat16, and
an exchange between devices that is not meant to be.

What stays float32 in bfloat16 on purpose, and is none of that: BatchNorm's statistics and arithmetic, softmax, the head
(pooling, BN neck, classifier), every loss with its distances, weights, running averages and the optimizer. Of these
the head and the losses multiply matrices, with a row for each image; and softmax hands a float32 gradient back to the
two products of bfloat16 queries and keys before it, 0.2 % of a step's arithmetic.
"""

import collections
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from icre_jax.engine.program import Program

_OPERATION = re.compile(r"\b((?:stablehlo|chlo|mhlo|sdy)\.\w+)\b")
_TARGET = re.compile(r"custom_call\"?\(?[^@]*@([\w.$]+)")
_PLACE = re.compile(r"loc\((#loc\d*)\)\s*$")
_DEFINITION = re.compile(r"^(#loc\d+) = loc\((.*)\)$")
_NAMED = re.compile(r'^"([^"]*)"')
# Of the third form of a convolution's three: what the weights' gradient is made of.
_WEIGHT_GRADIENT = "->[0, 1, b, f]"
# The image in blocks of 4x4 pixels is what a convolution reads.
_OF_BLOCKS = re.compile(r": \(tensor<\d+x\d+x\d+x48x")
# Which device has what; they are gone when the program is compiled.
_ANNOTATIONS = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}
_HOST = {"stablehlo.infeed", "stablehlo.outfeed", "stablehlo.send", "stablehlo.recv"}
_COLLECTIVES = {
    f"stablehlo.{kind}"
    for kind in (
        "all_reduce",
        "all_gather",
        "reduce_scatter",
        "all_to_all",
        "collective_permute",
        "collective_broadcast",
    )
}
# The product of `jax.nn.dot_product_attention` that its softmax reads.
_BEFORE_SOFTMAX = "attention/vmap(BTNH,BSNH->BNTS)/"
# Parts of the network that are float32 in every config, by the names of their modules.
_FLOAT32_PARTS = ("head", "guide_head")


def program_text(traced: jax.stages.Traced, platform: str) -> str:
    """The program as StableHLO, with the place in the network that each operation is from.

    Args:
      traced: `jax.jit(f).trace(shapes)`.
      platform: "cuda", "tpu", "rocm" or "cpu"; whatever this machine has.
    """
    return traced.lower(lowering_platforms=(platform,)).as_text(debug_info=True)


def find_faults(
    text: str, program: Program, task: str, platform: str, *, collectives: Mapping[str, int] | None = None
) -> list[str]:
    """Everything in a program that does not belong there, each with its place; none of it if all is well.

    Args:
      text: of `program_text`.
      program: what it was made from.
      task: "train", "visible" or "infrared", which is embedding.
      platform: that it was lowered for, any but "cpu".
      collectives: how many of each kind (`count_collectives`) there should be; None for none at all. Under `jit` they
        come into being when a program is compiled for several devices, see `icre_jax.costs.slices.list_collectives`.
    """
    operations = list(_operations(text))
    return [
        *_calls_of_the_host(operations),
        *_forms_for_cpus(operations, program, task, platform),
        *_float32_products(operations, program),
        *_exchanges(operations, collectives or {}),
    ]


def count_collectives(text: str) -> dict[str, int]:
    """The exchanges between devices that a program asks for itself: kind -> how many."""
    kinds = (name.removeprefix("stablehlo.") for name, _, _ in _operations(text) if name in _COLLECTIVES)
    return dict(collections.Counter(kinds))


def mapped_collectives(program: Program, num_gathered: int = 2) -> dict[str, int]:
    """What the step asks for under `pmap`, see `icre_jax.engine.steps.train_step`.

    Each BatchNorm adds up its moments once, and the gradient of that once more. Every array of the gradient and of the
    running statistics is averaged once; XLA joins these. Labels, modalities and the outputs that a loss reads are
    gathered, and the gradients of those outputs come back as sums of each device's own rows.

    Args:
      program: what the step computes, its batch in one piece.
      num_gathered: outputs of the network that the objective reads; embeddings and logits in the recipe.
    """
    state = program.abstract_state
    statistics = len(jax.tree.leaves(state.batch_stats))
    return {
        "all_reduce": 2 * (statistics // 2) + len(jax.tree.leaves(state.params)) + statistics,
        "all_gather": 2 + num_gathered,
        "reduce_scatter": num_gathered,
    }


def _operations(text: str) -> Iterator[tuple[str, str, str]]:
    """(name, line, place in the network) of each operation; "" where the place is not known."""
    lines = text.splitlines()
    definitions: dict[str, str] = {f[1]: f[2] for line in lines if (f := _DEFINITION.match(line))}
    for line in lines:
        found = _OPERATION.search(line)
        if found and not line.startswith("#"):
            place = _PLACE.search(line)
            named = _NAMED.match(definitions.get(place[1], "")) if place else None
            yield found[1], line, named[1] if named else ""


def _calls_of_the_host(operations: list[tuple[str, str, str]]) -> Iterator[str]:
    for name, line, place in operations:
        if name in _HOST:
            yield f"{name} at {place}: the device waits for the host"
        elif name.endswith("custom_call"):
            target = _TARGET.search(line)
            if target is None or target[1] not in _ANNOTATIONS:
                what = target[1] if target else line.strip()
                yield f"custom call {what} at {place}: a call of the host, or of a library of one platform"


def _forms_for_cpus(
    operations: list[tuple[str, str, str]], program: Program, task: str, platform: str
) -> Iterator[str]:
    """What the library's operations would be in the form for CPUs is found by what is missing then.

    One of the library's is not for GPUs, see `icre_jax.models.pooling`.
    """
    names = collections.Counter(name.removeprefix("stablehlo.") for name, _, _ in operations)
    kernels, stems = _count_kernels(program.abstract_state.params, task)
    convolutions = [line for name, line, _ in operations if name == "stablehlo.convolution"]
    gradients = sum(_WEIGHT_GRADIENT in line for line in convolutions)
    # See `icre_jax.models.stem`.
    in_blocks = task == "train" and platform == "tpu" and all(length % 4 == 0 for length in program.image_size)
    if task == "train":
        if gradients != kernels:
            yield f"{gradients} weight gradients are convolutions, of {kernels} kernels larger than 1x1"
        scattered = stems if platform == "tpu" and not in_blocks else 0
        if names["select_and_scatter"] != scattered:
            yield f"{names['select_and_scatter']} x select_and_scatter; there should be {scattered} on {platform}"
    elif gradients:
        yield f"{gradients} weight gradients in a program that only embeds"
    # Computed again, or once more in micro-batches, there are more of them; the images themselves need no gradient.
    least = 2 * kernels - stems if task == "train" else kernels
    if len(convolutions) - gradients < least:
        yield f"{len(convolutions) - gradients} convolutions forward and to the input; there should be {least} or more"
    if in_blocks:
        found = sum(bool(_OF_BLOCKS.search(line)) and _WEIGHT_GRADIENT not in line for line in convolutions)
        if found < stems:
            yield f"{found} stems are in blocks, of {stems}"
    elif names["reduce_window"] < stems:
        yield f"{names['reduce_window']} max-pools are the library's, of {stems}"


def _count_kernels(params: Any, task: str) -> tuple[int, int]:
    """Kernels larger than 1x1 that a program uses, and stems among them."""
    other = {"visible": "infrared", "infrared": "visible"}.get(task)
    kernels = stems = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        if leaf.ndim != 4 or leaf.shape[0] == 1 or (other is not None and other in name):
            continue
        kernels += 1
        stems += "_stem" in name
    return kernels, stems


def _float32_products(operations: list[tuple[str, str, str]], program: Program) -> Iterator[str]:
    if program.network.backbone.dtype == jnp.float32:
        return
    for name, line, place in operations:
        if name not in ("stablehlo.convolution", "stablehlo.dot_general", "stablehlo.dot"):
            continue
        types = re.findall(r"tensor<(?:\d+x)*(\w+)>", line.split(" : ")[-1])
        of_softmax = "bf16" in types[:2] and _BEFORE_SOFTMAX in place and "transpose(" in place
        if "f32" in types[:2] and not of_softmax and not _may_be_float32(place):
            yield f"{name} of {' and '.join(types[:2])} at {place}: {line.split(' : ')[-1].split(' loc(')[0].strip()}"


def _may_be_float32(place: str) -> bool:
    """Whether an operation is of the head or of a loss: no other part of the network multiplies float32 numbers."""
    parts = re.split(r"[/()]", place)
    if "ReIDNetwork" not in parts:
        return bool(place)  # a loss; what has no place is not known to be one
    return any(part in _FLOAT32_PARTS for part in parts)


def _exchanges(operations: list[tuple[str, str, str]], expected: Mapping[str, int]) -> Iterator[str]:
    found = collections.Counter(name.removeprefix("stablehlo.") for name, _, _ in operations if name in _COLLECTIVES)
    for kind in sorted({*found, *expected}):
        if found[kind] != expected.get(kind, 0):
            yield f"{found[kind]} x {kind} between devices; there should be {expected.get(kind, 0)}"
