"""The losses against formulas written a second time, in float64 and with loops; by hand; by finite differences."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import base
from icre_jax.losses.distances import averaging, distances, distances_between, distances_rowwise, gram_matrix
from icre_jax.losses.icg import FORMS, icg_terms
from icre_jax.losses.identity import identity_loss
from icre_jax.losses.objective import objective
from icre_jax.losses.triplet import batch_hard_triplet, weighted_triplet

# The batch that docs/method.md works out by hand: visible 0, visible 1, infrared 0, infrared 1, two rows each.
HAND = np.array([[0, 0], [0.2, 0], [1, 0], [1.2, 0], [0.3, 0.4], [0.5, 0.4], [1, 0.6], [1.4, 0.6]])
HAND_LABELS = np.array([0, 0, 1, 1, 0, 0, 1, 1])
HAND_MODALITY = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def icg(features, labels, modality, *, deep=None, **kwargs) -> dict[str, float]:
    rows = features if deep is None else np.concatenate([features, deep])
    terms = icg_terms(gram_matrix(jnp.asarray(rows)), jnp.asarray(labels), jnp.asarray(modality), **kwargs)
    return {name: float(term) for name, term in terms.items()}


@functools.partial(jax.jit, static_argnames=("form", "hinge", "margin_unit"))
def _compiled_terms(rows, labels, modality, form, rho, hinge="hinge", margin_unit="one"):
    return icg_terms(gram_matrix(rows), labels, modality, form=form, hinge=hinge, margin_unit=margin_unit, **rho)


@pytest.mark.versions
def test_icg_by_hand():
    relative = icg(HAND, HAND_LABELS, HAND_MODALITY, form="relative", rho1=0.3, rho2=0.3)
    assert relative == {
        "centers": pytest.approx(0.046426, abs=2e-6),
        "samples": pytest.approx(0.079664, abs=2e-6),
    }
    absolute = icg(HAND, HAND_LABELS, HAND_MODALITY, form="absolute", rho1=0.7)
    assert absolute == {"pull": pytest.approx(0.567169, abs=2e-6), "push": pytest.approx(0.005294, abs=2e-6)}
    wider = icg(HAND, HAND_LABELS, HAND_MODALITY, form="absolute", rho1=1.0)
    assert wider["push"] == pytest.approx(0.111652, abs=2e-6)
    guided = icg(HAND, HAND_LABELS, HAND_MODALITY, deep=HAND, form="guided", rho1=0.2)
    assert sum(guided.values()) == pytest.approx(0.754137, abs=2e-6)


def d(a, b):
    return np.sqrt(max(((a - b) ** 2).sum(), 1e-12))


def icg_float64(f, labels, modality, form, rho1, rho2=0.0, deep=None, smooth=False, in_means=False):
    """docs/method.md, ICG loss, line by line: centers in a dictionary, loops over identities and samples."""
    f = np.asarray(f, np.float64)
    rows = range(len(f))
    unit = np.mean([d(f[i], f[j]) for i in rows for j in rows if labels[i] != labels[j]]) if in_means else 1.0
    rho1, rho2 = rho1 * unit, rho2 * unit

    def hinge(x):
        return unit * np.logaddexp(0.0, x / unit) if smooth else max(x, 0.0)

    ids = sorted(set(labels.tolist()))
    pairs = list(itertools.product(ids, (0, 1)))
    c = {(y, m): f[(labels == y) & (modality == m)].mean(axis=0) for y, m in pairs}
    if form == "relative":
        a1 = [
            hinge(rho1 + d(c[y, m], c[y, 1 - m]) - min(d(c[y, m], c[j, n]) for j, n in pairs if j != y))
            for y, m in pairs
        ]
        a2 = [
            hinge(rho2 + d(x, c[y, 1 - m]) - min(d(x, c[j, n]) for j, n in pairs if j != y))
            for x, y, m in zip(f, labels, modality, strict=True)
        ]
        return np.mean(a1) + np.mean(a2)
    if form == "absolute":
        both = {y: f[labels == y].mean(axis=0) for y in ids}
        pull = [d(x, c[y, 1 - m]) for x, y, m in zip(f, labels, modality, strict=True)]
        push = [np.mean([hinge(rho1 - d(x, both[j])) for j in ids if j != y]) for x, y in zip(f, labels, strict=True)]
        return np.mean(pull) + np.mean(push)
    o = np.asarray(deep, np.float64)
    co = {(y, m): o[(labels == y) & (modality == m)].mean(axis=0) for y, m in pairs}
    total = []
    for y, m in pairs:
        pull = d(c[y, m], co[y, 1 - m])
        h1 = hinge(rho1 + pull - d(c[y, m], co[y, m]))
        h2 = hinge(rho1 + pull - min(d(c[y, m], c[j, m]) for j in ids if j != y))
        h3 = hinge(rho1 + pull - min(d(co[y, m], co[j, m]) for j in ids if j != y))
        total.append(h1 + (h2 + h3) / 2)
    return np.mean(total)


@st.composite
def batches(draw):
    """Features like those after a ReLU (a large common mean), identities of uneven size, rows in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    # Few shapes, since each is compiled anew: (visible, infrared) rows of every identity.
    sizes = draw(st.sampled_from([[(1, 1), (1, 1)], [(2, 2), (2, 2), (2, 2)], [(1, 3), (2, 1), (1, 1), (3, 2)]]))
    labels = np.concatenate([np.full(sum(pair), 7 * y + 3) for y, pair in enumerate(sizes)])
    modality = np.concatenate([np.repeat([0, 1], pair) for pair in sizes])
    order = rng.permutation(len(labels))
    shape = (len(labels), 5)
    scale = draw(st.sampled_from([0.1, 1.0, 10.0]))
    f, o = (3.0 + scale * rng.standard_normal(shape) for _ in range(2))
    return f, o, labels[order], modality[order]


