"""Where a network looks: Grad-CAM of a pair of images, and the maps that MPFR and SDCE make on their way.

Grad-CAM (Selvaraju et al., ICCV 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization") asks of a number which places of the last map it comes from. Here the number is the similarity s of two
images, the cosine of their embeddings. With A the map that is pooled, [h, w, D]:

    alpha_c = mean over h, w of ds / dA_c          heat = ReLU( sum over c of alpha_c A_c )

Heat says where the evidence for the similarity lies, as far as this linear picture holds. It is no proof that the
network is right, nor that a person is there.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from icre_jax.datasets import Modality
from icre_jax.engine.forward import normalize_images
from icre_jax.models.network import ReIDNetwork


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Where in two images their similarity comes from. `LoadedNetwork.explain` makes one.

    Attributes:
      similarity: the cosine of their embeddings, from -1 to 1.
      images: [2, H, W, 3] uint8, as the network saw them.
      heat: [2, h, w] float32, Grad-CAM of each image, at least 0, in units of the similarity; (h, w) is the size of the
        deep map. All 0 where nothing speaks for the similarity.
    """

    similarity: float
    images: np.ndarray
    heat: np.ndarray


@functools.partial(jax.jit, static_argnames=("network", "modality"))
def look_step(variables: Any, images: Array, *, network: ReIDNetwork, modality: str) -> dict[str, Any]:
    """What can be looked at in images [B, H, W, 3] uint8 of one modality.

    Returns:
      "pooled", see `ReIDNetwork.pooled_maps`; as far as these parts are there, "masks" [B, h, w, S] of MPFR and
      "attention" of SDCE, by name [B, heads, h, w, h, w], of the first place to the second; all float32.
    """
    applied: Any = network.apply(variables, normalize_images(images), modality=modality, train=False)
    maps = applied[1]
    seen: dict[str, Any] = {"pooled": network.pooled_maps(maps)}
    if "masks" in maps:
        seen["masks"] = maps["masks"]
    if "attention" in maps:
        enhanced = maps["stages"]["layer3" if network.placement == "before_layer4" else "layer4"]
        places = enhanced.shape[1:3]
        seen["attention"] = {name: x.reshape(*x.shape[:2], *places, *places) for name, x in maps["attention"].items()}
    return jax.tree.map(lambda x: x.astype(jnp.float32), seen)


@functools.partial(jax.jit, static_argnames=("network",))
def explain_maps(
    variables: Any, first: tuple[Array, ...], second: tuple[Array, ...], *, network: ReIDNetwork
) -> tuple[Array, Array]:
    """Grad-CAM of B pairs.

    Args:
      variables: of `network`.
      first, second: "pooled" of `look_step`, row i of one with row i of the other.
      network: that made them.

    Returns:
      Similarities [B], and heat [2, B, h, w], first and second; float32.
    """

    def similarities(first: tuple[Array, ...], second: tuple[Array, ...]) -> tuple[Array, Array]:
        def embed(pooled: tuple[Array, ...]) -> Array:
            z: Any = network.apply(variables, *pooled, method="embed_maps")
            return z / jnp.linalg.norm(z, axis=-1, keepdims=True)

        cosine = jnp.sum(embed(first) * embed(second), axis=-1)
        return jnp.sum(cosine), cosine  # rows do not touch each other: the sum's gradient is each row's own

    slopes, cosine = jax.grad(similarities, argnums=(0, 1), has_aux=True)(first, second)
    return cosine, jnp.stack([_heat(first, slopes[0]), _heat(second, slopes[1])])


def explain_pairs(
    variables: Any,
    first: np.ndarray,
    second: np.ndarray,
    *,
    network: ReIDNetwork,
    modalities: tuple[Modality, Modality],
) -> list[Explanation]:
    """Grad-CAM of pairs of images.

    Args:
      variables: of `network`.
      first, second: [B, H, W, 3] uint8 at the size of the network's images; row i of one with row i of the other.
      network: what embeds.
      modalities: of `first` and of `second`.

    Returns:
      One for each of the B pairs.
    """
    seen = [
        look_step(variables, images, network=network, modality=modality)["pooled"]
        for images, modality in zip((first, second), modalities, strict=True)
    ]
    similarity, heat = (np.asarray(x) for x in explain_maps(variables, *seen, network=network))
    return [
        Explanation(float(similarity[i]), np.stack([first[i], second[i]]), heat[:, i]) for i in range(len(similarity))
    ]


def _heat(maps: tuple[Array, ...], slopes: tuple[Array, ...]) -> Array:
    """[B, h, w]; of two maps, what both give."""
    parts = [
        jnp.einsum("bc,bhwc->bhw", jnp.mean(slope, axis=(1, 2)), values, precision="highest")
        for values, slope in zip(maps, slopes, strict=True)
    ]
    return jax.nn.relu(sum(parts[1:], parts[0]))
