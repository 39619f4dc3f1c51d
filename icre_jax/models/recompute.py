"""Parts whose inside is computed again in the backward pass: less memory for more time, the same numbers.

`nn.remat` promises this too, but XLA's CPU backend drops the barriers that it relies on: it merges what is computed
again with what was computed before, or computes it at once and keeps it. Here what enters the part the second time
depends on the gradient, in arithmetic that no compiler may leave out; so it cannot happen before the backward pass has
come that far, on any platform.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from icre_jax.models.precision import precision_here


def rematerialized(part: nn.Module, *inputs: Any, train: bool, remat: bool) -> Any:
    """`part(*inputs, train=train)`, of which the backward pass keeps only inputs and parameters if `remat` is set.

    Args:
      part: returns an array, or an array and a tree of what is only looked at, which then has no gradient.
      inputs: trees of arrays.
      train: see the part; without it there is no backward pass, and nothing is computed again.
      remat: whether to.

    Returns:
      What the part returns; its running statistics move on.
    """
    if not (remat and train) or part.is_initializing():
        return part(*inputs, train=train)
    pure, precision = part.clone(parent=None), precision_here()

    def compute(params: Any, batch_stats: Any, inputs: Any) -> tuple[Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats}
        with jax.default_matmul_precision(precision):
            result, updated = pure.apply(variables, *inputs, train=True, mutable=["batch_stats"])
        y, seen = result if isinstance(result, tuple) else (result, None)
        return y, (updated.get("batch_stats", {}), seen)

    variables = part.variables
    y, (batch_stats, seen) = _computed_twice(compute)(variables["params"], variables.get("batch_stats", {}), inputs)
    for name, value in batch_stats.items():
        part.put_variable("batch_stats", name, value)
    return y if seen is None else (y, seen)


def _computed_twice(compute: Callable[[Any, Any, Any], tuple[Array, Any]]) -> Callable[..., tuple[Array, Any]]:
    def forward(params: Any, batch_stats: Any, inputs: Any) -> tuple[tuple[Array, Any], tuple[Any, Any, Any]]:
        return compute(params, batch_stats, inputs), (params, batch_stats, inputs)

    def backward(saved: tuple[Any, Any, Any], g: tuple[Array, Any]) -> tuple[Any, Any, Any]:
        params, batch_stats, inputs = saved
        late = jax.tree.map(lambda x: not_before(g[0], x), inputs)
        _, pull_back, _ = jax.vjp(
            lambda params, inputs: compute(params, batch_stats, inputs), params, late, has_aux=True
        )
        for_params, for_inputs = pull_back(g[0])
        return for_params, jax.tree.map(jnp.zeros_like, batch_stats), for_inputs

    twice = jax.custom_vjp(compute)
    twice.defvjp(forward, backward)
    return twice


def not_before(g: Array, x: Array) -> Array:
    """x, in a form that no compiler can compute, or compute with, before it has computed the gradient g."""
    # Zero, and NaN where the gradient is no number; XLA does not know which.
    return x + (g.ravel()[0] * 0).astype(x.dtype)
