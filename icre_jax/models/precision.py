"""How exact products of float32 numbers are, on devices that round what they multiply unless told not to.

By "default" GPUs with tensor cores round to TF32, of 10 bits, and TPUs to bfloat16, of 7; float32 has 23. "highest" is
float32: TPUs add up six products of bfloat16 numbers for it. "high" is three of these, and TF32 on a GPU. CPUs always
multiply in float32.

The network says it once, by `jax.default_matmul_precision`, which holds while a function is traced. A backward pass of
our own (`jax.custom_vjp`) is traced when that is over: its forward pass keeps for it what held then.
"""

import jax


def precision_here() -> str | None:
    """What `jax.default_matmul_precision` says at this place; None where it says nothing."""
    return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
