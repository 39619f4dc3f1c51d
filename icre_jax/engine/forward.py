"""Images through a network, without its optimizer and its losses: a pure function of arrays."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from icre_jax.models.network import ReIDNetwork

# Of ImageNet, for pixels in [0, 1]; R, G, B.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def normalize_images(images: Array) -> Array:
    """[..., 3] uint8 -> float32 with ImageNet's mean and standard deviation taken out."""
    return (images.astype(jnp.float32) / 255.0 - jnp.array(_MEAN)) / jnp.array(_STD)


@functools.partial(jax.jit, static_argnames=("network", "modality", "feature"))
def embed_step(
    variables: Any, images: Array, *, network: ReIDNetwork, modality: str, feature: str = "embeddings"
) -> Array:
    """Vectors [B, D] float32, not normalised, of images [B, H, W, 3] uint8 of one modality.

    `feature` is the output to take: "embeddings" z, or the pooled "features" before the BN neck.
    """
    (outputs, _) = network.apply(variables, normalize_images(images), modality=modality, train=False)
    return outputs[feature]
