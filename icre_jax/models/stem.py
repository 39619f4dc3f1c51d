"""The stem of a ResNet, which on a TPU is computed in blocks of 4x4 pixels.

Its maps are the largest of the network and have few channels: three of the image, 64 after the convolution. A TPU's
memory comes in tiles of 8 x 128 numbers, most of which is filling then. In blocks the image is a map of a quarter of
its height and width with 48 channels; what the convolution gives are the 2x2 positions of each block side by side, in
256 channels; BatchNorm takes the four as one; and the maximum over 3x3 positions is one over nine slices of channels,
whose gradient needs no scattering. The numbers are the same, up to the order in which they are added up.

As in `convolution.py` the choice is made at lowering, and only in programs that train.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from icre_jax.models.layers import Conv, batch_norm, conv
from icre_jax.models.pooling import TAPS, max_pool

_PHASES = [(row, column) for row in (0, 1) for column in (0, 1)]  # where in its 2x2 positions a number stands


class Stem(nn.Module):
    """conv1 7x7/2, bn1, ReLU, max-pool: [B, H, W, 3] -> [B, H/4, W/4, width].

    Attributes:
      width: channels.
      dtype, axis_name: as in `DualStreamResNet`.
      in_blocks: whether to compute in blocks; None leaves it to the platform. H and W must be multiples of 4 for it.
    """

    width: int
    dtype: Any = jnp.float32
    axis_name: str | None = None
    in_blocks: bool | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Run the stem of one modality."""
        whole = images.shape[1] % 4 == images.shape[2] % 4 == 0
        if self.in_blocks is None and train and whole and not self.is_initializing():
            return self._by_platform(images)
        norm: dict[str, Any] = {"train": train, "dtype": self.dtype, "axis_name": self.axis_name, "name": "bn1"}
        if not self.in_blocks:
            x = conv(self.width, 7, 2, dtype=self.dtype, name="conv1")(images)
            return max_pool(nn.relu(batch_norm(**norm)(x)))
        x = Conv(self.width, 7, 2, dtype=self.dtype, through=_convolve_blocks, name="conv1")(images)
        x = nn.relu(batch_norm(**norm, repeats=len(_PHASES))(x))
        return max_of_blocks(tuple(jnp.split(x, len(_PHASES), axis=-1)))

    def _by_platform(self, images: Array) -> Array:
        def run(in_blocks: bool) -> Any:
            stem = self.clone(parent=None, in_blocks=in_blocks)
            return lambda variables, images: stem.apply(variables, images, train=True, mutable=["batch_stats"])

        y, updated = lax.platform_dependent(self.variables, images, tpu=run(True), default=run(False))
        for name, value in updated["batch_stats"].items():
            self.put_variable("batch_stats", name, value)
        return y


def _convolve_blocks(images: Array, kernel: Array, stride: int) -> Array:
    """The 7x7 convolution of stride 2 as one of 3x3 blocks: [B, H, W, C] -> [B, H/4, W/4, 4 D], phase by phase."""
    assert (kernel.shape[:2], stride) == ((7, 7), 2)
    batch, height, width, channels = images.shape
    blocks = images.reshape(batch, height // 4, 4, width // 4, 4, channels).transpose(0, 1, 3, 2, 4, 5)
    # The first position of a block sees the pixels -3 to 3 from its first one, the second those from -1 to 5: of the
    # twelve from -4 to 7.
    placed = [jnp.pad(kernel, ((2 * i + 1, 4 - 2 * i), (2 * j + 1, 4 - 2 * j), (0, 0), (0, 0))) for i, j in _PHASES]
    taps = jnp.concatenate(placed, axis=-1).reshape(3, 4, 3, 4, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    return lax.conv_general_dilated(
        blocks.reshape(batch, height // 4, width // 4, 16 * channels),
        taps.reshape(3, 3, 16 * channels, -1),
        window_strides=(1, 1),
        padding=[(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@jax.custom_vjp
def max_of_blocks(phases: tuple[Array, ...]) -> Array:
    """`max_pool` of a map that is not negative anywhere, of which each phase is an array of its own.

    Args:
      phases: the numbers at even rows and even columns, even and odd, odd and even, odd and odd; [B, h, w, C] each.

    Returns:
      [B, h, w, C]. Where several numbers of a window are its maximum, the first of them takes the whole gradient, and
      where all are 0 (after a ReLU, which has none there), what lies outside of the map may take it.
    """
    first, *others = (seen for _, _, seen in _seen(phases))
    for other in others:
        first = jnp.maximum(first, other)
    return first


def _seen(phases: tuple[Array, ...]) -> list[tuple[int, tuple[int, int], Array]]:
    """Of each tap: the phase it reads, whether from the block above and from that to the left, and what it sees."""
    seen = []
    for i, j in TAPS:
        phase, before = _PHASES.index(((i + 1) % 2, (j + 1) % 2)), (int(i == 0), int(j == 0))
        _, height, width, _ = phases[phase].shape
        padded = jnp.pad(phases[phase], ((0, 0), (before[0], 0), (before[1], 0), (0, 0)))
        seen.append((phase, before, padded[:, :height, :width]))
    return seen


def _forward(phases: tuple[Array, ...]) -> tuple[Array, tuple[tuple[Array, ...], Array]]:
    y = max_of_blocks(phases)
    return y, (phases, y)


def _backward(saved: tuple[tuple[Array, ...], Array], g: Array) -> tuple[tuple[Array, ...]]:
    phases, y = saved
    gradients, taken = [jnp.zeros_like(phase) for phase in phases], jnp.zeros(y.shape, bool)
    for phase, (down, right), seen in _seen(phases):
        is_maximum = (seen == y) & ~taken
        taken |= is_maximum
        share = jnp.pad(jnp.where(is_maximum, g, 0), ((0, 0), (0, down), (0, right), (0, 0)))
        gradients[phase] += share[:, down:, right:]
    return (tuple(gradients),)


max_of_blocks.defvjp(_forward, _backward)
