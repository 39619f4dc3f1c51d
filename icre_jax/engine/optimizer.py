"""Update rules and learning rates: three parameter groups, warm-up by step, then factors by epoch.

See docs/method.md, Training recipe. The methods whose recipe this is warm up once an epoch, at base * (e + 1) / W in
epoch e of W: with W = 1 that is no warm-up. Here the rate rises with every step; at the end of an epoch both are equal.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from icre_jax.settings.fields import Optimizer, Schedule

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
    """Labels for `optax.partition`: backbone, head (necks and classifiers), and all between them."""
    groups = {"backbone": "backbone", "head": "head", "guide_head": "head"}
    return {name: groups.get(name, "enhancement") for name in params}


def make_optimizer(settings: Optimizer, schedule: Schedule, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer of a run.

    Of backbone and head, weight decay is added to the gradient before momentum or Adam's moments (L2, as in the recipes
    that the field shares), on every parameter. Of the enhancement it is decoupled, see `_decay_what_learns`: behind a
    gate that is closed at first, L2 within Adam would be all that moves the weights, at full speed towards zero.
    """
    rates = learning_rates(settings, schedule, steps_per_epoch)

    def direction(name: str) -> optax.GradientTransformation:
        if name == "sgd":
            return optax.trace(decay=settings.momentum, nesterov=True)
        return optax.scale_by_adam(b1=settings.momentum)

    def coupled(group: str, weight_decay: float) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(weight_decay)
        return optax.chain(decay, direction(settings.name), optax.scale_by_learning_rate(rates[group]))

    rules = {
        "backbone": coupled("backbone", settings.backbone_weight_decay),
        "head": coupled("head", settings.head_weight_decay),
        "enhancement": optax.chain(
            direction(settings.enhancement_name),
            _decay_what_learns(settings.enhancement_weight_decay),
            optax.scale_by_learning_rate(rates["enhancement"]),
        ),
    }
    return optax.partition(rules, group_of_parameters)


def _decay_what_learns(weight_decay: float) -> optax.GradientTransformation:
    """Decoupled weight decay (AdamW's, p <- p - rate * weight_decay * p) of kernels that have had a gradient.

    Biases and scales, the gate's among them, are left alone; so is an array all of whose updates are zero.
    """

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        def decayed(path: Any, update: Array, param: Array) -> Array:
            if path[-1].key != "kernel":
                return update
            return update + jnp.where(jnp.any(update != 0), weight_decay, 0.0) * param

        return jax.tree_util.tree_map_with_path(decayed, updates, params), state

    return optax.GradientTransformation(init, update)
