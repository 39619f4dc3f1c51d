"""The whole network: dual-stream backbone and head."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from icre_jax.models.head import Head
from icre_jax.models.resnet import DualStreamResNet


class ReIDNetwork(nn.Module):
    """Images of one or both modalities -> features, embeddings and logits.

    Attributes:
      num_classes: training identities.
      depth, width, last_stride: see `DualStreamResNet`.
      gem_p: exponent of GeM pooling.
      dtype: type of the computation in the backbone; parameters, statistics and the head stay float32.
      axis_name: mapped axis over which BatchNorm averages its statistics; None under jit.
    """

    num_classes: int
    depth: int = 50
    width: int = 64
    last_stride: int = 1
    gem_p: float = 3.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, modality: str, train: bool) -> tuple[dict[str, Array], dict[str, Any]]:
        """Run the network.

        Args:
          images: normalised, [B, H, W, 3].
          modality: "paired" (even rows visible, odd rows infrared), "visible" or "infrared"; see `DualStreamResNet`.
          train: use (and update) the statistics of the batch.

        Returns:
          outputs: "features" [B, D], "embeddings" [B, D], "logits" [B, num_classes], all float32.
          intermediates: "stages", the backbone's named maps.
        """
        backbone = DualStreamResNet(
            depth=self.depth,
            width=self.width,
            last_stride=self.last_stride,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="backbone",
        )
        stages = backbone(images, modality=modality, train=train)
        head = Head(self.num_classes, gem_p=self.gem_p, axis_name=self.axis_name, name="head")
        return head(stages["layer4"], train=train), {"stages": stages}
