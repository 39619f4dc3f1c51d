"""Re-ranking against the published algorithm, written down with full matrices and loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icre_jax.errors import InputError
from icre_jax.evals import reranking
from icre_jax.evals.ranking import normalize
from icre_jax.evals.reranking import rerank
from tests.test_ranking import embedded


def textbook(query, gallery, k1=20, k2=6, weight=0.3):
    """The distance of the paper's own code: N x N matrices, one image after the other."""
    unit = normalize(np.concatenate([query.features, gallery.features]))
    original = 2 - 2 * (unit @ unit.T)
    original = original / original.max(axis=1, keepdims=True)
    ranks = np.argsort(original, axis=1, kind="stable")
    num_images = len(unit)

    def reciprocal(i, k):
        forward = ranks[i, : k + 1]
        return forward[[i in ranks[j, : k + 1] for j in forward]]

    V = np.zeros((num_images, num_images))
    for i in range(num_images):
        neighbours = reciprocal(i, k1)
        expanded = neighbours
        for candidate in neighbours:
            theirs = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(np.intersect1d(theirs, neighbours)) > 2 / 3 * len(theirs):
                expanded = np.append(expanded, theirs)
        expanded = np.unique(expanded)
        weights = np.exp(-original[i, expanded])
        V[i, expanded] = weights / weights.sum()
    V = np.stack([V[ranks[i, :k2]].mean(axis=0) for i in range(num_images)])
    size = len(query)
    shared = np.minimum(V[:size, None], V[None, size:]).sum(axis=2)
    jaccard = 1 - shared / (2 - shared)
    return (1 - weight) * jaccard + weight * original[:size, size:]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(1, 25), st.integers(1, 40)),
    parameters=st.sampled_from([(20, 6, 0.3), (5, 1, 0.0), (4, 3, 0.7), (1, 2, 1.0)]),
    block_elements=st.sampled_from([1, 300, 2**22]),
)
def test_equal_to_the_published_algorithm(seed, sizes, parameters, block_elements):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, 9))
    query, gallery = (
        embedded(centres[pid] + 0.5 * rng.normal(size=(len(pid), 9)), pid)
        for pid in (rng.integers(0, 6, size) for size in sizes)
    )
    k1, k2, weight = parameters
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reranking, "_BLOCK_ELEMENTS", block_elements)
        got = rerank(query, gallery, k1=k1, k2=k2, weight=weight)
    assert got.dtype == np.float32
    np.testing.assert_allclose(1 - got, textbook(query, gallery, k1, k2, weight), rtol=0, atol=2e-6)


def test_mutual_neighbours_come_before_nearer_strangers():
    # A chain of the query's own people leads away from it; a stranger from another crowd is nearer than its end.
    angles = {"query": [0.0], "own": [0.1, 0.2, 0.3, 0.4], "stranger": [-0.38], "crowd": [-0.40, -0.41, -0.42, -0.43]}
    points = {name: np.stack([np.cos(a), np.sin(a)], axis=1) for name, a in angles.items()}
    query = embedded(points["query"], [1])
    gallery = embedded(np.concatenate([points[n] for n in ("own", "stranger", "crowd")]), [1] * 4 + [2] * 5)
    plain = normalize(query.features) @ normalize(gallery.features).T
    assert plain[0, 4] > plain[0, 3]
    reranked = rerank(query, gallery, k1=4, k2=2)
    assert reranked[0, 4] < reranked[0, 3]


def test_images_that_are_all_alike_and_sizes_that_differ():
    alike = rerank(embedded(np.ones((2, 3)), [1, 2]), embedded(np.ones((30, 3)), [1] * 30))
    assert np.isfinite(alike).all()
    with pytest.raises(InputError, match="3 dimensions, gallery features 2"):
        rerank(embedded(np.eye(3), [1, 2, 3]), embedded(np.eye(2), [1, 2]))
