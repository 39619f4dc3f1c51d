"""SDCE: a two-stage transformer that carries identity clues into the deep features (docs/method.md, SDCE)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from icre_jax.models.layers import batch_norm, conv


class Attention(nn.Module):
    """Multi-head attention of one image's tokens to tokens of the same image."""

    width: int
    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, queries: Array, keys: Array) -> tuple[Array, Array]:
        """Attend.

        Args:
          queries: [B, L, D], what asks.
          keys: [B, M, E], what is asked, keys and values alike.

        Returns:
          [B, L, width], and the attention map [B, heads, L, M] float32, rows of which sum to one. Nobody who does not
          read the map pays for it: compiled programs leave it out.
        """

        def heads(x: Array, name: str) -> Array:
            shape = (self.num_heads, self.width // self.num_heads)
            return nn.DenseGeneral(shape, dtype=self.dtype, name=name)(x)

        q, k, v = heads(queries, "query"), heads(keys, "key"), heads(keys, "value")
        mixed = jax.nn.dot_product_attention(q, k, v)
        out = nn.DenseGeneral(self.width, axis=(-2, -1), dtype=self.dtype, name="out")(mixed)
        scores = jnp.einsum("blhd,bmhd->bhlm", q, k, preferred_element_type=jnp.float32)
        return out, jax.nn.softmax(scores / q.shape[-1] ** 0.5, axis=-1)


class ResidualProjection(nn.Module):
    """BN0(conv1x1(x)): what is added to the deep features. Its scale starts at 0, so at step 0 nothing is."""

    channels: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """[B, h, w, D] -> [B, h, w, channels]."""
        x = conv(self.channels, dtype=self.dtype, name="conv")(x)
        return batch_norm(train=train, dtype=self.dtype, axis_name=self.axis_name, name="bn", zero=True)(x)


class SDCE(nn.Module):
    """Semantic distillation cascade enhancement: distil (cross-attention), enhance (self-attention), refine (MLP).

    Attributes:
      width: d, of the tokens.
      num_heads: of both attentions.
      mlp_ratio: hidden width of the MLP over d.
      cross_attention, self_attention, refinement: which of the three steps are there.
      dtype, axis_name: as in `DualStreamResNet`.
    """

    width: int = 512
    num_heads: int = 8
    mlp_ratio: int = 4
    cross_attention: bool = True
    self_attention: bool = True
    refinement: bool = True
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, deep: Array, guide: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
        """Enhance the deep features.

        Args:
          deep: F4 [B, h, w, D].
          guide: F_ig [B, h, w, C].
          train: use (and update) the statistics of the batch.

        Returns:
          F_en [B, h, w, D], equal to F4 at step 0, and the attention maps by name: "cross" and "self",
          [B, heads, h w, h w], as far as these steps are there.
        """

        def norm(x: Array, name: str) -> Array:
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)(x)

        batch, height, width, channels = deep.shape
        x = nn.Dense(self.width, dtype=self.dtype, name="embed")(deep.reshape(batch, height * width, channels))
        guide = guide.reshape(batch, height * width, -1)
        maps = {}
        if self.cross_attention:
            attend = Attention(self.width, self.num_heads, self.dtype, name="cross_attention")
            y, maps["cross"] = attend(norm(x, "query_norm"), norm(guide, "guide_norm"))
            x = x + y
        if self.self_attention:
            attend = Attention(self.width, self.num_heads, self.dtype, name="self_attention")
            normed = norm(x, "self_norm")
            y, maps["self"] = attend(normed, normed)
            x = x + y
        if self.refinement:
            y = nn.Dense(self.mlp_ratio * self.width, dtype=self.dtype, name="mlp_in")(norm(x, "mlp_norm"))
            x = x + nn.Dense(self.width, dtype=self.dtype, name="mlp_out")(nn.gelu(y, approximate=False))
        x = x.reshape(batch, height, width, self.width)
        return deep + ResidualProjection(channels, self.dtype, self.axis_name, name="way_back")(x, train=train), maps
