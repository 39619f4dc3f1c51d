"""Dual-stream ResNet: one stem per modality, everything after it shared (`method.md`, Backbone).

Layer names are torchvision's (conv1, bn1, layer1.0.conv2, layer1.0.downsample.0, ...), with the two stems as
`visible_stem` and `infrared_stem`, so that a table can map published weights onto the tree. Arrays are NHWC.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

NUM_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
BOTTLENECK_DEPTHS = (50, 101)
STAGES = ("layer1", "layer2", "layer3", "layer4")

# He initialisation over the outputs, as torchvision trains its ResNets.
_kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(channels: int, size: int, stride: int, dtype: Any, name: str) -> nn.Conv:
    # "SAME" would pad a strided convolution on one side only; published weights expect both sides.
    padding = size // 2
    return nn.Conv(
        channels,
        (size, size),
        strides=stride,
        padding=padding,
        use_bias=False,
        dtype=dtype,
        kernel_init=_kernel_init,
        name=name,
    )


def _batch_norm(train: bool, dtype: Any, axis_name: str | None) -> Callable[..., nn.BatchNorm]:
    def build(name: str) -> nn.BatchNorm:
        return nn.BatchNorm(
            use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, axis_name=axis_name, name=name
        )

    return build


def max_pool(x: Array) -> Array:
    """3x3 maximum, stride 2, one row and column of padding: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C]."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return nn.max_pool(padded, (3, 3), strides=(2, 2), padding="VALID")


class Stem(nn.Module):
    """conv1 7x7/2, bn1, ReLU, max-pool: [B, H, W, 3] -> [B, H/4, W/4, width]."""

    width: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Run the stem of one modality."""
        batch_norm = _batch_norm(train, self.dtype, self.axis_name)
        x = _conv(self.width, 7, 2, self.dtype, "conv1")(images)
        return max_pool(nn.relu(batch_norm("bn1")(x)))


class Shortcut(nn.Module):
    """torchvision's `downsample`: "0" is a strided 1x1 convolution, "1" its BatchNorm."""

    channels: int
    stride: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Project [B, H, W, C] to [B, H/stride, W/stride, channels]."""
        x = _conv(self.channels, 1, self.stride, self.dtype, "0")(x)
        return _batch_norm(train, self.dtype, self.axis_name)("1")(x)


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
        batch_norm = _batch_norm(train, self.dtype, self.axis_name)
        if self.bottleneck:
            layers = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
        else:
            layers = [(self.width, 3, self.stride), (self.width, 3, 1)]
        y = x
        for index, (channels, size, stride) in enumerate(layers, start=1):
            y = batch_norm(f"bn{index}")(_conv(channels, size, stride, self.dtype, f"conv{index}")(y))
            if index < len(layers):
                y = nn.relu(y)
        if x.shape != y.shape:
            x = Shortcut(y.shape[-1], self.stride, self.dtype, self.axis_name, name="downsample")(x, train=train)
        return nn.relu(x + y)


class Stage(nn.Module):
    """`layerN` of torchvision: blocks named "0", "1", ...; the first carries the stride."""

    width: int
    num_blocks: int
    stride: int
    bottleneck: bool
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Run the blocks in order."""
        for index in range(self.num_blocks):
            stride = self.stride if index == 0 else 1
            block = Block(self.width, stride, self.bottleneck, self.dtype, self.axis_name, name=str(index))
            x = block(x, train=train)
        return x


class DualStreamResNet(nn.Module):
    """Two stems, shared layer1 to layer4.

    Attributes:
      depth: 18, 34, 50 or 101.
      width: channels of the stem; 64 is the published network, fewer make it small.
      last_stride: stride of layer4; 1 keeps the resolution of layer3, as the field does.
      dtype: type of the computation; parameters and BatchNorm statistics stay float32.
      axis_name: mapped axis over which BatchNorm averages its statistics; None under jit.
    """

    depth: int = 50
    width: int = 64
    last_stride: int = 1
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, modality: str, train: bool) -> dict[str, Array]:
        """Named feature maps of a batch.

        Args:
          images: normalised, [B, H, W, 3].
          modality: "visible" or "infrared" runs that stem on every row and stores nothing of the other; "paired" takes
            rows in batch order (even rows visible, odd rows infrared) through both.
          train: use (and update) the statistics of the batch.

        Returns:
          "stem", "layer1", ..., "layer4", each [B, h, w, C], rows in the order they came in.

        Raises:
          ValueError: another modality, or an odd number of paired rows.
        """

        def run_stem(name: str, rows: Array) -> Array:
            stem = Stem(self.width, self.dtype, self.axis_name, name=f"{name}_stem")
            return stem(rows, train=train)

        images = images.astype(self.dtype)
        if modality == "paired":
            if images.shape[0] % 2:
                raise ValueError(f"Paired rows come two by two, visible and infrared; there are {images.shape[0]}.")
            # Slicing pairs, not halves: rows that lie on one device then stay on it.
            pairs = images.reshape(-1, 2, *images.shape[1:])
            x = jnp.stack([run_stem("visible", pairs[:, 0]), run_stem("infrared", pairs[:, 1])], axis=1)
            x = x.reshape(-1, *x.shape[2:])
        elif modality in ("visible", "infrared"):
            x = run_stem(modality, images)
        else:
            raise ValueError(f"modality is {modality!r}; allowed are 'paired', 'visible' and 'infrared'.")
        maps = {"stem": x}
        strides = (1, 2, 2, self.last_stride)
        for index, name in enumerate(STAGES):
            x = Stage(
                self.width * 2**index,
                NUM_BLOCKS[self.depth][index],
                strides[index],
                self.depth in BOTTLENECK_DEPTHS,
                self.dtype,
                self.axis_name,
                name=name,
            )(x, train=train)
            maps[name] = x
        return maps