RHO = {"relative": {"rho1": 0.3, "rho2": 0.5}, "absolute": {"rho1": 0.7}, "guided": {"rho1": 0.2}}


@pytest.mark.versions
@settings(deadline=None, max_examples=60)
@given(batch=batches(), form=st.sampled_from(FORMS), factor=st.sampled_from([1.0, 5.0]))
def test_icg_against_float64_and_its_invariances(batch, form, factor):
    f, o, labels, modality = batch
    deep = o if form == "guided" else None
    rho = {name: factor * value for name, value in RHO[form].items()}

    def value(f, labels, modality, deep):
        rows = f if deep is None else np.concatenate([f, deep])
        return float(sum(_compiled_terms(rows, labels, modality, form, rho).values()))

    loss = value(f, labels, modality, deep)
    assert loss == pytest.approx(icg_float64(f, labels, modality, form, deep=deep, **rho), rel=2e-4, abs=2e-4)
    assert loss >= 0
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = value(f[order], labels[order], modality[order], None if deep is None else deep[order])
    renamed = value(f, 100 - labels, modality, deep)
    swapped = value(f, labels, 1 - modality, deep)
    for other in (shuffled, renamed, swapped):
        assert other == pytest.approx(loss, rel=2e-4, abs=2e-4)


@settings(deadline=None, max_examples=30)
@given(
    batch=batches(),
    form=st.sampled_from(FORMS),
    hinge=st.sampled_from(["hinge", "softplus"]),
    margin_unit=st.sampled_from(["one", "mean_distance"]),
)
def test_icg_with_a_smooth_hinge_and_margins_in_mean_distances(batch, form, hinge, margin_unit):
    f, o, labels, modality = batch
    in_means = margin_unit == "mean_distance"

    def value(factor=1.0):
        rows = factor * (np.concatenate([f, o]) if form == "guided" else f)
        return float(sum(_compiled_terms(rows, labels, modality, form, RHO[form], hinge, margin_unit).values()))

    deep = o if form == "guided" else None
    how = {"smooth": hinge == "softplus", "in_means": in_means}
    assert value() == pytest.approx(
        icg_float64(f, labels, modality, form, deep=deep, **RHO[form], **how), rel=2e-4, abs=2e-4
    )
    if hinge == "softplus":
        assert value() > 0
    if in_means:  # features twice as long have twice the loss: no margin is too small for them
        assert value(8.0) == pytest.approx(8 * value(), rel=1e-3, abs=1e-4)


