"""FPIR, FNIR and thresholds against loops and cases by hand, and how often the intervals hold what they say."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded, exclude_same_id_and_camera
from icre_jax.retrieval.calibration import Calibration, calibrate
from icre_jax.retrieval.open_set import (
    Rate,
    Searches,
    best_per_person,
    det_curve,
    interval,
    operate,
    run_searches,
)
from icre_jax.sums import seal


def side(features, pid, camid=None):
    pid = np.asarray(pid, np.int64)
    camid = np.zeros(len(pid), np.int64) if camid is None else np.asarray(camid, np.int64)
    names = np.array([str(row) for row in range(len(pid))])
    return Embedded(np.asarray(features, np.float32), pid, camid, names)


def people(seed, number, images=3, dimensions=12, noise=0.8, first=0):
    """Query and gallery images of the same people: directions of their own, and noise."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((number, dimensions))
    pid = first + np.repeat(np.arange(number), images)

    def one():
        spread = noise * rng.standard_normal((number * images, dimensions))
        return side(np.repeat(centers, images, axis=0) + spread, pid)

    return one(), one()


def searches(mate, rank, other, strangers=None):
    mate, other = np.asarray(mate, np.float32), np.asarray(other, np.float32)
    return Searches(
        mate, np.asarray(rank), other, num_enrolled=5, num_images=5, num_mated=len(mate),
        num_strangers=strangers or len(other), num_draws=1,
    )  # fmt: skip


def test_the_rates_by_hand():
    found = searches(mate=[0.9, 0.5, 0.5, 0.2], rank=[1, 1, 2, 3], other=[0.1, 0.3, 0.5, 0.6])
    assert found.fpir(0.5).value == 0.5  # "at or above"
    assert found.fpir(0.50001).value == 0.25
    assert found.fnir(0.5).value == 0.25
    assert found.fnir(0.5, rank=1).value == 0.5
    assert found.fnir(-1, rank=1).value == 0.5  # no threshold: 1 - Rank-1
    assert found.fnir(-1).value == 0
    assert found.fnir(2).value == 1


def test_the_threshold_by_hand():
    found = searches(mate=[0.9], rank=[1], other=[0.1, 0.3, 0.5, 0.6])
    threshold = found.threshold(0.25)
    assert 0.5 < threshold < 0.500001
    assert found.fpir(threshold).value == 0.25
    # Of equal ones none or all are above: then rather none.
    assert searches([1], [1], [0.1, 0.6, 0.6, 0.6]).fpir(searches([1], [1], [0.1, 0.6, 0.6, 0.6]).threshold(0.5)) == (
        interval(0, 4)
    )


@settings(max_examples=100, deadline=None)
@given(
    other=st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=40),
    fpir=st.floats(0.01, 0.99),
)
def test_the_threshold_is_the_lowest_that_keeps_the_rate(other, fpir):
    found = searches([1], [1], other)
    if fpir * len(other) < 1:
        with pytest.raises(InputError, match=r"cannot be measured on \d+ strangers"):
            found.threshold(fpir)
        return
    threshold = found.threshold(fpir)
    assert found.fpir(threshold).value <= fpir + 1e-9
    lower = np.nextafter(np.float32(threshold), np.float32(-2))
    assert found.fpir(lower).value > fpir - 1e-9


@pytest.mark.parametrize("fpir", [0, 1, -0.1, 1.5, float("nan")])
def test_a_rate_is_a_share(fpir):
    with pytest.raises(InputError, match="between 0 and 1"):
        searches([1], [1], [0.5] * 10).threshold(fpir)


def test_the_rate_that_a_refusal_names_is_taken():
    for number in (*range(2, 201), 999, 10**4, 3 * 10**6):
        found = searches([1], [1], [0.5], strangers=number)
        with pytest.raises(InputError, match=rf"cannot be measured on {number} strangers") as refusal:
            found.threshold(0.5 / number)
        named = re.search(r"Ask for (0\.[0-9]+) or more", str(refusal.value))[1]
        found.threshold(float(named))
        assert float(named) <= 1.1 / number  # and it is no larger than two digits make it


