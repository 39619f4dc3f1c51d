"""What training minimises: the weighted sum of the losses, and each part by name."""

import jax.numpy as jnp
from jax import Array

from icre_jax.losses.distances import distances, gram_matrix
from icre_jax.losses.icg import icg_terms
from icre_jax.losses.identity import identity_loss
from icre_jax.losses.triplet import batch_hard_triplet, weighted_triplet


def objective(
    outputs: dict[str, Array],
    labels: Array,
    modality: Array,
    *,
    label_smoothing: float,
    icg_weight: float,
    icg_form: str,
    icg_rho1: float,
    icg_rho2: float,
    icg_space: str,
    icg_hinge: str,
    icg_margin_unit: str,
    guide_weight: float,
    triplet_weight: float,
    triplet_form: str,
    triplet_margin: float,
) -> tuple[Array, dict[str, Array]]:
    """Total loss of the global batch, L = L_id + lambda L_icg (+ a triplet loss for the baselines).

    Args:
      outputs: of the network; "logits" [B, C], "features" f and "deep_features" o [B, D]; "guide_logits" [B, C] where
        `guide_weight` asks for them.
      labels: [B] int.
      modality: [B] int, 0 visible or 1 infrared.
      label_smoothing: see `identity_loss`.
      icg_weight: lambda; 0 leaves ICG out.
      icg_form, icg_rho1, icg_rho2, icg_hinge, icg_margin_unit: see `icg_terms`.
      icg_space: what ICG compares: "features" f as they are, "unit_features" f / ||f||, or "embeddings" z / ||z||,
        which retrieval compares too ("guided" has no o there). See docs/method.md for what becomes of each.
      guide_weight: of an ID loss on the pooled F_ig, with the same label smoothing; 0 leaves it out. Not the paper's.
      triplet_weight: 0 leaves the triplet loss out.
      triplet_form: "batch_hard" or "weighted", see `icre_jax.losses.triplet`.
      triplet_margin: of "batch_hard".

    Returns:
      The scalar to differentiate, and its parts as scalars before weighting: "identity" (L_id), "guide", "icg" (L_icg)
      with its terms as "icg/<term>", "triplet"; only those that are in the sum.
    """
    parts = {"identity": jnp.mean(identity_loss(outputs["logits"], labels, label_smoothing=label_smoothing))}
    total = parts["identity"]
    if guide_weight:
        of_guide = identity_loss(outputs["guide_logits"], labels, label_smoothing=label_smoothing)
        parts["guide"] = jnp.mean(of_guide)
        total = total + guide_weight * parts["guide"]
    if not icg_weight and not triplet_weight:
        return total, parts

    rows = outputs["features"].astype(jnp.float32)
    if icg_weight and icg_form == "guided":
        rows = jnp.concatenate([rows, outputs["deep_features"].astype(jnp.float32)])
    gram = gram_matrix(rows)  # one for all terms that compare f
    if icg_weight:
        compared = outputs["embeddings"].astype(jnp.float32) if icg_space == "embeddings" else rows
        icg_gram = gram if icg_space == "features" else gram_matrix(_unit(compared))
        terms = icg_terms(
            icg_gram,
            labels,
            modality,
            form=icg_form,
            rho1=icg_rho1,
            rho2=icg_rho2,
            hinge=icg_hinge,
            margin_unit=icg_margin_unit,
        )
        parts["icg"] = jnp.sum(jnp.stack(list(terms.values())))
        parts |= {f"icg/{name}": term for name, term in terms.items()}
        total = total + icg_weight * parts["icg"]
    if triplet_weight:
        between_rows = distances(gram)[: len(labels), : len(labels)]
        if triplet_form == "batch_hard":
            parts["triplet"] = jnp.mean(batch_hard_triplet(between_rows, labels, margin=triplet_margin))
        else:
            parts["triplet"] = jnp.mean(weighted_triplet(between_rows, labels))
        total = total + triplet_weight * parts["triplet"]
    return total, parts


def _unit(rows: Array) -> Array:
    return rows / jnp.sqrt(jnp.maximum(jnp.sum(rows**2, axis=1, keepdims=True), 1e-12))