def test_margins_that_large_features_leave_behind_do_not_rest_in_mean_distances():
    """Of features as large as those from ImageNet weights a hinge with a margin of 0.3 is at rest."""
    rng = np.random.default_rng(0)
    labels, modality = np.repeat(np.arange(4), 4), np.tile([0, 0, 1, 1], 4)
    f = 30 * (rng.standard_normal((4, 32))[labels] + 0.4 * rng.standard_normal((16, 32)))

    def slope(**how):
        def loss(rows):
            terms = icg_terms(
                gram_matrix(rows), jnp.asarray(labels), jnp.asarray(modality), form="relative", rho1=0.3, **how
            )
            return sum(terms.values())

        return float(jnp.abs(jax.grad(loss)(jnp.asarray(f))).max())

    assert slope() == 0
    assert slope(hinge="softplus", margin_unit="mean_distance") > 1e-3


@pytest.mark.versions
@pytest.mark.parametrize("form", FORMS)
def test_icg_gradient_by_finite_differences(form):
    rng = np.random.default_rng(1)
    f, o = rng.standard_normal((2, 8, 3))
    rows = np.concatenate([f, o]) if form == "guided" else f

    def loss(x):
        terms = icg_terms(gram_matrix(x), jnp.asarray(HAND_LABELS), jnp.asarray(HAND_MODALITY), form=form, rho1=5.0)
        return sum(terms.values())

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(rows, jnp.float32)))
    assert np.abs(gradient).max() > 0.05

    def by_loops(x):
        if form != "guided":
            return icg_float64(x, HAND_LABELS, HAND_MODALITY, form, rho1=5.0)
        # The stopped distance of h1 must not move: its change is taken out (h1 is positive here).
        value = icg_float64(x[:8], HAND_LABELS, HAND_MODALITY, form, rho1=5.0, deep=x[8:])
        return value + np.mean([d(*(y[(i == HAND_LABELS) & (m == HAND_MODALITY)].mean(axis=0) for y in (x[:8], x[8:])))
                                for i in (0, 1) for m in (0, 1)])  # fmt: skip

    for row, column in itertools.product(range(len(rows)), range(3)):
        shift = np.zeros_like(rows)
        shift[row, column] = 1e-6
        slope = (by_loops(rows + shift) - by_loops(rows - shift)) / 2e-6
        assert gradient[row, column] == pytest.approx(slope, abs=2e-4)


@pytest.mark.parametrize("form", FORMS)
def test_gradient_is_finite_where_centers_coincide(form):
    rows = jnp.ones((16 if form == "guided" else 8, 3))

    def loss(x):
        terms = icg_terms(gram_matrix(x), jnp.asarray(HAND_LABELS), jnp.asarray(HAND_MODALITY), form=form, rho1=0.3)
        return sum(terms.values())

    assert np.isfinite(jax.grad(loss)(rows)).all()
    # And where only the two centers of one identity do.
    moved = rows.at[HAND_LABELS == 1].add(jnp.arange(12.0).reshape(4, 3)) if form != "guided" else rows.at[0].add(1)
    assert np.isfinite(jax.grad(loss)(moved)).all()


