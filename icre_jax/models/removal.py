"""A trained network with one of its parts taken out, to see what the part does for it.

Nothing is trained again and no code of the network is asked: what takes a part out is a change of its weights. A part
that can be taken out without loss does nothing, however good the network is.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import norm

Params = Mapping[str, Any]

# In the order of the way through the network.
PARTS = {
    "masks": "every mask of MPFR the same at all positions, at the level of a usual one",
    "guide": "F_ig a constant: what it is where every channel has its mean",
    "cross_attention": "nothing from the cross-attention",
    "self_attention": "nothing from the self-attention",
    "refinement": "nothing from the MLP after them",
    "gate": "the gate's scale 0, its biases kept: the same offset for every image",
    "enhancement": "nothing added to the deep features",
}


def parts_of(params: Params) -> list[str]:
    """Which of `PARTS` a network has."""
    return [part for part in PARTS if _changes(params, part)]


def without(variables: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The same network with a part taken out.

    Args:
      variables: {"params", "batch_stats"} of a `ReIDNetwork`; not changed.
      part: one of `parts_of`.

    Returns:
      Variables of the same shapes.

    Raises:
      ValueError: the network has no such part.
    """
    params = variables["params"]
    changes = _changes(params, part)
    if not changes:
        raise ValueError(f"The network has no {part!r} to take out; it has {', '.join(parts_of(params)) or 'none'}.")
    for path, change in changes.items():
        params = _changed(params, path, change)
    return {**variables, "params": params}


_Change = Callable[[Params], dict[str, Any]]  # of the parameters of one module


def _changes(params: Params, part: str) -> dict[tuple[str, ...], _Change]:
    """Path of a module -> what becomes of its parameters."""
    mpfr, sdce = params.get("mpfr", {}), params.get("sdce", {})
    gates = [path for path in (("gate",), ("sdce", "gate"), ("control", "gate")) if _has(params, path)]
    if part == "masks":
        names = [name for name in mpfr if name.startswith("mask_")]
        return {("mpfr", name): _flat(mpfr[name.replace("mask", "projection")]["bn"]) for name in names}
    if part == "guide":
        if mpfr:
            return {("mpfr", "fusion_bn"): _zero("scale")}
        return {("projection", "bn"): _zero("scale")} if "projection" in params else {}
    if part in ("cross_attention", "self_attention"):
        return {("sdce", part, "out"): _zero("kernel", "bias")} if part in sdce else {}
    if part == "refinement":
        return {("sdce", "mlp_out"): _zero("kernel", "bias")} if "mlp_out" in sdce else {}
    if part == "gate":
        return {(*path, "bn"): _zero("scale") for path in gates}
    if part == "enhancement":
        offset = {("control",): _zero("offset")} if _has(params, ("control", "offset")) else {}
        return offset | {(*path, "bn"): _zero("scale", "bias") for path in gates}
    raise ValueError(f"part is {part!r}; allowed are {', '.join(PARTS)}.")


def _zero(*names: str) -> _Change:
    return lambda module: {**module, **{name: jnp.zeros_like(module[name]) for name in names}}


def _flat(bn: Params) -> _Change:
    """A mask without its kernel; its bias takes in what the kernel gives of T's expected value."""

    def change(mask: Params) -> dict[str, Any]:
        level = _expected_relu(bn["bias"], jnp.abs(bn["scale"])) @ mask["kernel"]
        return {"kernel": jnp.zeros_like(mask["kernel"]), "bias": mask["bias"] + level}

    return change


def _expected_relu(mean: Array, std: Array) -> Array:
    """E[max(x, 0)] of x ~ N(mean, std^2), which is what a BatchNorm gives out before its ReLU."""
    std = jnp.maximum(std, 1e-12)
    return mean * norm.cdf(mean / std) + std * norm.pdf(mean / std)


def _has(params: Params, path: tuple[str, ...]) -> bool:
    for name in path:
        if name not in params:
            return False
        params = params[name]
    return True


def _changed(params: Params, path: tuple[str, ...], change: _Change) -> dict[str, Any]:
    """The tree with one module changed; the rest is shared."""
    if not path:
        return change(params)
    return {**params, path[0]: _changed(params[path[0]], path[1:], change)}
