"""Ranking scores against cases worked by hand, a brute-force loop and the saved answers of the field's code."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icre_jax.errors import InputError
from icre_jax.evals import ranking
from icre_jax.evals.ranking import (
    Embedded,
    average_directions,
    cosine_similarity,
    exclude_nothing,
    exclude_same_id_and_camera,
    normalize,
    rank_list,
    score,
)
from icre_jax.evals.sysu_mm01 import exclude_same_place
from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden"


def embedded(features, pid, camid=None):
    pid = np.asarray(pid, np.int64)
    camid = np.ones_like(pid) if camid is None else np.asarray(camid, np.int64)
    return Embedded(np.asarray(features, np.float32), pid, camid, np.array([f"{i}.jpg" for i in range(len(pid))]))


def at_cosines(cosines):
    """2-D vectors whose cosine with [1, 0] is as given; the lengths differ, which must not matter."""
    cosines = np.array(cosines)
    return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1) * (np.arange(len(cosines)) + 0.5)[:, None]


def brute_force(similarity, query, gallery, hidden, deduplicate, max_rank):
    """The protocol's definition, one query and one item at a time, in Python floats; None if no query counts."""
    hits, precisions, inps, chances = np.zeros(max_rank), [], [], []
    for q in range(len(query)):
        order = sorted(range(len(gallery)), key=lambda g: (-float(similarity[q, g]), g))
        order = [g for g in order if not hidden(query.pid[q], query.camid[q], gallery.pid[g], gallery.camid[g])]
        correct = [gallery.pid[g] == query.pid[q] for g in order]
        if not any(correct):
            continue
        ranks = [r for r, c in enumerate(correct, start=1) if c]
        precisions.append(sum(k / r for k, r in enumerate(ranks, start=1)) / len(ranks))
        inps.append(len(ranks) / ranks[-1])
        chances.append(len(ranks) / len(order))
        if deduplicate:
            ids = list(dict.fromkeys(gallery.pid[g] for g in order))
            first = 1 + ids.index(query.pid[q])
        else:
            first = ranks[0]
        hits[first - 1 :] += 1
    if not precisions:
        return None
    return hits / len(precisions), np.mean(precisions), np.mean(inps), np.mean(chances), len(precisions)


# --- worked on paper ---------------------------------------------------------------------------------------------


def test_one_query_four_items_on_paper():
    query = embedded([[3.0, 0.0]], [1])
    # Ranking: 0.9 (id 2), 0.8 (id 2), 0.7 (id 1), 0.6 (id 1), listed in another order.
    gallery = embedded(at_cosines([0.6, 0.9, 0.7, 0.8]), [1, 2, 1, 2])
    scores = score(query, gallery, excluded=exclude_nothing, deduplicate_ids=False, max_rank=5)
    np.testing.assert_array_equal(scores.cmc, [0, 0, 1, 1, 1])  # first true match on rank 3
    assert scores.mAP == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert scores.mINP == pytest.approx(2 / 4)
    assert scores.chance == pytest.approx(2 / 4)
    assert (scores.num_queries, scores.num_valid_queries) == (1, 1)

    deduplicated = score(query, gallery, excluded=exclude_nothing, deduplicate_ids=True, max_rank=5)
    np.testing.assert_array_equal(deduplicated.cmc, [0, 1, 1, 1, 1])  # id 2 counts once
    assert (deduplicated.mAP, deduplicated.mINP) == (scores.mAP, scores.mINP)  # on the full list all the same


