"""The whole network, put together from its parts: ICRE, its ablation rows and the baselines.

With MPFR and SDCE it is ICRE; with neither, the baseline; docs/method.md (Ablation rows) says what stands in for a part
that is left out.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from icre_jax.errors import InputError
from icre_jax.models.head import Head, gem_pool
from icre_jax.models.mpfr import MPFR, Projection
from icre_jax.models.recompute import rematerialized
from icre_jax.models.resnet import DualStreamResNet
from icre_jax.models.sdce import SDCE, ResidualProjection
from icre_jax.settings import Model


class ReIDNetwork(nn.Module):
    """Images of one or both modalities -> features, embeddings and logits.

    Attributes:
      backbone, head: always there; `backbone.remat` holds for MPFR and SDCE as well.
      mpfr: reads the shallow stages; without it SDCE takes its keys and values from the projected layer3.
      sdce: enhances the deep features; without it F_ig is added to them by a `ResidualProjection` alone.
      precision: of products of float32 numbers, "highest", "high" or "default"; see `icre_jax.models.precision`. Where
        the backbone is bfloat16 its products are left to the device, as more could only cost; the head is float32.
    """

    backbone: DualStreamResNet
    head: Head
    mpfr: MPFR | None = None
    sdce: SDCE | None = None
    precision: str = "highest"

    @nn.compact
    def __call__(self, images: Array, *, modality: str, train: bool) -> tuple[dict[str, Array], dict[str, Any]]:
        """Run the network.

        Args:
          images: normalised, [B, H, W, 3].
          modality: "paired" (even rows visible, odd rows infrared), "visible" or "infrared"; see `DualStreamResNet`.
          train: use (and update) the statistics of the batch.

        Returns:
          outputs: "features" f [B, D], "embeddings" z [B, D], "logits" [B, num_classes], and "deep_features" o [B, D],
            pooled before the enhancement; all float32.
          intermediates, by name: "stages", the maps of the backbone; "enhanced" F_en [B, h, w, D]; with MPFR "masks"
            M_i [B, h, w, S] and "guide" F_ig [B, h, w, C]; with SDCE "attention", see there.
        """
        with jax.default_matmul_precision(self.precision if self.backbone.dtype == jnp.float32 else "default"):
            maps = self._enhance(images, modality=modality, train=train)
        with jax.default_matmul_precision(self.precision):
            outputs = self.head(maps["enhanced"], train=train)
        deep = maps["stages"]["layer4"]
        return outputs | {"deep_features": gem_pool(deep, p=self.head.gem_p)}, maps

    def _enhance(self, images: Array, *, modality: str, train: bool) -> dict[str, Any]:
        """All maps: everything before the head."""
        layer: dict[str, Any] = {"dtype": self.backbone.dtype, "axis_name": self.backbone.axis_name}
        remat = self.backbone.remat
        stages = self.backbone(images, modality=modality, train=train)
        deep = enhanced = stages["layer4"]
        maps: dict[str, Any] = {"stages": stages}
        if self.mpfr is not None:
            guide, maps["masks"] = rematerialized(self.mpfr, stages, train=train, remat=remat)
            maps["guide"] = guide
        if self.sdce is not None:
            if self.mpfr is None:
                _, height, width, _ = deep.shape
                projection = Projection(self.sdce.width, name="projection", **layer)
                guide = projection(stages["layer3"], (height, width), train=train)
            enhanced, maps["attention"] = rematerialized(self.sdce, deep, guide, train=train, remat=remat)
        elif self.mpfr is not None:
            enhanced = deep + ResidualProjection(deep.shape[-1], name="way_back", **layer)(guide, train=train)
        return maps | {"enhanced": enhanced}


def build_network(model: Model, num_classes: int) -> ReIDNetwork:
    """The network of a config.

    Args:
      model: which parts, and their sizes.
      num_classes: training identities.

    Raises:
      InputError: the width of SDCE does not divide into its heads.
    """
    if model.sdce.width % model.sdce.num_heads:
        raise InputError(
            f"model.sdce.width = {model.sdce.width} does not divide into model.sdce.num_heads = "
            f"{model.sdce.num_heads} heads; choose a multiple."
        )
    dtype = jnp.dtype(model.dtype)
    backbone = DualStreamResNet(
        depth=model.depth,
        width=model.width,
        last_stride=model.last_stride,
        specific_until=model.specific_until,
        non_local_blocks=model.non_local_blocks,
        non_local_channels=model.non_local_channels,
        remat=model.remat,
        dtype=dtype,
    )
    return ReIDNetwork(
        backbone=backbone,
        head=Head(num_classes, gem_p=model.gem_p, neck_init_std=model.neck_init_std),
        mpfr=MPFR(**model.mpfr.model_dump(exclude={"enabled"}), dtype=dtype) if model.mpfr.enabled else None,
        sdce=SDCE(**model.sdce.model_dump(exclude={"enabled"}), dtype=dtype) if model.sdce.enabled else None,
        precision=model.precision,
    )


def over_axis(network: ReIDNetwork, axis_name: str) -> ReIDNetwork:
    """The same network for a mapped program: its BatchNorms average their statistics over the axis."""
    parts = {name: getattr(network, name) for name in ("backbone", "head", "mpfr", "sdce")}
    return network.clone(**{name: part and part.clone(axis_name=axis_name) for name, part in parts.items()})
