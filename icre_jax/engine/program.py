"""What a config computes, without data and without arrays: its network, its update rule and its objective."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jax import Array

from icre_jax.engine.optimizer import make_optimizer
from icre_jax.engine.state import TrainState, create_state
from icre_jax.losses.objective import objective
from icre_jax.models.network import ReIDNetwork, build_network
from icre_jax.settings.fields import Settings

# (outputs, labels, modality) -> (loss, its parts by name), of the global batch.
Objective = Callable[[dict[str, Array], Array, Array], tuple[Array, dict[str, Array]]]


@dataclass(frozen=True, eq=False)
class Program:
    """One config, ready to be compiled.

    Attributes:
      network: the network.
      tx: the optimizer.
      objective: the loss of the global batch.
      image_size: (height, width) in pixels.
      accumulate_steps: micro-batches that a batch passes the network in; see `icre_jax.engine.steps.train_step`.
      ema_decay: of the running averages of the weights; 0 where none are kept.
    """

    network: ReIDNetwork
    tx: optax.GradientTransformation
    objective: Objective
    image_size: tuple[int, int]
    accumulate_steps: int = 1
    ema_decay: float = 0.0

    @functools.cached_property
    def create_state(self) -> Callable[[Any], TrainState]:
        """([] int seed) -> the state before the first step. Pure, and traced once for its shapes and its numbers."""
        return jax.jit(
            functools.partial(
                create_state, network=self.network, tx=self.tx, image_size=self.image_size, ema=self.ema_decay > 0
            )
        )

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """The state of training as shapes."""
        return jax.eval_shape(self.create_state, np.int32(0))

    def abstract_batch(self, num_images: int) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of training as shapes; see `icre_jax.engine.steps.train_step`."""
        rows = jax.ShapeDtypeStruct((num_images,), np.int32)
        return {
            "image": jax.ShapeDtypeStruct((num_images, *self.image_size, 3), np.uint8),
            "label": rows,
            "modality": rows,
        }


def build_program(settings: Settings, *, num_classes: int, steps_per_epoch: int) -> Program:
    """Put a config together.

    Args:
      settings: the config.
      num_classes: training identities.
      steps_per_epoch: length of an epoch, for the schedule.

    Raises:
      InputError: sizes that do not fit each other, see `build_network`.
    """
    return Program(
        network=build_network(settings, num_classes),
        tx=make_optimizer(settings.optimizer, settings.schedule, steps_per_epoch),
        objective=functools.partial(objective, **settings.loss.model_dump()),
        image_size=settings.data.image_size,
        accumulate_steps=settings.optimizer.accumulate_steps,
        ema_decay=settings.optimizer.ema_decay,
    )