def test_the_interval_is_that_of_clopper_and_pearson():
    for errors, number in ((0, 10), (1, 10), (5, 10), (10, 10), (3, 200)):
        expected = stats.binomtest(errors, number).proportion_ci(0.95, method="exact")
        ours = interval(errors / number, number)
        np.testing.assert_allclose((ours.low, ours.high), (expected.low, expected.high), atol=1e-9)
    assert interval(0, 100).high == pytest.approx(0.0362, abs=1e-4)  # about 3 / n
    between = interval(0.25, 10)
    assert interval(0.2, 10).low < between.low < 0.25 < between.high < interval(0.3, 10).high


def test_the_best_image_of_every_person():
    rng = np.random.default_rng(0)
    query = side(rng.standard_normal((5, 4)), [3, 1, 7, 1, 9], [1, 2, 3, 1, 1])
    gallery = side(rng.standard_normal((9, 4)), [7, 1, 3, 1, 7, 4, 3, 3, 1], [3, 2, 1, 1, 3, 1, 1, 1, 2])
    pid, best = best_per_person(query, gallery, exclude_same_id_and_camera)
    assert pid.tolist() == [1, 3, 4, 7]
    for q in range(5):
        for p, person in enumerate(pid):
            allowed = [
                float(query.features[q] @ gallery.features[g])
                / np.linalg.norm(query.features[q])
                / np.linalg.norm(gallery.features[g])
                for g in range(9)
                if gallery.pid[g] == person and not (query.pid[q] == person and query.camid[q] == gallery.camid[g])
            ]
            np.testing.assert_allclose(best[q, p], max(allowed, default=-np.inf), atol=1e-3)


def test_searches_against_a_loop():
    """One image after the other, one person after the other, in float64."""
    query, gallery = people(0, number=9)
    keep = query.pid != 7  # 7 has gallery images only, 100 query images only
    query = query.subset(np.flatnonzero(keep))
    query = side(np.vstack([query.features, np.ones((2, 12))]), np.append(query.pid, [100, 100]))
    found = run_searches(query, gallery, num_draws=3, seed=4)
    mates, ranks, others = [], [], []
    for draw in range(3):
        both = [pid for pid in range(9) if pid != 7]
        drawn = {*np.random.default_rng((4, draw)).permutation(both)[:4].tolist(), 7}
        for features, pid in zip(query.features.astype(np.float64), query.pid.tolist(), strict=True):
            best = {
                person: max(
                    features @ row / np.linalg.norm(features) / np.linalg.norm(row)
                    for row in gallery.features[gallery.pid == person].astype(np.float64)
                )
                for person in drawn
            }
            if pid in drawn:
                mates.append(best[pid])
                ranks.append(sorted(best, key=lambda person: -best[person]).index(pid) + 1)
            else:
                others.append(max(best.values()))
    np.testing.assert_allclose(found.mate, mates, atol=1e-3)
    np.testing.assert_allclose(found.other, others, atol=1e-3)
    assert np.mean(found.mate_rank == ranks) > 0.95  # two persons may be alike within the rounding
    assert (found.num_enrolled, found.num_mated, found.num_strangers) == (5, 4, 5)
    assert found.num_images == 15


