"""One step of training: a pure function of arrays."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from icre_jax.engine.forward import normalize_images
from icre_jax.engine.program import Program
from icre_jax.engine.state import TrainState


def train_step(
    state: TrainState,
    batch: dict[str, Array],
    *,
    program: Program,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update.

    Everything that compares rows acts on the global batch. Under `jit` the arrays are global by themselves; where each
    device sees its own rows (`axis_name`), outputs are gathered before the loss and gradients averaged after it.

    Args:
      state: before the step.
      batch: "image" [B, H, W, 3] uint8, "label" [B] int32 and "modality" [B] int32 (0 visible, 1 infrared) in batch
        order: even rows visible, odd rows infrared.
      program: network, update rule and objective; micro-batches pass as `_accumulated` says.
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

    def forward(params: Any, images: Array) -> tuple[dict[str, Array], Any]:
        (outputs, _), updated = program.network.apply(
            {"params": params, "batch_stats": state.batch_stats},
            normalize_images(images),
            modality="paired",
            train=True,
            mutable=["batch_stats"],
        )
        return outputs, updated["batch_stats"]

    def judge(outputs: dict[str, Array]) -> tuple[Array, tuple[dict[str, Array], Array]]:
        outputs = gather(outputs)
        loss, parts = program.objective(outputs, labels, modality)
        return loss, (parts, outputs["logits"])

    def loss_of(params: Any) -> tuple[Array, tuple[dict[str, Array], Array, Any]]:
        outputs, batch_stats = forward(params, batch["image"])
        loss, (parts, logits) = judge(outputs)
        return loss, (parts, logits, batch_stats)

    if program.accumulate_steps == 1:
        (loss, (parts, logits, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    else:
        loss, parts, logits, batch_stats, gradients = _accumulated(
            forward, judge, state.params, batch["image"], program.accumulate_steps
        )
    if axis_name is not None:
        # Each device differentiated the whole loss with respect to its own rows' way; together they are its gradient.
        gradients, batch_stats = jax.lax.pmean((gradients, batch_stats), axis_name)
    updates, opt_state = program.tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if program.ema_decay:
        ema = _average(ema, {"params": params, "batch_stats": batch_stats}, state.step, program.ema_decay)
    new_state = TrainState(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema)
    metrics = {
        "loss": loss,
        **{f"loss/{name}": value for name, value in parts.items()},
        "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels),
        "gradient_norm": optax.tree.norm(gradients),
    }
    return new_state, metrics


def _accumulated(
    forward: Callable[[Any, Array], tuple[dict[str, Array], Any]],
    judge: Callable[[dict[str, Array]], tuple[Array, tuple[dict[str, Array], Array]]],
    params: Any,
    images: Array,
    num_micro: int,
) -> tuple[Array, dict[str, Array], Array, Any, Any]:
    """Loss, parts, logits, BatchNorm statistics and gradient of a whole batch that passes in `num_micro` micro-batches.

    Losses that compare rows need all rows: a first pass gives the outputs of the whole batch, the loss is
    differentiated with respect to them, and a second pass carries that back through the network, micro-batch by
    micro-batch. The gradient is exact for what the network computes; only one micro-batch's activations live at a time.
    What the network computes differs in BatchNorm: it sees a micro-batch, and the running statistics move to the mean
    over the micro-batches, once a step.

    Micro-batch a has the visible-infrared pairs a, a + num_micro, ...: the same rows on any number of devices.
    """

    def split(rows: Array) -> Array:
        pairs = rows.reshape(-1, num_micro, 2, *rows.shape[1:])
        return jnp.moveaxis(pairs, 1, 0).reshape(num_micro, -1, *rows.shape[1:])

    def join(micro: Array) -> Array:
        pairs = micro.reshape(num_micro, -1, 2, *micro.shape[2:])
        return jnp.moveaxis(pairs, 0, 1).reshape(-1, *micro.shape[2:])

    micro_images = split(images)
    outputs, batch_stats = jax.lax.map(functools.partial(forward, params), micro_images)
    (loss, (parts, logits)), slopes = jax.value_and_grad(judge, has_aux=True)(jax.tree.map(join, outputs))

    def carry_back(total: Any, micro: tuple[Array, dict[str, Array]]) -> tuple[Any, None]:
        _, pull_back, _ = jax.vjp(lambda p: forward(p, micro[0]), params, has_aux=True)
        return jax.tree.map(jnp.add, total, pull_back(micro[1])[0]), None

    nothing = jax.tree.map(jnp.zeros_like, params)
    gradients, _ = jax.lax.scan(carry_back, nothing, (micro_images, jax.tree.map(split, slopes)))
    return loss, parts, logits, jax.tree.map(lambda stats: jnp.mean(stats, axis=0), batch_stats), gradients


def _average(ema: Any, now: Any, step: Array, decay: float) -> Any:
    # Shorter at first, so that the start is soon forgotten.
    keep = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: keep * old + (1.0 - keep) * new, ema, now)