def test_icg_is_undefined_with_one_identity_or_a_missing_modality():
    f = np.eye(4)
    one = (np.zeros(4, int), np.array([0, 1, 0, 1]))
    alone = (np.array([5, 5, 8, 8]), np.array([0, 1, 0, 0]))
    for labels, modality, message in [(*one, "holds one only"), (*alone, r"row 2 is in one only")]:
        with pytest.raises(ValueError, match=message):
            icg(f, labels, modality, form="relative", rho1=0.3)
        # Inside a compiled step nothing can be raised: the loss is not a number, and training stops on that.
        compiled = jax.jit(lambda y, m: icg_terms(gram_matrix(jnp.eye(4)), y, m, form="relative", rho1=0.3))
        assert all(np.isnan(term) for term in compiled(jnp.asarray(labels), jnp.asarray(modality)).values())


def test_a_compiled_step_may_hold_its_labels_as_constants():
    def loss(f):
        terms = icg_terms(gram_matrix(f), HAND_LABELS, HAND_MODALITY, form="relative", rho1=0.3, rho2=0.3)
        return sum(terms.values())

    assert float(jax.jit(loss)(HAND)) == pytest.approx(float(loss(HAND)), abs=1e-6)


def test_icg_refuses_another_form_and_another_size():
    with pytest.raises(ValueError, match=r"'cosine'; allowed are relative, absolute, guided"):
        icg(HAND, HAND_LABELS, HAND_MODALITY, form="cosine", rho1=0.3)
    with pytest.raises(ValueError, match=r"gram is \(8, 8\); 8 rows of form 'guided' need \(16, 16\)"):
        icg(HAND, HAND_LABELS, HAND_MODALITY, form="guided", rho1=0.3)


def test_distances_keep_small_differences_of_large_features():
    rng = np.random.default_rng(0)
    rows = 100 + 1e-2 * rng.standard_normal((6, 512))
    stored = rows.astype(np.float32).astype(np.float64)
    expected = np.sqrt(((stored[:, None] - stored[None]) ** 2).sum(axis=-1))
    actual = np.asarray(distances(gram_matrix(jnp.asarray(rows, jnp.float32))))
    off_diagonal = ~np.eye(6, dtype=bool)
    np.testing.assert_allclose(actual[off_diagonal], expected[off_diagonal], rtol=1e-3)


def test_distances_between_averages():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5, 4))
    left = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 1]], bool)
    right = np.array([[0, 0, 1, 1, 1], [0, 1, 0, 0, 0]], bool)
    gram = gram_matrix(jnp.asarray(rows))
    means = [np.array([rows[members].mean(axis=0) for members in side]) for side in (left, right)]
    expected = np.sqrt(((means[0][:, None] - means[1][None]) ** 2).sum(axis=-1))
    weights = [averaging(jnp.asarray(side)) for side in (left, right)]
    np.testing.assert_allclose(distances_between(gram, *weights), expected, rtol=1e-5)
    np.testing.assert_allclose(distances_rowwise(gram, *weights), np.diag(expected), rtol=1e-5)


def triplets_float64(f, labels, margin):
    """Both triplet losses of docs/protocols.md, row by row; the row itself is a positive at distance 1e-6."""
    distance = np.array([[d(a, b) for b in f] for a in f])
    hard, weighted = [], []
    for row, y in zip(distance, labels, strict=True):
        positive, negative = row[labels == y], row[labels != y]
        hard.append(max(margin + positive.max() - negative.min(), 0.0))
        w_positive, w_negative = np.exp(positive - positive.max()), np.exp(negative.min() - negative)
        pull = (w_positive * positive).sum() / w_positive.sum()
        push = (w_negative * negative).sum() / w_negative.sum()
        weighted.append(np.logaddexp(0, pull - push))
    return np.array(hard), np.array(weighted)


@jax.jit
def _compiled_triplets(f, labels):
    between = distances(gram_matrix(f))
    return batch_hard_triplet(between, labels, margin=0.3), weighted_triplet(between, labels)


