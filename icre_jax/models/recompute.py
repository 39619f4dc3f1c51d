"""Blocks whose inside is computed again in the backward pass: less memory for more time, the same numbers.

`nn.remat` promises this too, but XLA's CPU backend drops the barriers that it relies on: it merges what is computed
again with what was computed before, or computes it at once and keeps it. Here what enters the block the second time
depends on the gradient, in arithmetic that no compiler may leave out; so it cannot happen before the backward pass has
come that far, on any platform.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax import Array


def recompute(block: nn.Module, x: Array) -> Array:
    """`block(x, train=True)`, of which only x and the parameters are kept for the backward pass.

    Args:
      block: with variables, of the collections "params" and "batch_stats"; the latter are updated.
      x: [B, H, W, C].

    Returns:
      What the block returns.
    """
    pure = block.clone(parent=None)

    def run(params: Any, batch_stats: Any, x: Array) -> tuple[Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats}
        y, updated = pure.apply(variables, x, train=True, mutable=["batch_stats"])
        return y, updated["batch_stats"]

    y, batch_stats = _computed_twice(run)(block.variables["params"], block.variables["batch_stats"], x)
    for name, value in batch_stats.items():
        block.put_variable("batch_stats", name, value)
    return y


def _computed_twice(run: Callable[[Any, Any, Array], tuple[Array, Any]]) -> Callable[..., tuple[Array, Any]]:
    def forward(params: Any, batch_stats: Any, x: Array) -> tuple[tuple[Array, Any], tuple[Any, Any, Array]]:
        return run(params, batch_stats, x), (params, batch_stats, x)

    def backward(saved: tuple[Any, Any, Array], g: tuple[Array, Any]) -> tuple[Any, Any, Array]:
        params, batch_stats, x = saved
        return jax.vjp(run, params, batch_stats, not_before(g[0], x))[1](g)

    twice = jax.custom_vjp(run)
    twice.defvjp(forward, backward)
    return twice


def not_before(g: Array, x: Array) -> Array:
    """x, in a form that no compiler can compute, or compute with, before it has computed the gradient g."""
    # Zero, and NaN where the gradient is no number; XLA does not know which.
    return x + (g.ravel()[0] * 0).astype(x.dtype)
