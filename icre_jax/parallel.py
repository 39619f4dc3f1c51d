"""Where arrays live: a mesh over all devices, the batch spread over it, the state on every device.

The step itself (`icre_jax.steps`) knows nothing of devices. Under `jit` its means run over the global batch, so the
statistics of BatchNorm and every loss do too.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from icre_jax.errors import InputError
from icre_jax.models.network import ReIDNetwork
from icre_jax.state import TrainState, create_state
from icre_jax.steps import Objective, train_step

BATCH_AXIS = "batch"


def make_mesh(batch_size: int) -> Mesh:
    """All devices in one row.

    Raises:
      InputError: the rows of a batch come in pairs, and the pairs do not spread evenly over the devices.
    """
    num_devices = jax.device_count()
    if (batch_size // 2) % num_devices:
        raise InputError(
            f"A batch of {batch_size} rows is {batch_size // 2} visible-infrared pairs, which {num_devices} devices "
            f"cannot share evenly; choose num_ids_per_batch x num_images_per_id as a multiple of {num_devices}."
        )
    # Auto axes: with the default, explicit ones, a distance matrix between sharded rows is a type error.
    return jax.make_mesh((num_devices,), (BATCH_AXIS,), axis_types=(AxisType.Auto,))


def make_state(
    mesh: Mesh, seed: int, *, network: ReIDNetwork, tx: optax.GradientTransformation, image_size: tuple[int, int]
) -> TrainState:
    """Initial state, created on the devices (a copy from the host could share memory with what a step donates)."""
    create = functools.partial(create_state, network=network, tx=tx, image_size=image_size)
    return jax.jit(create, out_shardings=NamedSharding(mesh, PartitionSpec()))(np.int32(seed))


def make_train_step(
    mesh: Mesh, *, network: ReIDNetwork, tx: optax.GradientTransformation, objective: Objective
) -> Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Any]]]:
    """Compiled `train_step` over the mesh: (state, batch) -> (state, metrics). The state given in is used up."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    spread = NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    step = functools.partial(train_step, network=network, tx=tx, objective=objective)
    return jax.jit(
        step, in_shardings=(everywhere, spread), out_shardings=(everywhere, everywhere), donate_argnames=("state",)
    )
