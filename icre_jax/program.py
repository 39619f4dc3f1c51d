"""What a config computes, without data and without arrays: its network, its update rule and its objective."""

import functools
from dataclasses import dataclass

import jax
import numpy as np
import optax

from icre_jax.losses.objective import objective
from icre_jax.models.network import ReIDNetwork, build_network
from icre_jax.optimizer import make_optimizer
from icre_jax.settings import Settings
from icre_jax.state import TrainState, create_state
from icre_jax.steps import Objective


@dataclass(frozen=True, eq=False)
class Program:
    """One config, ready to be compiled.

    Attributes:
      network, tx, objective: what `icre_jax.steps.train_step` takes.
      image_size: (height, width) in pixels.
      accumulate_steps, ema_decay: see `icre_jax.steps.train_step`.
    """

    network: ReIDNetwork
    tx: optax.GradientTransformation
    objective: Objective
    image_size: tuple[int, int]
    accumulate_steps: int = 1
    ema_decay: float | None = None

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """The state of training as shapes."""
        create = functools.partial(
            create_state,
            network=self.network,
            tx=self.tx,
            image_size=self.image_size,
            ema=self.ema_decay is not None,
        )
        return jax.eval_shape(create, np.int32(0))


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
        network=build_network(settings.model, num_classes),
        tx=make_optimizer(settings.optimizer, settings.schedule, steps_per_epoch),
        objective=functools.partial(objective, **settings.loss.model_dump()),
        image_size=settings.data.image_size,
        accumulate_steps=settings.optimizer.accumulate_steps,
        ema_decay=settings.optimizer.ema_decay,
    )