def test_draws_depend_on_the_seed_alone_and_nobody_is_on_both_sides():
    query, gallery = people(1, number=10)
    first, again, other = (run_searches(query, gallery, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.mate, again.mate)
    assert not np.array_equal(first.mate, other.mate)
    assert len(first.mate) == len(first.other) == 20 * 5 * 3  # disjoint halves, every image once a draw


@pytest.mark.parametrize(
    ("number", "enrolled", "words"),
    [(3, None, "1 enrolled persons and 2 strangers"), (8, 7, "7 enrolled persons and 1 strangers"),
     (8, 1, "1 enrolled persons"), (8, 9, "9 enrolled persons and -1 strangers")],
)  # fmt: skip
def test_too_few_people(number, enrolled, words):
    with pytest.raises(InputError, match=words):
        run_searches(*people(0, number), num_enrolled=enrolled)


def test_searches_whose_mate_may_not_be_seen_are_none():
    query, gallery = people(0, number=6)
    camid = np.tile([1, 2, 3], 6)
    query, gallery = (side(each.features, each.pid, camid) for each in (query, gallery))
    one_camera = gallery.subset(np.flatnonzero(gallery.camid == 1))
    found = run_searches(query, one_camera, excluded=exclude_same_id_and_camera, num_draws=2)
    assert len(found.mate) == 2 * 3 * 2  # of three images each, one is of the camera of the mate
    assert np.isfinite(found.mate).all()
    assert found.num_mated == 3  # everybody can be found by two images


def seen_by_some(number_seen, number=20):
    """Query and gallery in which the first people can be found, and the others were seen by one camera alone."""
    query, gallery = people(0, number)
    camid = np.where(query.pid < number_seen, 2, 1)
    return side(query.features, query.pid, camid), side(gallery.features, gallery.pid, np.ones_like(gallery.pid))


def test_who_can_never_be_found_does_not_make_the_interval_narrow():
    query, gallery = seen_by_some(6)
    for seed in range(5):
        found = run_searches(query, gallery, excluded=exclude_same_id_and_camera, seed=seed)
        drawn = [np.random.default_rng((seed, draw)).permutation(20)[:10] for draw in range(20)]
        numbers = [np.count_nonzero(chosen < 6) for chosen in drawn]
        assert len(found.mate) == 3 * sum(numbers)
        assert found.num_mated == min(number for number in numbers if number) < 6
        assert found.fnir(-1) == interval(0, found.num_mated)
        assert found.fnir(-1).high > interval(0, 6).high
        assert found.num_strangers == 10  # nothing of theirs is hidden


def test_a_draw_in_which_nobody_can_be_found_says_nothing_of_fnir():
    query, gallery = seen_by_some(1)
    numbers = [0 in np.random.default_rng((0, draw)).permutation(20)[:10] for draw in range(20)]
    assert 0 < sum(numbers) < 20
    found = run_searches(query, gallery, excluded=exclude_same_id_and_camera)
    assert len(found.mate) == 3 * sum(numbers)
    assert found.num_mated == 1
    assert (found.fnir(2).low, found.fnir(2).high) == (pytest.approx(0.025), 1)
    with pytest.raises(InputError, match="No query may see an image of its own person"):
        run_searches(*seen_by_some(0), excluded=exclude_same_id_and_camera)


def test_the_curve_falls_and_leaves_out_what_cannot_be_shown():
    found = run_searches(*people(3, number=40))
    curve = det_curve(found, (0.5, 0.2, 0.1, 0.05, 0.02))
    assert [point.target for point in curve] == [0.5, 0.2, 0.1, 0.05]  # 20 strangers at a time
    for point in curve:
        assert point.fpir.low <= point.fpir.value <= point.target
        assert point.fpir.value > point.target - 0.02  # not all: a search may give the same in several draws
        assert point.fnir.value <= point.fnir_first.value
    missed = [point.fnir.value for point in curve]
    assert missed == sorted(missed)


def test_fpir_grows_with_the_gallery_and_no_faster_than_the_formula():
    """Some people look like many others; so many are there that those of one draw are hardly missing in the next."""
    rng = np.random.default_rng(5)
    common = rng.standard_normal((1500, 1)) ** 2 * np.ones(16)
    query, gallery = (
        side(each.features + common, each.pid) for each in people(6, number=1500, images=1, dimensions=16)
    )
    threshold = operate(run_searches(query, gallery, num_enrolled=15), 0.1).threshold
    small, large = (
        run_searches(query, gallery, num_enrolled=number, num_draws=60).fpir(threshold).value for number in (15, 90)
    )
    assert small < large <= 1 - (1 - small) ** 6


def make_calibration(seed=0, number=40, fpir=0.1, **more):
    query, gallery = people(seed, number)
    facts = {"query_modality": "infrared", "gallery_modality": "visible", "model_hash": "a" * 64, "origin": "runs/it"}
    return calibrate(query, gallery, fpir=fpir, **{**facts, **more})


def test_a_calibration_says_what_it_was_measured_on(tmp_path):
    found = make_calibration()
    measured = run_searches(*people(0, 40))
    assert found.fpir == measured.fpir(found.threshold)
    assert found.fnir == measured.fnir(found.threshold)
    assert found.fnir_first == measured.fnir(found.threshold, rank=1)
    numbers = (found.num_enrolled, found.num_images, found.num_mated, found.num_strangers, found.num_held_out)
    assert numbers == (20, 60, 20, 20, 40)
    (tmp_path / "calibration.json").write_text(found.to_json())
    assert Calibration.read(tmp_path / "calibration.json") == found
    assert json.loads((tmp_path / "calibration.json").read_text())["threshold"] == found.threshold


def test_the_rate_for_another_size():
    found = make_calibration().model_copy(update={"fpir": Rate(0.1, 0.05, 0.2)})
    for persons, images in ((20, 60), (21, 58), (19, 63)):  # within 5 %
        assert (found.at(persons, images).how, found.at(persons, images).fpir) == ("measured", found.fpir)
    for persons, images in ((10, 30), (20, 20), (1, 1)):
        held = found.at(persons, images)
        assert (held.how, held.fpir) == ("smaller", found.fpir)
    for persons, images in ((40, 60), (20, 120), (40, 120)):  # whichever has grown more
        held = found.at(persons, images)
        assert held.how == "rescaled"
        assert held.fpir.value == pytest.approx(0.19)  # 1 - 0.9 * 0.9
        assert held.fpir.low == pytest.approx(1 - 0.95**2)
        assert held.fpir.high == pytest.approx(1 - 0.8**2)
    assert found.at(200, 600).fpir.value == pytest.approx(1 - 0.9**10)
    for persons, images in ((201, 600), (20, 601)):
        with pytest.raises(InputError, match=r"20 persons with 60 images; .* more than 10 times as many"):
            found.at(persons, images)


def test_what_was_calibrated_for_something_else_is_refused():
    found = make_calibration()
    found.require_model("a" * 64, "runs/it")
    with pytest.raises(InputError, match=r"another network than runs/new: with runs/it of hash aaaaaaaaaaaa"):
        found.require_model("b" * 64, "runs/new")
    found.require_modalities("infrared", {"visible"})
    for query, gallery in (("visible", {"visible"}), ("infrared", {"infrared"}), ("infrared", {"visible", "infrared"})):
        with pytest.raises(InputError, match="is for infrared queries and visible galleries"):
            found.require_modalities(query, gallery)


@pytest.mark.parametrize(
    "change",
    [{"threshold": float("nan")}, {"threshold": "0.5"}, {"format": 2}, {"target": 0}, {"more": 1}, {"fpir": 0.1}],
)
def test_a_file_that_is_no_calibration(change, tmp_path):
    path = tmp_path / "calibration.json"
    known = json.loads(make_calibration().model_dump_json())
    path.write_text(json.dumps(seal({**known, **change})))
    with pytest.raises(InputError, match="cannot be read as a calibration"):
        Calibration.read(path)
    for text in ("", "{}", "[1]", "\x00", json.dumps(known), "[" * 10**5):
        path.write_text(text)
        with pytest.raises(InputError, match="cannot be read as a calibration"):
            Calibration.read(path)
    with pytest.raises(InputError, match="cannot be read as a calibration"):
        Calibration.read(tmp_path / "nothing.json")


def held_on_unseen_people(trial, number, fpir):
    """Whether FPIR and FNIR of other people of the same kind lie in the intervals of a calibration."""
    found = make_calibration(seed=(trial, 0), number=number, fpir=fpir)
    unseen = run_searches(*people((trial, 1), number, first=1000), num_enrolled=number // 2)
    rates = (
        (found.fpir, unseen.fpir(found.threshold)),
        (found.fnir, unseen.fnir(found.threshold)),
        (found.fnir_first, unseen.fnir(found.threshold, rank=1)),
    )
    return [stated.low <= measured.value <= stated.high for stated, measured in rates]


def test_the_intervals_hold_on_unseen_people():
    """With 95 % said, and with as few people measured as calibrated."""
    held = np.array([held_on_unseen_people(trial, number=40, fpir=0.1) for trial in range(40)])
    assert held.mean(axis=0).min() >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("number", "fpir"), [(20, 0.2), (100, 0.05), (200, 0.02)])
def test_the_intervals_hold_at_other_sizes(number, fpir):
    held = np.array([held_on_unseen_people(trial, number, fpir) for trial in range(200)])
    assert held.mean(axis=0).min() >= 0.93
