"""Update rules and learning rates: three parameter groups, warm-up by step, then factors by epoch.

See docs/method.md, Training recipe. The methods whose recipe this is warm up once an epoch, at base * (e + 1) / W in
epoch e of W: with W = 1 that is no warm-up. Here the rate rises with every step; at the end of an epoch both are equal.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from icre_jax.settings import Optimizer, Schedule

GROUPS = ("backbone", "enhancement", "head")


def learning_rate(base: float, schedule: Schedule, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate of one group as a function of the step, from 0.

    It is base, times the factor of the last boundary epoch that was reached, and within the first W = `warmup_epochs`
    epochs also times (step + 1) / (W * steps_per_epoch). After the last epoch it stays what it was.
    """
    rates = np.full(schedule.num_epochs, base, dtype=np.float64)
    for boundary, factor in zip(schedule.boundaries, schedule.factors, strict=True):
        rates[boundary:] = base * factor
    table = jnp.asarray(rates, jnp.float32)
    warmup_steps = schedule.warmup_epochs * steps_per_epoch

    def rate(step: Any) -> Array:
        reached = table[jnp.minimum(step // steps_per_epoch, len(rates) - 1)]
        return reached * jnp.minimum((step + 1) / max(warmup_steps, 1), 1.0)

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
