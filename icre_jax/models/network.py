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
from icre_jax.models.gate import Gate, LocalAddition, Offset
from icre_jax.models.head import Head, gem_pool
from icre_jax.models.mpfr import MPFR, Projection
from icre_jax.models.recompute import rematerialized
from icre_jax.models.resnet import DualStreamResNet
from icre_jax.models.sdce import SDCE
from icre_jax.settings.fields import Settings


class ReIDNetwork(nn.Module):
    """Images of one or both modalities -> features, embeddings and logits.

    Attributes:
      backbone, head: always there; `backbone.remat` holds for MPFR and SDCE as well.
      mpfr: reads the shallow stages; without it SDCE takes its keys and values from the projected layer3.
      sdce: enhances the deep features; without it F_ig is added to them through a `Gate` alone.
      control: in the place of both, an `Offset` or a `LocalAddition`, to compare them with.
      guide_head: classifies the pooled F_ig in training.
      gem_p: exponent of `gem_pool`.
      join: where Delta joins: "map", f = GeM(F4 + Delta); "vector", f = GeM(F4) + mean(Delta); "concat",
        f = [GeM(F4), mean(Delta)], of twice the length.
      placement: what is enhanced: F4, "after_layer4", or F3, "before_layer4", which layer4 then reads.
      gate_init: see `Gate`; of the gate that stands after MPFR alone.
      precision: of products of float32 numbers, "highest", "high" or "default"; see `icre_jax.models.precision`. Where
        the backbone is bfloat16 its products are left to the device, as more could only cost; the head is float32.
    """

    backbone: DualStreamResNet
    head: Head
    mpfr: MPFR | None = None
    sdce: SDCE | None = None
    control: Offset | LocalAddition | None = None
    guide_head: Head | None = None
    gem_p: float = 3.0
    join: str = "map"
    placement: str = "after_layer4"
    gate_init: float = 0.0
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
            layer4 pooled as it is; in training with a guide_head "guide_logits" [B, num_classes]; all float32.
          intermediates, by name: "stages", the maps of the backbone; "enhanced" F_en [B, h, w, D]; with MPFR "masks"
            M_i [B, h, w, S] and "guide" F_ig [B, h, w, C]; with SDCE "attention", see there. Where something is added
            to F4, "delta" [B, h, w, D]. As with all maps, compiled programs leave out what nobody reads.
        """
        with jax.default_matmul_precision(self.precision if self.backbone.dtype == jnp.float32 else "default"):
            maps, delta = self._enhance(images, modality=modality, train=train)
        with jax.default_matmul_precision(self.precision):
            features, deep_features = self.pool(maps["stages"]["layer4"], maps["enhanced"], delta)
            outputs = self.head(features, train=train) | {"deep_features": deep_features}
            if self.guide_head is not None and train:
                pooled = jnp.mean(maps["guide"].astype(jnp.float32), axis=(1, 2))
                outputs["guide_logits"] = self.guide_head(pooled, train=True)["logits"]
        return outputs, maps if delta is None else maps | {"delta": delta}

    def pool(self, deep: Array, enhanced: Array, delta: Array | None) -> tuple[Array, Array]:
        """Maps to vectors, as `join` says.

        Args:
          deep: F4 [B, h, w, D].
          enhanced: F_en [B, h, w, D].
          delta: Delta [B, h, w, D], what the enhancement adds to F4; None where it adds nothing to it.

        Returns:
          The features f, [B, D] or [B, 2 D], and `deep` pooled as it is, [B, D]; float32.
        """
        deep_features = gem_pool(deep, p=self.gem_p)
        if delta is None:
            return deep_features, deep_features
        if self.join == "map":
            return gem_pool(enhanced, p=self.gem_p), deep_features
        added = jnp.mean(delta.astype(jnp.float32), axis=(1, 2))
        features = deep_features + added if self.join == "vector" else jnp.hstack([deep_features, added])
        return features, deep_features

    def embed_maps(self, deep: Array, delta: Array | None = None) -> Array:
        """Embeddings z [B, D] of maps that lie ready, as in evaluation: `pooled_maps` of what the network gave."""
        with jax.default_matmul_precision(self.precision):
            return self.head(self.pool(deep, deep, delta)[0], train=False)["embeddings"]

    def pooled_maps(self, maps: dict[str, Any]) -> tuple[Array, ...]:
        """Of the intermediates, those that are pooled, so that nothing else of the image gets into its embedding.

        F_en, or, where the enhancement joins after pooling, F4 and Delta; [B, h, w, D] each.
        """
        if self.join != "map" and "delta" in maps:
            return maps["stages"]["layer4"], maps["delta"]
        return (maps["enhanced"],)

    def _enhance(self, images: Array, *, modality: str, train: bool) -> tuple[dict[str, Any], Array | None]:
        """All maps: everything before the head; and what is added to layer4, if anything is."""
        maps: dict[str, Any] = {}

        def before_layer4(stages: dict[str, Array]) -> Array:
            delta = self._delta(stages, stages["layer3"], maps, train=train)
            return stages["layer3"] if delta is None else stages["layer3"] + delta

        first = self.placement == "before_layer4"
        stages = self.backbone(images, modality=modality, train=train, before_layer4=before_layer4 if first else None)
        deep = stages["layer4"]
        delta = None if first else self._delta(stages, deep, maps, train=train)
        return maps | {"stages": stages, "enhanced": deep if delta is None else deep + delta}, delta

    def _delta(self, stages: dict[str, Array], deep: Array, maps: dict[str, Any], *, train: bool) -> Array | None:
        """What is to be added to the deep map; None where nothing is there to enhance it. Names its maps in `maps`."""
        layer: dict[str, Any] = {"dtype": self.backbone.dtype, "axis_name": self.backbone.axis_name}
        remat = self.backbone.remat
        if self.control is not None:
            return rematerialized(self.control, deep, train=train, remat=remat)
        guide: Array | None = None
        if self.mpfr is not None:
            guide, maps["masks"] = rematerialized(self.mpfr, stages, deep, train=train, remat=remat)
            maps["guide"] = guide
        if self.sdce is not None:
            if self.mpfr is None and self.sdce.cross_attention:
                _, height, width, _ = deep.shape
                projection = Projection(self.sdce.width, name="projection", **layer)
                guide = projection(stages["layer3"], (height, width), train=train)
            delta, maps["attention"] = rematerialized(self.sdce, deep, guide, train=train, remat=remat)
            return delta
        if guide is not None:
            return Gate(deep.shape[-1], self.gate_init, name="gate", **layer)(guide, train=train)
        return None


def build_network(settings: Settings, num_classes: int) -> ReIDNetwork:
    """The network of a config.

    Args:
      settings: which parts, and their sizes; and whether a loss wants a classifier of F_ig.
      num_classes: training identities.

    Raises:
      InputError: the width of SDCE does not divide into its heads.
    """
    model = settings.model
    if model.sdce.width % model.sdce.num_heads:
        raise InputError(
            f"model.sdce.width = {model.sdce.width} does not divide into model.sdce.num_heads = "
            f"{model.sdce.num_heads} heads; choose a multiple."
        )
    dtype, gate_init = jnp.dtype(model.dtype), model.enhancement.gate_init
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
    head = Head(num_classes, neck_init_std=model.neck_init_std)
    mpfr = MPFR(**model.mpfr.model_dump(exclude={"enabled"}), dtype=dtype) if model.mpfr.enabled else None
    sdce = SDCE(**model.sdce.model_dump(exclude={"enabled"}), gate_init=gate_init, dtype=dtype)
    controls = {
        "none": None,
        "offset": Offset(dtype),
        "local": LocalAddition(model.sdce.width, gate_init=gate_init, dtype=dtype),
    }
    return ReIDNetwork(
        backbone=backbone,
        head=head,
        mpfr=mpfr,
        sdce=sdce if model.sdce.enabled else None,
        control=controls[model.enhancement.control],
        guide_head=head.clone() if settings.loss.guide_weight else None,
        gem_p=model.gem_p,
        join=model.enhancement.join,
        placement=model.enhancement.placement,
        gate_init=gate_init,
        precision=model.precision,
    )


def over_axis(network: ReIDNetwork, axis_name: str) -> ReIDNetwork:
    """The same network for a mapped program: its BatchNorms average their statistics over the axis."""
    names = ("backbone", "head", "mpfr", "sdce", "control", "guide_head")
    parts = {name: part for name in names if hasattr(part := getattr(network, name), "axis_name")}
    return network.clone(**{name: part.clone(axis_name=axis_name) for name, part in parts.items()})