def test_excluded_items_leave_the_ranking_before_ranks_are_counted():
    gallery = embedded(at_cosines([0.95, 0.9, 0.7, 0.1]), [1, 2, 1, 1], [2, 2, 1, 5])
    # From camera 3 both items of camera 2 disappear: left are two true matches, ranks 1 and 2.
    scores = score(embedded([[1, 0]], [1], [3]), gallery, excluded=exclude_same_place, deduplicate_ids=True)
    assert (scores.rank(1), scores.mAP, scores.mINP, scores.chance) == (1, 1, 1, 1)
    # From camera 6 nothing disappears: ranks 1, 3, 4.
    scores = score(embedded([[1, 0]], [1], [6]), gallery, excluded=exclude_same_place, deduplicate_ids=True)
    assert scores.mAP == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert scores.mINP == pytest.approx(3 / 4)
    # LLCM's rule takes the person's own camera only: id 1 in camera 2 goes, id 2 in camera 2 stays on rank 1.
    query = embedded([[1, 0]], [1], [2])
    scores = score(query, gallery, excluded=exclude_same_id_and_camera, deduplicate_ids=True)
    assert (scores.rank(1), scores.rank(2)) == (0, 1)
    assert scores.mAP == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_equal_similarities_keep_the_order_of_the_gallery():
    query = embedded([[1, 0]], [1])
    gallery = embedded([[0, 2], [0, 1]], [2, 1])
    options = {"excluded": exclude_nothing, "deduplicate_ids": False, "max_rank": 2}
    assert score(query, gallery, **options).mAP == 0.5
    assert score(query, gallery, **options, columns=np.array([1, 0])).mAP == 1
    # -0.0 equals 0.0, although its bits differ.
    similarity = np.array([[-0.0, 0.0]], np.float32)
    assert score(query, gallery, **options, similarity=similarity).mAP == 0.5


def test_queries_without_a_true_match_do_not_count():
    query = embedded([[1, 0], [1, 0], [1, 0]], [1, 9, 2])
    scores = score(query, embedded(at_cosines([0.9, 0.5]), [1, 2]), excluded=exclude_nothing, deduplicate_ids=True)
    assert (scores.num_queries, scores.num_valid_queries) == (3, 2)
    assert scores.mAP == pytest.approx((1 + 1 / 2) / 2)
    # Two ids only: from Rank-2 on the curve stays.
    np.testing.assert_array_equal(scores.cmc, [0.5] + [1.0] * 19)
    with pytest.raises(ValueError, match="Rank-21"):
        scores.rank(21)


def test_chance_is_the_mean_rank_1_over_all_orders():
    query = embedded([[1, 0], [1, 0]], [1, 2])
    gallery = embedded(np.ones((4, 2)), [1, 1, 2, 3])
    hits = []
    for order in itertools.permutations([0.1, 0.2, 0.3, 0.4]):
        similarity = np.array([order, order], np.float32)
        scores = score(query, gallery, excluded=exclude_nothing, deduplicate_ids=True, similarity=similarity)
        hits.append(scores.rank(1))
    assert scores.chance == pytest.approx(np.mean(hits))
    assert scores.chance == pytest.approx((2 / 4 + 1 / 4) / 2)


# --- brute force -------------------------------------------------------------------------------------------------


@st.composite
def ranking_problems(draw):
    num_queries, num_gallery = draw(st.integers(1, 6)), draw(st.integers(1, 14))

    def integers(low, high, size):
        return np.array(draw(st.lists(st.integers(low, high), min_size=size, max_size=size)), np.int64)

    query = embedded(np.ones((num_queries, 1)), integers(0, 4, num_queries), integers(0, 2, num_queries))
    gallery = embedded(np.ones((num_gallery, 1)), integers(0, 4, num_gallery), integers(0, 2, num_gallery))
    # Few values, so that ties are the rule; both signs of zero, and neighbours in float32.
    values = np.array([-1, -0.5, -0.0, 0.0, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), 1], np.float32)
    similarity = values[integers(0, 6, num_queries * num_gallery).reshape(num_queries, num_gallery)]
    columns = np.array(draw(st.permutations(range(num_gallery))))[: draw(st.integers(1, num_gallery))]
    # Any rule over two cameras, or LLCM's over id and camera.
    hidden = draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=9, max_size=9)))
    return query, gallery, similarity, columns, hidden


