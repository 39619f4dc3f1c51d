"""SDCE: a two-stage transformer that carries identity clues into the deep features (docs/method.md, SDCE)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from icre_jax.models.gate import Gate

# Of the cross-attention, who is query, key and value: the deep features or the identity-guided map.
ROLES = {
    "deep_guide_guide": ("deep", "guide", "guide"),
    "guide_deep_deep": ("guide", "deep", "deep"),
    "guide_guide_deep": ("guide", "guide", "deep"),
}


class Attention(nn.Module):
    """Multi-head attention of one image's tokens to tokens of the same image."""

    width: int
    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, queries: Array, keys: Array, values: Array) -> tuple[Array, Array]:
        """Attend.

        Args:
          queries: [B, L, D], what asks.
          keys: [B, M, E], what is asked.
          values: [B, M, F], what is answered.

        Returns:
          [B, L, width], and the attention map [B, heads, L, M] float32, rows of which sum to one. Nobody who does not
          read the map pays for it: compiled programs leave it out.
        """

        def heads(x: Array, name: str) -> Array:
            shape = (self.num_heads, self.width // self.num_heads)
            return nn.DenseGeneral(shape, dtype=self.dtype, name=name)(x)

        q, k, v = heads(queries, "query"), heads(keys, "key"), heads(values, "value")
        mixed = jax.nn.dot_product_attention(q, k, v)
        out = nn.DenseGeneral(self.width, axis=(-2, -1), dtype=self.dtype, name="out")(mixed)
        scores = jnp.einsum("blhd,bmhd->bhlm", q, k, preferred_element_type=jnp.float32)
        return out, jax.nn.softmax(scores / q.shape[-1] ** 0.5, axis=-1)


def positions(height: int, width: int, channels: int) -> np.ndarray:
    """Where a token stands, in sines and cosines: [h w, channels] float32, the same for images of any content.

    The first half of the channels tells the row, the second the column, each by sines and then cosines of wavelengths
    from 2 pi to 20,000 pi (as in "Attention is all you need", in two dimensions). What does not divide by 4 is 0.
    """
    frequencies = 10_000.0 ** -np.linspace(0, 1, channels // 4, endpoint=False)
    table = np.zeros((height, width, channels), np.float32)
    for axis, places in enumerate((np.arange(height)[:, None], np.arange(width)[None, :])):
        angles = places[..., None] * frequencies
        first = axis * (channels // 2)
        table[..., first : first + len(frequencies)] = np.sin(angles)
        table[..., first + len(frequencies) : first + 2 * len(frequencies)] = np.cos(angles)
    return table.reshape(height * width, channels)


class SDCE(nn.Module):
    """Semantic distillation cascade enhancement: distil (cross-attention), enhance (self-attention), refine (MLP).

    What it gives is added to the deep features, so that at step 0, with a gate that starts at 0, nothing changes.

    Attributes:
      width: d, of the tokens.
      num_heads: of both attentions.
      mlp_ratio: hidden width of the MLP over d.
      cross_attention, self_attention, refinement: which of the three steps are there.
      roles: of the cross-attention, a key of `ROLES`.
      positions: who is told where a token stands, in sines (see `positions`): "none"; "sine", queries and keys; or
        "tokens", the tokens themselves, so that values and the MLP know it too.
      residual: X1 = X0 + MHA(...); without it X1 = MHA(...), which holds nothing but what the values are.
      gate_init: the first value of the gate's scale, see `Gate`.
      dtype, axis_name: as in `DualStreamResNet`.
    """

    width: int = 512
    num_heads: int = 8
    mlp_ratio: int = 4
    cross_attention: bool = True
    self_attention: bool = True
    refinement: bool = True
    roles: str = "deep_guide_guide"
    positions: str = "none"
    residual: bool = True
    gate_init: float = 0.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, deep: Array, guide: Array | None, *, train: bool) -> tuple[Array, dict[str, Array]]:
        """What is to be added to the deep features.

        Args:
          deep: F4 [B, h, w, D].
          guide: F_ig [B, h, w, C]; None where no cross-attention reads it.
          train: use (and update) the statistics of the batch.

        Returns:
          Delta = F_en - F4 [B, h, w, D], and the attention maps by name: "cross" and "self", [B, heads, h w, h w], as
          far as these steps are there.
        """
        batch, height, width, channels = deep.shape

        def norm(x: Array, name: str) -> Array:
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)(x)

        def placed(x: Array) -> Array:
            return x + positions(height, width, x.shape[-1]).astype(self.dtype)

        def asked(x: Array) -> Array:
            """Queries or keys."""
            return placed(x) if self.positions == "sine" else x

        x = nn.Dense(self.width, dtype=self.dtype, name="embed")(deep.reshape(batch, height * width, channels))
        if self.positions == "tokens":
            x = placed(x)
        maps = {}
        if self.cross_attention:
            attend = Attention(self.width, self.num_heads, self.dtype, name="cross_attention")
            assert guide is not None
            guide = guide.reshape(batch, height * width, -1)
            tokens = {"deep": norm(x, "deep_norm"), "guide": norm(guide, "guide_norm")}
            if self.positions == "tokens":
                tokens["guide"] = placed(tokens["guide"])
            q, k, v = (tokens[name] for name in ROLES[self.roles])
            y, maps["cross"] = attend(asked(q), asked(k), v)
            x = x + y if self.residual else y
        if self.self_attention:
            attend = Attention(self.width, self.num_heads, self.dtype, name="self_attention")
            normed = norm(x, "self_norm")
            y, maps["self"] = attend(asked(normed), asked(normed), normed)
            x = x + y
        if self.refinement:
            y = nn.Dense(self.mlp_ratio * self.width, dtype=self.dtype, name="mlp_in")(norm(x, "mlp_norm"))
            x = x + nn.Dense(self.width, dtype=self.dtype, name="mlp_out")(nn.gelu(y, approximate=False))
        x = x.reshape(batch, height, width, self.width)
        return Gate(channels, self.gate_init, self.dtype, self.axis_name, name="gate")(x, train=train), maps
