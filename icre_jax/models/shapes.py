"""What every module of the network gives out and holds, without computing or allocating anything."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from icre_jax.models.network import ReIDNetwork


def trace_modules(
    network: ReIDNetwork, image_size: tuple[int, int]
) -> tuple[dict[tuple[str, ...], tuple[int, ...]], dict[str, Any]]:
    """Run the network on shapes.

    Args:
      network: the network.
      image_size: (height, width) in pixels.

    Returns:
      Path of every module, as ("mpfr", "projection_1"), in the order in which they begin -> shape of its output for one
      image, [h, w, C], [L, C] or [D]; and the parameters as a tree of `jax.ShapeDtypeStruct`. Where a module gives out
      several arrays (a map and its mask) the shape is that of the first; where it names them, that of the last.
    """
    outputs: dict[tuple[str, ...], tuple[int, ...]] = {}

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        outputs[context.module.path] = ()  # holds the place: a module begins before its parts
        given = call(*args, **kwargs)
        first = given[0] if isinstance(given, tuple) else given
        array = list(first.values())[-1] if isinstance(first, dict) else first
        outputs[context.module.path] = array.shape[1:]
        return given

    def create(key: Any) -> Any:
        images = jnp.zeros((2, *image_size, 3), jnp.float32)
        return network.init(key, images, modality="paired", train=True)["params"]

    with nn.intercept_methods(watch):
        params = jax.eval_shape(create, jax.random.key(0))
    return {path: shape for path, shape in outputs.items() if path}, params
