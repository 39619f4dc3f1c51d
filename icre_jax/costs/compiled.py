"""FLOPs and memory of the real programs, as XLA counts them. They are compiled, never run; nothing is allocated.

FLOPs are counted in the program as it is handed to the compiler: a multiplication and an addition are two, a
convolution is counted where its window lies on the image, what nobody reads is not counted. For convolutions, dense
layers and attention this is the arithmetic by hand (`tests/test_costs.py`), on every platform: it is counted in the
form for GPUs, because on a CPU gradients of convolutions take another one (`models/convolution.py`), which
multiplies the padding too. A backend may then hide work in calls of its own, which it counts or not. Its count of the
compiled program stands beside it as a check.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from icre_jax.engine.forward import embed_step
from icre_jax.engine.parallel import make_train_step
from icre_jax.engine.program import Program


@dataclass(frozen=True)
class Cost:
    """What one program costs. Bytes are those of one device.

    Attributes:
      num_images: images that one call takes on all devices.
      num_devices: that share them.
      flops: of one call, on all devices.
      compiled_flops: the same as counted after compiling.
      argument_bytes: everything that is handed to the program; it keeps these for itself while it runs. They are
        weights and running statistics, and:
      optimizer_bytes: the optimizer's state among the arguments.
      batch_bytes: images, labels and modalities among the arguments.
      output_bytes: what it gives back and cannot write over an argument (the state of training it can: it is donated).
      temporary_bytes: what lives only inside: activations kept for the backward pass, gradients, scratch.
    """

    num_images: int
    num_devices: int
    flops: float
    compiled_flops: float
    argument_bytes: int
    optimizer_bytes: int
    batch_bytes: int
    output_bytes: int
    temporary_bytes: int

    @property
    def flops_per_image(self) -> float:
        """FLOPs of one call over its images."""
        return self.flops / self.num_images

    @property
    def temporary_bytes_per_image(self) -> float:
        """Activations and scratch over the images of one device."""
        return self.temporary_bytes * self.num_devices / self.num_images

    @property
    def variable_bytes(self) -> int:
        """Weights and running statistics of BatchNorm."""
        return self.argument_bytes - self.optimizer_bytes - self.batch_bytes

    @property
    def peak_bytes(self) -> int:
        """What one device must hold while the program runs."""
        return self.argument_bytes + self.output_bytes + self.temporary_bytes

    def plain(self) -> dict[str, float]:
        """JSON-able: attributes and what follows from them."""
        derived = ("flops_per_image", "temporary_bytes_per_image", "variable_bytes", "peak_bytes")
        return asdict(self) | {name: getattr(self, name) for name in derived}


def analyse(
    traced: jax.stages.Traced, *, num_images: int, num_devices: int = 1, optimizer_bytes: int = 0, batch_bytes: int
) -> Cost:
    """Compile a program and read XLA's own analyses of it.

    Args:
      traced: of a compiled function: `jax.jit(f).trace(shapes)`.
      num_images, num_devices, optimizer_bytes, batch_bytes: what the program takes, see `Cost`.
    """
    return read(
        traced.lower().compile(),
        flops=count_flops(traced),
        num_images=num_images,
        num_devices=num_devices,
        optimizer_bytes=optimizer_bytes,
        batch_bytes=batch_bytes,
    )


def read(
    compiled: jax.stages.Compiled,
    *,
    flops: float,
    num_images: int,
    num_devices: int,
    optimizer_bytes: int,
    batch_bytes: int,
) -> Cost:
    """The analyses of a program that is compiled already; see `analyse`."""
    memory: Any = compiled.memory_analysis()
    return Cost(
        num_images=num_images,
        num_devices=num_devices,
        flops=flops,
        compiled_flops=_flops(compiled) * num_devices,
        argument_bytes=memory.argument_size_in_bytes,
        optimizer_bytes=optimizer_bytes,
        batch_bytes=batch_bytes,
        output_bytes=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
    )


def training_cost(program: Program, mesh: Mesh, num_images: int) -> Cost:
    """Of one step of training: forward, backward and update. The batch in one piece: XLA counts a loop once.

    Args:
      program: network, update rule and objective.
      mesh: of `make_mesh(num_images)`.
      num_images: rows of the batch, on all devices together.
    """
    traced = trace_step(replace(program, accumulate_steps=1), mesh, num_images)
    return analyse(traced, num_images=num_images, num_devices=mesh.size, **step_bytes(program, mesh, num_images))


def trace_step(program: Program, mesh: Mesh, num_images: int) -> jax.stages.Traced:
    """The step of training for the devices of the mesh, before it is lowered for their platform."""
    step = make_train_step(mesh, program)
    batch = program.abstract_batch(num_images)
    return step.__wrapped__.trace(program.abstract_state, batch)  # type: ignore[attr-defined]


def step_bytes(program: Program, mesh: Mesh, num_images: int) -> dict[str, int]:
    """What of a step's arguments is what, on one device; see `Cost`."""
    return {
        "optimizer_bytes": num_bytes(program.abstract_state.opt_state),
        "batch_bytes": num_bytes(program.abstract_batch(num_images)) // mesh.size,
    }


def embedding_cost(program: Program, num_images: int) -> Cost:
    """Of embedding `num_images` images of one modality on one device; both modalities cost the same."""
    images = program.abstract_batch(num_images)["image"]
    variables = program.abstract_state.variables
    traced = embed_step.trace(variables, images, network=program.network, modality="visible")
    return analyse(traced, num_images=num_images, batch_bytes=num_bytes(images))


def num_bytes(tree: Any) -> int:
    """Of all arrays (or shapes) in a tree."""
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def count_flops(traced: jax.stages.Traced) -> float:
    """Of a program in its form for GPUs, on all devices: a TPU's multiplies filling too (`icre_jax/models/stem.py`)."""
    return _flops(traced.lower(lowering_platforms=("cuda",)))


def _flops(stage: Any) -> float:
    return float(stage.cost_analysis()["flops"])
