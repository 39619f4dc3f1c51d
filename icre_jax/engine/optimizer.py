"""Update rules and learning rates: three parameter groups, schedules by epoch (docs/method.md, Training recipe)."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from icre_jax.settings import Optimizer, Schedule

GROUPS = ("backbone", "enhancement", "head")


def learning_rate(base: float, schedule: Schedule, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate of one group as a function of the step.

    Within the first `warmup_epochs` epoch e (from 0) has base * (e + 1) / warmup_epochs; from each boundary epoch on,
    the rate is base times its factor. It is constant within an epoch.
    """
    rates = np.full(schedule.num_epochs, base, dtype=np.float64)
    for boundary, factor in zip(schedule.boundaries, schedule.factors, strict=True):
        rates[boundary:] = base * factor
    warmup = min(schedule.warmup_epochs, schedule.num_epochs)
    rates[:warmup] *= np.arange(1, warmup + 1) / max(schedule.warmup_epochs, 1)
    table = jnp.asarray(rates, jnp.float32)

    def rate(step: Any) -> Array:
        return table[jnp.minimum(step // steps_per_epoch, len(rates) - 1)]

    return rate


def learning_rates(settings: Optimizer, schedule: Schedule, steps_per_epoch: int) -> dict[str, optax.Schedule]:
    """Group name -> learning rate by step."""
    bases = {group: getattr(settings, f"{group}_learning_rate") for group in GROUPS}
    return {group: learning_rate(base, schedule, steps_per_epoch) for group, base in bases.items()}


def group_of_parameters(params: dict[str, Any]) -> dict[str, str]:
    """Labels for `optax.partition`: backbone, head (BN neck and classifier), and all between them."""
    return {name: name if name in GROUPS else "enhancement" for name in params}


def make_optimizer(settings: Optimizer, schedule: Schedule, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer of a run.

    Weight decay is added to the gradient before momentum or Adam's moments (L2, as in the recipes that the field
    shares), on every parameter.
    """

    def rule(rate: optax.Schedule) -> optax.GradientTransformation:
        if settings.name == "sgd":
            direction = optax.trace(decay=settings.momentum, nesterov=True)
        else:
            direction = optax.scale_by_adam(b1=settings.momentum)
        return optax.chain(
            optax.add_decayed_weights(settings.weight_decay), direction, optax.scale_by_learning_rate(rate)
        )

    rates = learning_rates(settings, schedule, steps_per_epoch)
    return optax.partition({group: rule(rate) for group, rate in rates.items()}, group_of_parameters)