@pytest.mark.versions
@settings(deadline=None, max_examples=30)
@given(batch=batches())
def test_triplet_losses_against_float64(batch):
    f, _, labels, _ = batch
    hard, weighted = triplets_float64(f, labels, 0.3)
    actual_hard, actual_weighted = _compiled_triplets(f, labels)
    np.testing.assert_allclose(actual_hard, hard, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(actual_weighted, weighted, rtol=2e-3, atol=2e-3)


def test_weighted_triplet_holds_at_large_distances():
    # The published code gives weights that sum to 0.151 at distance 20, and NaN soon after.
    labels = jnp.array([0, 0, 1, 1])
    for scale in (20.0, 500.0):
        between = scale * jnp.abs(jnp.array([0.0, 0.1, 1.0, 1.1])[:, None] - jnp.array([0.0, 0.1, 1.0, 1.1]))
        loss, slope = jax.value_and_grad(lambda x: weighted_triplet(x, labels).sum())(between)
        assert np.isfinite(loss)
        assert np.isfinite(slope).all()
        in_the_wrong_order = between.max() - between
        assert float(weighted_triplet(in_the_wrong_order, labels).max()) > 0.5 * scale


def test_triplet_losses_without_a_negative_are_not_a_number():
    between, labels = jnp.ones((4, 4)), jnp.zeros(4, jnp.int32)
    assert np.isnan(batch_hard_triplet(between, labels, margin=0.3)).all()
    assert np.isnan(weighted_triplet(between, labels)).all()


def objective_of(**changes):
    rng = np.random.default_rng(2)
    f, o = rng.standard_normal((2, 8, 3)).astype(np.float32)
    outputs = {"logits": jnp.asarray(f @ f.T), "features": jnp.asarray(f), "deep_features": jnp.asarray(o)}
    config = base.get_config().loss.to_dict() | {"icg_space": "features"} | changes
    total, parts = objective(outputs, jnp.asarray(HAND_LABELS), jnp.asarray(HAND_MODALITY), **config)
    return f, o, float(total), {name: float(part) for name, part in parts.items()}


def test_objective_is_the_weighted_sum():
    f, _, total, parts = objective_of(icg_weight=0.7, triplet_weight=0.2)
    assert set(parts) == {"identity", "icg", "icg/centers", "icg/samples", "triplet"}
    assert total == pytest.approx(parts["identity"] + 0.7 * parts["icg"] + 0.2 * parts["triplet"], rel=1e-5)
    assert parts["identity"] == pytest.approx(cross_entropy_float64(f @ f.T, HAND_LABELS, 0.0).mean(), rel=1e-4)
    assert parts["icg"] == pytest.approx(icg_float64(f, HAND_LABELS, HAND_MODALITY, "relative", 0.3, 0.3), rel=1e-4)
    assert parts["triplet"] == pytest.approx(triplets_float64(f, HAND_LABELS, 0.3)[0].mean(), rel=1e-4)


@pytest.mark.versions
def test_objective_with_guided_icg_and_weighted_triplet():
    f, o, total, parts = objective_of(icg_form="guided", icg_rho1=0.2, triplet_weight=1.0, triplet_form="weighted")
    assert parts["icg"] == pytest.approx(icg_float64(f, HAND_LABELS, HAND_MODALITY, "guided", 0.2, deep=o), rel=1e-4)
    assert parts["triplet"] == pytest.approx(triplets_float64(f, HAND_LABELS, 0.0)[1].mean(), rel=1e-4)
    assert total == pytest.approx(parts["identity"] + parts["icg"] + parts["triplet"], rel=1e-5)


def test_objective_normalises_for_icg_alone():
    f, _, _, parts = objective_of(icg_space="unit_features", triplet_weight=1.0)
    unit = f / np.linalg.norm(f, axis=1, keepdims=True)
    assert parts["icg"] == pytest.approx(icg_float64(unit, HAND_LABELS, HAND_MODALITY, "relative", 0.3, 0.3), rel=1e-4)
    assert parts["triplet"] == pytest.approx(triplets_float64(f, HAND_LABELS, 0.3)[0].mean(), rel=1e-4)


def test_icg_compares_embeddings_whatever_the_features_are():
    """Features that have all but fallen together, or are very large, have the same embeddings and the same loss."""
    rng = np.random.default_rng(4)
    z, other = rng.standard_normal((2, 8, 3)).astype(np.float32)
    losses = set()
    for features in (z, 1e-3 * z + 14.0, 30.0 * z, other):
        outputs = {"logits": jnp.asarray(z), "features": jnp.asarray(features), "embeddings": jnp.asarray(z)}
        config = base.get_config().loss.to_dict() | {"icg_space": "embeddings"}
        _, parts = objective(outputs, jnp.asarray(HAND_LABELS), jnp.asarray(HAND_MODALITY), **config)
        losses.add(float(parts["icg"]))
    (loss,) = losses
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    assert loss == pytest.approx(icg_float64(unit, HAND_LABELS, HAND_MODALITY, "relative", 0.3, 0.3), rel=1e-4)


def test_the_loss_of_the_map_has_a_classifier_of_its_own():
    rng = np.random.default_rng(3)
    logits, of_map = rng.standard_normal((2, 8, 3)).astype(np.float32)
    outputs = {"logits": jnp.asarray(logits), "guide_logits": jnp.asarray(of_map), "features": jnp.asarray(logits)}
    config = base.get_config().loss.to_dict() | {"icg_weight": 0.0, "guide_weight": 0.4, "label_smoothing": 0.1}
    total, parts = objective(outputs, jnp.asarray(HAND_LABELS), jnp.asarray(HAND_MODALITY), **config)
    expected = cross_entropy_float64(of_map, HAND_LABELS, 0.1).mean()
    assert float(parts["guide"]) == pytest.approx(expected, rel=1e-4)
    assert float(total) == pytest.approx(float(parts["identity"]) + 0.4 * expected, rel=1e-4)


def test_weights_of_zero_leave_a_loss_out():
    _, _, total, parts = objective_of(icg_weight=0.0)
    assert set(parts) == {"identity"}
    assert total == pytest.approx(parts["identity"])


def cross_entropy_float64(logits, labels, smoothing):
    logits = np.asarray(logits, np.float64)
    rows = []
    for row, label in zip(logits, labels, strict=True):
        log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
        rows.append(-(1 - smoothing) * log_p[label] - smoothing * log_p.mean())
    return np.array(rows)


@pytest.mark.versions
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.1, 1.0, 100.0]), smoothing=st.sampled_from([0.0, 0.1]))
def test_identity_loss_against_float64(seed, scale, smoothing):
    rng = np.random.default_rng(seed)
    logits = (scale * rng.standard_normal((5, 7))).astype(np.float32)
    labels = rng.integers(0, 7, 5)
    expected = cross_entropy_float64(logits, labels, smoothing)
    actual = identity_loss(jnp.asarray(logits), jnp.asarray(labels), label_smoothing=smoothing)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_identity_loss_by_hand():
    # Even logits over 4 classes: log 4, whatever the smoothing.
    for smoothing in (0.0, 0.3):
        np.testing.assert_allclose(
            identity_loss(jnp.zeros((2, 4)), jnp.array([0, 3]), label_smoothing=smoothing), np.log(4), rtol=1e-6
        )


def test_identity_loss_gradient_by_finite_differences():
    logits, labels = np.random.default_rng(0).standard_normal((3, 4)), np.array([1, 0, 3])

    def loss(x):
        return jnp.mean(identity_loss(x, jnp.asarray(labels), label_smoothing=0.1))

    gradient = jax.grad(loss)(jnp.asarray(logits, jnp.float32))
    for row in range(3):
        for column in range(4):
            shift = np.zeros_like(logits)
            shift[row, column] = 1e-6
            up = cross_entropy_float64(logits + shift, labels, 0.1).mean()
            down = cross_entropy_float64(logits - shift, labels, 0.1).mean()
            assert float(gradient[row, column]) == pytest.approx((up - down) / 2e-6, abs=1e-4)
