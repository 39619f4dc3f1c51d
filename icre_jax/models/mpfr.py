"""MPFR: one identity-guided map from shallow features of several resolutions (docs/method.md, MPFR)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from icre_jax.models.layers import batch_norm, conv, pool_to
from icre_jax.models.resnet import STAGES


class Projection(nn.Module):
    """T_i = pool(ReLU(BN(conv1x1(F_i)))): a stage at the width and size that the others have too."""

    channels: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, stage: Array, size: tuple[int, int], *, train: bool) -> Array:
        """[B, H, W, D] -> [B, *size, channels]."""
        x = conv(self.channels, dtype=self.dtype, name="conv")(stage)
        x = nn.relu(batch_norm(train=train, dtype=self.dtype, axis_name=self.axis_name, name="bn")(x))
        return pool_to(x, size)


class MPFR(nn.Module):
    """Multi-perception feature refinement: T_i per stage, a mask M_i per T_i, and their fusion F_ig.

    Attributes:
      channels: C, of every map.
      taps: the backbone stages that are read, 1 to 4.
      mask: "sigmoid", each scale by itself, or "softmax", the scales compete at every position.
      fusion: "concat" or "sum" of M_i * T_i before the fusing convolution.
      dtype, axis_name: as in `DualStreamResNet`.
    """

    channels: int = 512
    taps: tuple[int, ...] = (1, 2, 3)
    mask: str = "sigmoid"
    fusion: str = "concat"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, stages: dict[str, Array], deep: Array, *, train: bool) -> tuple[Array, Array]:
        """Read the stages.

        Args:
          stages: of `DualStreamResNet`, those of `taps` at least.
          deep: [B, h, w, D], what F_ig is to guide; nothing but its size is looked at.
          train: use (and update) the statistics of the batch.

        Returns:
          F_ig [B, h, w, C], and the masks [B, h, w, S] float32, one per tap.
        """
        _, height, width, _ = deep.shape
        scales, scores = [], []
        for tap in self.taps:
            projection = Projection(self.channels, self.dtype, self.axis_name, name=f"projection_{tap}")
            scale = projection(stages[STAGES[tap - 1]], (height, width), train=train)
            scales.append(scale)
            # As a dense layer: the convolutions' initialisation over the outputs would saturate a single one.
            scores.append(nn.Dense(1, dtype=self.dtype, name=f"mask_{tap}")(scale))
        score = jnp.concatenate(scores, axis=-1).astype(jnp.float32)
        masks = nn.sigmoid(score) if self.mask == "sigmoid" else jax.nn.softmax(score, axis=-1)
        masked = [masks[..., i : i + 1].astype(self.dtype) * scale for i, scale in enumerate(scales)]
        fused = jnp.concatenate(masked, axis=-1) if self.fusion == "concat" else sum(masked[1:], masked[0])
        fused = conv(self.channels, dtype=self.dtype, name="fusion")(fused)
        fused = batch_norm(train=train, dtype=self.dtype, axis_name=self.axis_name, name="fusion_bn")(fused)
        return nn.relu(fused), masks
