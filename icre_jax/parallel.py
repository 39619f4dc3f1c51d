"""Where arrays live, and the two doors to several devices: `jit` over a mesh, and `pmap`.

Behind both is the same step (`icre_jax.steps`), and both act on the global batch: BatchNorm's statistics, centers,
mining and every loss. The state has no device axis, so a checkpoint moves between doors and numbers of devices.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from icre_jax.errors import InputError
from icre_jax.models.network import ReIDNetwork, over_axis
from icre_jax.state import TrainState, create_state
from icre_jax.steps import Objective, train_step

BATCH_AXIS = "batch"

Step = Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Any]]]


def make_mesh(batch_size: int, devices: Sequence[Any] | None = None) -> Mesh:
    """All devices in one row.

    Args:
      batch_size: rows of a batch.
      devices: others than those of this machine, to compile for them.

    Raises:
      InputError: the rows of a batch come in pairs, and the pairs do not spread evenly over the devices.
    """
    num_devices = jax.device_count() if devices is None else len(devices)
    if (batch_size // 2) % num_devices:
        raise InputError(
            f"A batch of {batch_size} rows is {batch_size // 2} visible-infrared pairs, which {num_devices} devices "
            f"cannot share evenly; choose num_ids_per_batch x num_images_per_id as a multiple of {num_devices}."
        )
    # Auto axes: with the default, explicit ones, a distance matrix between sharded rows is a type error.
    return jax.make_mesh((num_devices,), (BATCH_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def make_state(
    mesh: Mesh, seed: int, *, network: ReIDNetwork, tx: optax.GradientTransformation, image_size: tuple[int, int]
) -> TrainState:
    """Initial state, created on the devices (a copy from the host could share memory with what a step donates)."""
    create = functools.partial(create_state, network=network, tx=tx, image_size=image_size)
    return jax.jit(create, out_shardings=NamedSharding(mesh, PartitionSpec()))(np.int32(seed))


def make_train_step(
    mesh: Mesh, *, door: str, network: ReIDNetwork, tx: optax.GradientTransformation, objective: Objective
) -> Step:
    """Compiled `train_step` over all devices of the mesh.

    Args:
      mesh: of `make_mesh`.
      door: "jit" or "pmap".
      network: the network.
      tx: the optimizer.
      objective: the loss of the global batch.

    Returns:
      (state, batch) -> (state, metrics). The state given in is used up.
    """
    step = functools.partial(train_step, tx=tx, objective=objective)
    if door == "jit":
        return _jit(mesh, functools.partial(step, network=network))
    return _pmap(mesh, functools.partial(step, network=over_axis(network, BATCH_AXIS), axis_name=BATCH_AXIS))


def _jit(mesh: Mesh, step: Step) -> Step:
    everywhere = NamedSharding(mesh, PartitionSpec())
    spread = NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    return jax.jit(
        step, in_shardings=(everywhere, spread), out_shardings=(everywhere, everywhere), donate_argnames=("state",)
    )


def _pmap(mesh: Mesh, step: Step) -> Step:
    num_devices = mesh.size
    # None for the state, in and out: it never carries a device axis.
    mapped = jax.pmap(
        step, axis_name=BATCH_AXIS, in_axes=(None, 0), out_axes=(None, None), devices=list(mesh.devices.flat)
    )

    def run(state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, dict[str, Any]]:
        # Consecutive rows to each device, so that pairs stay pairs.
        return mapped(state, {name: rows.reshape(num_devices, -1, *rows.shape[1:]) for name, rows in batch.items()})

    return run
