"""The two things a device does: one step of training, and embedding pictures. Pure functions of arrays."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from icre_jax.models.network import ReIDNetwork
from icre_jax.state import TrainState

Objective = Callable[[dict[str, Array], Array, Array], tuple[Array, dict[str, Array]]]

# Of ImageNet, for pixels in [0, 1]; R, G, B.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def normalize_images(images: Array) -> Array:
    """[..., 3] uint8 -> float32 with ImageNet's mean and standard deviation taken out."""
    return (images.astype(jnp.float32) / 255.0 - jnp.array(_MEAN)) / jnp.array(_STD)


def train_step(
    state: TrainState,
    batch: dict[str, Array],
    *,
    network: ReIDNetwork,
    tx: optax.GradientTransformation,
    objective: Objective,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update.

    Everything that compares rows acts on the global batch. Under `jit` the arrays are global by themselves; where each
    device sees its own rows (`axis_name`), outputs are gathered before the loss and gradients averaged after it.

    Args:
      state: before the step.
      batch: "image" [B, H, W, 3] uint8, "label" [B] int32 and "modality" [B] int32 (0 visible, 1 infrared) in batch
        order: even rows visible, odd rows infrared.
      network: the network.
      tx: the optimizer.
      objective: (outputs, labels, modality) -> (loss, parts) over the global batch.
      axis_name: mapped axis that the batch is spread over, of the network's BatchNorm as well; None under `jit`.

    Returns:
      The state after the step, and scalars: "loss", "loss/<part>", "accuracy" (of the classifier on this batch) and
      "gradient_norm".
    """

    def gather(rows: Any) -> Any:
        if axis_name is None:
            return rows
        return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), rows)

    labels, modality = gather((batch["label"], batch["modality"]))

    def loss_of(params: Any) -> tuple[Array, tuple[dict[str, Array], Array, Any]]:
        (outputs, _), updated = network.apply(
            {"params": params, "batch_stats": state.batch_stats},
            normalize_images(batch["image"]),
            modality="paired",
            train=True,
            mutable=["batch_stats"],
        )
        outputs = gather(outputs)
        loss, parts = objective(outputs, labels, modality)
        return loss, (parts, outputs["logits"], updated["batch_stats"])

    (loss, (parts, logits, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    if axis_name is not None:
        # Each device differentiated the whole loss with respect to its own rows' way; together they are its gradient.
        gradients, batch_stats = jax.lax.pmean((gradients, batch_stats), axis_name)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    new_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    metrics = {
        "loss": loss,
        **{f"loss/{name}": value for name, value in parts.items()},
        "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels),
        "gradient_norm": optax.tree.norm(gradients),
    }
    return new_state, metrics


@functools.partial(jax.jit, static_argnames=("network", "modality", "feature"))
def embed_step(
    variables: Any, images: Array, *, network: ReIDNetwork, modality: str, feature: str = "embeddings"
) -> Array:
    """Vectors [B, D] float32, not normalised, of images [B, H, W, 3] uint8 of one modality.

    `feature` is the output to take: "embeddings" z, or the pooled "features" before the BN neck.
    """
    (outputs, _) = network.apply(variables, normalize_images(images), modality=modality, train=False)
    return outputs[feature]
