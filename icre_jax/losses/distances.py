"""Euclidean distances of a batch, all from one matrix of inner products.

The losses compare features with each other and with centers. A center is an average of features, so its inner products
are averages too: one [N, N] matrix of the features serves every term, however many there are.
"""

import jax.numpy as jnp
from jax import Array

# TPUs multiply in bfloat16 unless told otherwise, too coarse for differences of large numbers.
PRECISION = "highest"
_SMALLEST_SQUARE = 1e-12  # sqrt has an infinite slope at 0


def gram_matrix(rows: Array) -> Array:
    """Inner products of the rows about their mean, [N, D] -> [N, N] float32.

    Distances do not depend on the origin. Features after a ReLU share a large mean; taking it out keeps the digits
    that tell them apart.
    """
    rows = rows.astype(jnp.float32)
    rows = rows - jnp.mean(rows, axis=0)
    return jnp.matmul(rows, rows.T, precision=PRECISION)


def averaging(members: Array) -> Array:
    """[A, N] bool -> [A, N] float32 weights: row a averages its members; NaN where it has none."""
    weights = members.astype(jnp.float32)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def distances(gram: Array) -> Array:
    """[N, N] distances between the rows that `gram` was made of, sqrt(max(squared distance, 1e-12))."""
    norms = jnp.diagonal(gram)
    return _root(norms[:, None] + norms[None, :] - 2 * gram)


def distances_between(gram: Array, left: Array, right: Array) -> Array:
    """[A, C] distances between averages of rows.

    Args:
      gram: [N, N] of `gram_matrix`.
      left, right: [A, N] and [C, N] weights, each row summing to one (`averaging`).
    """
    products = jnp.matmul(left, gram, precision=PRECISION)
    left_norms = jnp.sum(products * left, axis=1)
    right_norms = jnp.sum(jnp.matmul(right, gram, precision=PRECISION) * right, axis=1)
    crossed = jnp.matmul(products, right.T, precision=PRECISION)
    return _root(left_norms[:, None] + right_norms[None, :] - 2 * crossed)


def distances_rowwise(gram: Array, left: Array, right: Array) -> Array:
    """[A] distances between row a of `left` and row a of `right`, both [A, N] weights as in `distances_between`."""
    difference = left - right
    return _root(jnp.sum(jnp.matmul(difference, gram, precision=PRECISION) * difference, axis=1))


def _root(squares: Array) -> Array:
    return jnp.sqrt(jnp.maximum(squares, _SMALLEST_SQUARE))