@settings(max_examples=400, deadline=None)
@given(ranking_problems(), st.booleans(), st.integers(1, 25), st.sampled_from([1, 20, 2**18]))
def test_score_and_rank_list_equal_the_brute_force_loop(problem, deduplicate, max_rank, block_elements):
    query, gallery, similarity, columns, hidden = problem
    if hidden is None:
        excluded = exclude_same_id_and_camera

        def is_hidden(query_pid, query_camid, pid, camid):
            return query_pid == pid and query_camid == camid
    else:
        rule = np.array(hidden).reshape(3, 3)

        def excluded(query_pid, query_camid, pid, camid):
            return rule[query_camid[:, None], camid]

        def is_hidden(query_pid, query_camid, pid, camid):
            return rule[query_camid, camid]

    drawn = gallery.subset(columns)
    expected = brute_force(similarity[:, columns], query, drawn, is_hidden, deduplicate, max_rank)
    options = {"excluded": excluded, "similarity": similarity, "columns": columns}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_BLOCK_ELEMENTS", block_elements)
        if expected is None:
            with pytest.raises(InputError, match="true match"):
                score(query, gallery, deduplicate_ids=deduplicate, max_rank=max_rank, **options)
        else:
            scores = score(query, gallery, deduplicate_ids=deduplicate, max_rank=max_rank, **options)
            np.testing.assert_allclose(scores.cmc, expected[0], rtol=0, atol=1e-12)
            got = (scores.mAP, scores.mINP, scores.chance, scores.num_valid_queries)
            np.testing.assert_allclose(got, expected[1:], rtol=0, atol=1e-12)

    q = len(query) - 1
    ranked = rank_list(query, gallery, query_index=q, top=5, **options)
    order = sorted(range(len(columns)), key=lambda g: (-float(similarity[q, columns[g]]), g))
    order = [g for g in order if not is_hidden(query.pid[q], query.camid[q], drawn.pid[g], drawn.camid[g])][:5]
    np.testing.assert_array_equal(ranked.gallery_index, columns[order])
    np.testing.assert_array_equal(ranked.similarity, similarity[q, columns[order]])
    np.testing.assert_array_equal(ranked.correct, drawn.pid[order] == query.pid[q])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([1, 70, 2**26]), st.sampled_from([1, 50, 2**18]))
