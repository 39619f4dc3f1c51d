"""Dual-stream ResNet: the first layers per modality, everything after them shared (docs/method.md, Backbone).

Layer names are torchvision's (conv1, bn1, layer1.0.conv2, layer1.0.downsample.0, ...), with the two stems as
`visible_stem` and `infrared_stem`, so that a table can map published weights onto the tree. Arrays are NHWC.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from icre_jax.errors import InputError
from icre_jax.models.layers import batch_norm, conv
from icre_jax.models.non_local import NonLocal
from icre_jax.models.recompute import rematerialized
from icre_jax.models.stem import Stem

NUM_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
BOTTLENECK_DEPTHS = (50, 101)
STAGES = ("layer1", "layer2", "layer3", "layer4")
MODALITIES = ("visible", "infrared")


class Shortcut(nn.Module):
    """torchvision's `downsample`: "0" is a strided 1x1 convolution, "1" its BatchNorm."""

    channels: int
    stride: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Project [B, H, W, C] to [B, H/stride, W/stride, channels]."""
        x = conv(self.channels, 1, self.stride, dtype=self.dtype, name="0")(x)
        return batch_norm(train=train, dtype=self.dtype, axis_name=self.axis_name, name="1")(x)


class Block(nn.Module):
    """One residual block: basic (two 3x3) or bottleneck (1x1, 3x3, 1x1 with the stride on the 3x3)."""

    width: int
    stride: int
    bottleneck: bool
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """[B, H, W, C] -> [B, H/stride, W/stride, width or 4 width]."""
        if self.bottleneck:
            layers = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
        else:
            layers = [(self.width, 3, self.stride), (self.width, 3, 1)]
        y = x
        for index, (channels, size, stride) in enumerate(layers, start=1):
            y = conv(channels, size, stride, dtype=self.dtype, name=f"conv{index}")(y)
            y = batch_norm(train=train, dtype=self.dtype, axis_name=self.axis_name, name=f"bn{index}")(y)
            if index < len(layers):
                y = nn.relu(y)
        if x.shape != y.shape:
            x = Shortcut(y.shape[-1], self.stride, self.dtype, self.axis_name, name="downsample")(x, train=train)
        return nn.relu(x + y)


class Stage(nn.Module):
    """`layerN` of torchvision: blocks named "0", "1", ...; the first carries the stride.

    Behind each of the last `num_non_local` blocks stands a non-local block, named "non_local_0", ... after its block.
    With `remat` the backward pass keeps what enters a block and computes the inside of it again.
    """

    width: int
    num_blocks: int
    stride: int
    bottleneck: bool
    num_non_local: int = 0
    non_local_channels: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Run the blocks in order."""
        for index in range(self.num_blocks):
            stride = self.stride if index == 0 else 1
            block = Block(self.width, stride, self.bottleneck, self.dtype, self.axis_name, name=str(index))
            x = rematerialized(block, x, train=train, remat=self.remat)
            if index >= self.num_blocks - self.num_non_local:
                name = f"non_local_{index}"
                x = NonLocal(self.non_local_channels, self.dtype, self.axis_name, name=name)(x, train=train)
        return x


class DualStreamResNet(nn.Module):
    """Two streams that meet: stem (and layer1 if wanted) per modality, the other stages shared.

    Attributes:
      depth: 18, 34, 50 or 101.
      width: channels of the stem; 64 is the published network, fewer make it small.
      last_stride: stride of layer4; 1 keeps the resolution of layer3, as the field does.
      specific_until: last part that each modality has of its own: "stem" or "layer1".
      non_local_blocks: non-local blocks at the end of layer1, ..., layer4; AGW has (0, 2, 3, 0).
      non_local_channels: inside of them; see `NonLocal`.
      remat: trade time for memory in training: stems and blocks are computed again in the backward pass.
      dtype: type of the computation; parameters and BatchNorm statistics stay float32.
      axis_name: mapped axis over which BatchNorm averages its statistics; None under jit.
    """

    depth: int = 50
    width: int = 64
    last_stride: int = 1
    specific_until: str = "stem"
    non_local_blocks: tuple[int, int, int, int] = (0, 0, 0, 0)
    non_local_channels: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        images: Array,
        *,
        modality: str,
        train: bool,
        before_layer4: Callable[[dict[str, Array]], Array] | None = None,
    ) -> dict[str, Array]:
        """Named feature maps of a batch.

        Args:
          images: normalised, [B, H, W, 3].
          modality: "visible" or "infrared" runs that stream on every row and stores nothing of the other; "paired"
            takes rows in batch order (even rows visible, odd rows infrared) through both.
          train: use (and update) the statistics of the batch.
          before_layer4: gives what layer4 reads, [B, h, w, C], from the maps up to layer3; None for layer3 itself.

        Returns:
          "stem", "layer1", ..., "layer4", each [B, h, w, C], rows in the order they came in.

        Raises:
          ValueError: another modality, or an odd number of paired rows.
          InputError: more non-local blocks than a stage has blocks.
        """
        if modality not in ("paired", *MODALITIES):
            raise ValueError(f"modality is {modality!r}; allowed are 'paired', 'visible' and 'infrared'.")
        for name, wanted, there in zip(STAGES, self.non_local_blocks, NUM_BLOCKS[self.depth], strict=True):
            if wanted > there:
                raise InputError(
                    f"model.non_local_blocks asks for {wanted} in {name}, which has {there} blocks in a "
                    f"ResNet-{self.depth}; choose at most {there} there."
                )

        maps: dict[str, Array] = {}
        x = images.astype(self.dtype)
        for index, name in enumerate(("stem", *STAGES)):
            if name == "layer4" and before_layer4 is not None:
                x = before_layer4(maps)
            specific = index <= ("stem", "layer1").index(self.specific_until)
            x = self._run(name, x, modality if specific else "shared", train=train)
            maps[name] = x
        return maps

    def _run(self, name: str, x: Array, stream: str, *, train: bool) -> Array:
        """One part of the network: shared, of one modality, or of both on their rows of a paired batch."""
        if stream != "paired":
            prefix = "" if stream == "shared" else f"{stream}_"
            # The blocks of a stage are computed again one by one.
            return rematerialized(self._part(name, prefix), x, train=train, remat=self.remat and name == "stem")
        if x.shape[0] % 2:
            raise ValueError(f"Paired rows come two by two, visible and infrared; there are {x.shape[0]}.")
        # Slicing pairs, not halves: rows that lie on one device then stay on it.
        pairs = x.reshape(-1, 2, *x.shape[1:])
        rows = [self._run(name, pairs[:, m], MODALITIES[m], train=train) for m in (0, 1)]
        return jnp.stack(rows, axis=1).reshape(-1, *rows[0].shape[1:])

    def _part(self, name: str, prefix: str) -> nn.Module:
        if name == "stem":
            return Stem(self.width, self.dtype, self.axis_name, name=f"{prefix}stem")
        index = STAGES.index(name)
        return Stage(
            self.width * 2**index,
            NUM_BLOCKS[self.depth][index],
            (1, 2, 2, self.last_stride)[index],
            self.depth in BOTTLENECK_DEPTHS,
            self.non_local_blocks[index],
            self.non_local_channels,
            self.remat,
            self.dtype,
            self.axis_name,
            name=f"{prefix}{name}",
        )
