"""Identity clues guided (ICG) loss: modality-aware centers pull identities together across modalities (docs/method.md).

Three readings of the paper's loss, which is known by its purpose only: "relative", "absolute" and "guided". Notation:
f [B, D] features of the whole batch (or what `loss.icg_space` puts in their place), y identity, m modality and m' the
other one, c_y^m the center of y in m, d the Euclidean distance. Gradients flow through the centers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from icre_jax.losses.distances import averaging, distances, distances_between, distances_rowwise

FORMS = ("relative", "absolute", "guided")
HINGES = ("hinge", "softplus")
UNITS = ("one", "mean_distance")

_PositivePart = Callable[[Array], Array]  # [x]_+, or its smooth form


def icg_terms(
    gram: Array,
    labels: Array,
    modality: Array,
    *,
    form: str,
    rho1: float,
    rho2: float = 0.0,
    hinge: str = "hinge",
    margin_unit: str = "one",
) -> dict[str, Array]:
    """The terms whose sum is L_icg.

    Args:
      gram: `gram_matrix` of f, [B, B]; for "guided" of f and below it o, the features before the enhancement, [2B, 2B].
      labels: [B] int, y.
      modality: [B] int, 0 visible or 1 infrared, m.
      form: one of `FORMS`.
      rho1: margin rho_1 of every form (rho of "guided").
      rho2: margin rho_2 of "relative".
      hinge: "hinge", [x]_+, or "softplus", u log(1 + exp(x / u)) with u the unit of the margins, which never is 0.
      margin_unit: what the margins are multiples of: "one", or "mean_distance", the mean distance between f of
        different identities in this batch (no gradient flows through it). Features twice as long then have twice the
        loss, and no margin is too small for them.

    Returns:
      Scalars: "centers" (A1) and "samples" (A2); or "pull" and "push"; or "across" (h1), "enhanced" (h2 / 2) and "deep"
      (h3 / 2). All are NaN where ICG is undefined: one identity only, or an identity in one modality only.

    Raises:
      ValueError: another form, hinge or unit, or arrays of other sizes. If labels and modality are concrete (not
        traced), also where ICG is undefined.
    """
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; allowed are {', '.join(FORMS)}.")
    if hinge not in HINGES or margin_unit not in UNITS:
        raise ValueError(f"hinge {hinge!r}, margin_unit {margin_unit!r}; allowed are {HINGES} and {UNITS}.")
    expected = (2 if form == "guided" else 1) * labels.shape[0]
    if gram.shape != (expected, expected):
        raise ValueError(f"gram is {gram.shape}; {labels.shape[0]} rows of form {form!r} need {(expected, expected)}.")
    same_label = labels[:, None] == labels[None, :]
    same_modality = modality[:, None] == modality[None, :]
    _require_defined(same_label, same_modality)
    unit = jnp.float32(1.0) if margin_unit == "one" else _mean_distance(gram, ~same_label)
    margins = rho1 * unit, rho2 * unit

    def positive_part(x: Array) -> Array:
        return jax.nn.relu(x) if hinge == "hinge" else unit * jax.nn.softplus(x / unit)

    if form == "relative":
        terms = _relative(gram, same_label, same_modality, *margins, positive_part)
    elif form == "absolute":
        terms = _absolute(gram, same_label, same_modality, margins[0], positive_part)
    else:
        terms = _guided(gram, same_label, same_modality, margins[0], positive_part)
    defined = jnp.all(jnp.any(same_label & ~same_modality, axis=1)) & jnp.any(~same_label)
    return {name: jnp.where(defined, term, jnp.nan) for name, term in terms.items()}


# Every row of the batch stands for the center of its own identity and modality, so that shapes do not depend on how
# many rows an identity has. What is a mean over (y, m) is then a mean over rows in which each (y, m) counts once.


def _relative(
    gram: Array, same_label: Array, same_modality: Array, rho1: Array, rho2: Array, positive_part: _PositivePart
) -> dict[str, Array]:
    own, other = averaging(same_label & same_modality), averaging(same_label & ~same_modality)
    rows = jnp.eye(len(own))
    to_other = distances_rowwise(gram, own, other)
    to_nearest = _min_where(~same_label, distances_between(gram, own, own))
    row_to_other = distances_rowwise(gram, rows, other)
    row_to_nearest = _min_where(~same_label, distances_between(gram, rows, own))
    per_center = positive_part(rho1 + to_other - to_nearest)
    return {
        "centers": jnp.sum(per_center * _each_once(same_label & same_modality)),
        "samples": jnp.mean(positive_part(rho2 + row_to_other - row_to_nearest)),
    }


def _absolute(
    gram: Array, same_label: Array, same_modality: Array, rho1: Array, positive_part: _PositivePart
) -> dict[str, Array]:
    other, both = averaging(same_label & ~same_modality), averaging(same_label)
    rows = jnp.eye(len(both))
    # Each other identity counts once, however many rows it has.
    weights = jnp.where(same_label, 0.0, 1.0 / jnp.sum(same_label, axis=0))
    violations = positive_part(rho1 - distances_between(gram, rows, both))
    return {
        "pull": jnp.mean(distances_rowwise(gram, rows, other)),
        "push": jnp.mean(jnp.sum(weights * violations, axis=1) / jnp.sum(weights, axis=1)),
    }


def _guided(
    gram: Array, same_label: Array, same_modality: Array, rho: Array, positive_part: _PositivePart
) -> dict[str, Array]:
    own, other = averaging(same_label & same_modality), averaging(same_label & ~same_modality)
    none = jnp.zeros_like(own)
    enhanced, deep = jnp.hstack([own, none]), jnp.hstack([none, own])
    deep_other = jnp.hstack([none, other])
    pull = distances_rowwise(gram, enhanced, deep_other)
    rivals = ~same_label & same_modality
    shift = jax.lax.stop_gradient(distances_rowwise(gram, enhanced, deep))  # how far enhancement moved the center
    h1 = positive_part(rho + pull - shift)
    h2 = positive_part(rho + pull - _min_where(rivals, distances_between(gram, enhanced, enhanced)))
    h3 = positive_part(rho + pull - _min_where(rivals, distances_between(gram, deep, deep)))
    weights = _each_once(same_label & same_modality)
    return {
        "across": jnp.sum(h1 * weights),
        "enhanced": jnp.sum(h2 * weights) / 2,
        "deep": jnp.sum(h3 * weights) / 2,
    }


def _mean_distance(gram: Array, between: Array) -> Array:
    num_rows = len(between)  # "guided" has o below f
    return jax.lax.stop_gradient(jnp.mean(distances(gram)[:num_rows, :num_rows], where=between))


def _min_where(mask: Array, values: Array) -> Array:
    return jnp.min(jnp.where(mask, values, jnp.inf), axis=1)


def _each_once(group: Array) -> Array:
    """[B] weights that sum to one and give every group of rows (`group` [B, B] bool) the same share."""
    weights = 1.0 / jnp.sum(group, axis=1)
    return weights / jnp.sum(weights)


def _require_defined(same_label: Array | np.ndarray, same_modality: Array | np.ndarray) -> None:
    if isinstance(same_label, jax.core.Tracer) or isinstance(same_modality, jax.core.Tracer):
        return
    # NumPy's functions: inside a compiled program JAX's would trace labels that are concrete.
    same_label, same_modality = np.asarray(same_label), np.asarray(same_modality)
    if same_label.all():
        raise ValueError("ICG compares identities, and this batch holds one only; choose num_ids_per_batch >= 2.")
    alone = ~np.any(same_label & ~same_modality, axis=1)
    if alone.any():
        row = int(np.argmax(alone))
        raise ValueError(f"ICG needs every identity in both modalities; that of row {row} is in one only.")