def test_score_from_features_equals_brute_force_on_float64_cosines(seed, deduplicate, product_elements, block_elements):
    rng = np.random.default_rng(seed)
    query = embedded(rng.normal(size=(9, 5)) * 7, rng.integers(0, 5, 9), rng.integers(1, 4, 9))
    gallery = embedded(rng.normal(size=(23, 5)) * 0.3, rng.integers(0, 5, 23), rng.integers(1, 4, 23))
    gallery.pid[0] = query.pid[0]
    q, g = query.features.astype(np.float64), gallery.features.astype(np.float64)
    cosine = (q @ g.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(g, axis=1)
    expected = brute_force(cosine, query, gallery, lambda *_: False, deduplicate, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_PRODUCT_ELEMENTS", product_elements)
        patch.setattr(ranking, "_BLOCK_ELEMENTS", block_elements)
        scores = score(query, gallery, excluded=exclude_nothing, deduplicate_ids=deduplicate)
    np.testing.assert_allclose(scores.cmc, expected[0], atol=1e-12)
    np.testing.assert_allclose((scores.mAP, scores.mINP), expected[1:3], atol=1e-12)
    np.testing.assert_allclose(cosine_similarity(query, gallery), cosine, atol=1e-6)
    columns = rng.permutation(23)[:20]
    options = {"excluded": exclude_same_id_and_camera, "query_index": 3, "top": 7}
    ranked = rank_list(query, gallery, columns=columns, **options)
    again = rank_list(query, gallery.subset(columns), **options)
    np.testing.assert_array_equal(ranked.gallery_index, columns[again.gallery_index])
    np.testing.assert_allclose(ranked.similarity, cosine[3, ranked.gallery_index], atol=1e-6)


# --- saved answers of the field's code ---------------------------------------------------------------------------

RULES = {
    "sysu": (exclude_same_place, True),
    "llcm": (exclude_same_id_and_camera, True),
    "regdb": (exclude_nothing, False),
}


@pytest.mark.parametrize("case", ["sysu0", "sysu1", "llcm0", "llcm1", "regdb0", "regdb1"])
def test_scores_equal_the_saved_ones(case):
    arrays = np.load(GOLDEN / "ranking.npz")
    expected = json.loads((GOLDEN / "ranking.json").read_text(encoding="utf-8"))[case]
    query, gallery = (
        embedded(arrays[f"{case}_{side}f"], arrays[f"{case}_{side}pid"], arrays.get(f"{case}_{side}cam"))
        for side in "qg"
    )
    excluded, deduplicate_ids = RULES[case[:-1]]
    scores = score(query, gallery, excluded=excluded, deduplicate_ids=deduplicate_ids)
    np.testing.assert_allclose(scores.cmc, expected["cmc"], rtol=0, atol=1e-6)
    assert scores.mAP == pytest.approx(expected["mAP"], abs=1e-6)
    assert scores.mINP == pytest.approx(expected["mINP"], abs=1e-6)


# --- what cannot be scored ---------------------------------------------------------------------------------------


def test_normalize_keeps_zero_and_survives_large_features():
    unit = normalize(np.array([[3, 4], [0, 0], [3e25, 4e25]], np.float32))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [0.6, 0.8]], rtol=1e-6)


def test_an_image_and_its_mirror_image_count_alike():
    # Lengths do not matter: the mean of 0 and 90 degrees is 45 degrees.
    mean = average_directions(np.array([[5, 0], [0, 1]], np.float32), np.array([[0, 0.1], [0, 9]], np.float32))
    np.testing.assert_allclose(mean, [[0.5**0.5, 0.5**0.5], [0, 1]], rtol=1e-6)


def test_embedded_images_are_checked():
    good = embedded(np.eye(3), [1, 2, 3])
    np.testing.assert_array_equal(good.subset(np.array([2, 0])).path, ["2.jpg", "0.jpg"])
    np.testing.assert_array_equal(good.subset(np.array([2, 0])).pid, [3, 1])
    with pytest.raises(InputError, match=r"features must be \[N, D\]"):
        embedded(np.zeros((0, 3)), [])
    with pytest.raises(InputError, match=r"pid is \[2\]"):
        embedded(np.eye(3), [1, 2])
    with pytest.raises(InputError, match="features must be float32, not float64"):
        Embedded(np.eye(3), good.pid, good.camid, good.path)
    broken = np.eye(3)
    broken[1, 0] = np.nan
    with pytest.raises(InputError, match=r"1 of 3 .* first 1\.jpg"):
        embedded(broken, [1, 2, 3])


def test_arguments_that_do_not_fit_are_refused():
    query, gallery = embedded(np.eye(2), [1, 2]), embedded(np.eye(2), [1, 2])
    options = {"excluded": exclude_nothing, "deduplicate_ids": True}
    with pytest.raises(InputError, match="2 dimensions, gallery features 3"):
        score(query, embedded(np.eye(3), [1, 2, 3]), **options)
    with pytest.raises(ValueError, match=r"float32 \[2, 2\], not float64"):
        score(query, gallery, similarity=np.eye(2), **options)
    for columns in ([2], [-1], [], [[0]]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            score(query, gallery, columns=np.array(columns, np.int64), **options)
    with pytest.raises(ValueError, match="twice"):
        score(query, gallery, columns=np.array([1, 1]), **options)
    with pytest.raises(ValueError, match="max_rank"):
        score(query, gallery, max_rank=0, **options)
