"""The LLCM and RegDB protocols against loops written for these tests, Python's own generator, and cases on paper."""

import random
from pathlib import Path

import numpy as np
import pytest

from icre_jax.data.layouts import llcm as llcm_layout
from icre_jax.errors import InputError
from icre_jax.evals import PROTOCOLS, llcm, regdb
from icre_jax.evals.galleries import group_into_folders
from icre_jax.evals.protocol import evaluate, rank_lists
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import METRICS


def embedded(features, pid, camid, path=None) -> Embedded:
    path = [f"{i:04d}.jpg" for i in range(len(pid))] if path is None else path
    return Embedded(np.array(features, np.float32), np.array(pid, np.int64), np.array(camid, np.int64), np.array(path))


@pytest.fixture(scope="module")
def llcm_sides(llcm_tree) -> dict[str, Embedded]:
    """Random features for the test images of a rendered tree, in an order of chance."""
    rng = np.random.default_rng(2)
    splits = llcm_layout.scan(llcm_tree)
    centres = {r.pid: rng.normal(size=6) for r in splits["query"]}
    sides = {}
    for modality, split in (("infrared", "query"), ("visible", "gallery")):
        records = [splits[split][i] for i in rng.permutation(len(splits[split]))]
        features = [centres[r.pid] + 1.5 * rng.normal(size=6) for r in records]
        sides[modality] = embedded(
            features, [r.pid for r in records], [r.camid for r in records], [r.path for r in records]
        )
    return sides


@pytest.fixture(scope="module")
def regdb_sides() -> dict[str, Embedded]:
    rng = np.random.default_rng(3)
    pid = np.repeat(np.arange(9), 4)
    centres = rng.normal(size=(9, 5))
    return {
        modality: embedded(centres[pid] + 1.2 * rng.normal(size=(36, 5)), pid, np.full(36, camid))
        for modality, camid in (("visible", 1), ("infrared", 2))
    }


def by_hand(query: Embedded, gallery: Embedded, *, same_camera_hidden: bool, deduplicate: bool) -> dict[str, float]:
    """Every query on its own, in float64: Rank-k, mAP, mINP as the papers define them."""
    first_ranks, aps, inps = [], [], []
    unit = [f / np.linalg.norm(f) for f in gallery.features.astype(np.float64)]
    for f, pid, camid in zip(query.features.astype(np.float64), query.pid, query.camid, strict=True):
        order = sorted(range(len(gallery)), key=lambda j: -float(unit[j] @ f))
        if same_camera_hidden:
            order = [j for j in order if not (gallery.pid[j] == pid and gallery.camid[j] == camid)]
        ranked = [int(gallery.pid[j]) for j in order]
        hits = [rank for rank, other in enumerate(ranked, start=1) if other == pid]
        if not hits:
            continue
        first_ranks.append(1 + (list(dict.fromkeys(ranked)).index(pid) if deduplicate else ranked.index(pid)))
        aps.append(np.mean([k / rank for k, rank in enumerate(hits, start=1)]))
        inps.append(len(hits) / hits[-1])
    ranks = {f"rank{k}": float(np.mean([r <= k for r in first_ranks])) for k in (1, 5, 10, 20)}
    return ranks | {"mAP": float(np.mean(aps)), "mINP": float(np.mean(inps))}


def field_draw(root: Path, folder: str, trial: int) -> list[str]:
    """As the field lists a gallery: module-level generator, folders on the disk."""
    random.seed(trial)
    files = []
    ids = [int(word) for word in (root / "idx" / "test_id.txt").read_text().split(",")]
    for pid in sorted(ids):
        for camid in range(1, 10):
            listing = root / folder / f"cam{camid}" / f"{pid:04d}"
            if listing.is_dir():
                files.append(random.choice(sorted(str(path) for path in listing.iterdir())))
    return [Path(file).relative_to(root).as_posix() for file in files]


# --- LLCM ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "modality"), [("test_vis", "visible"), ("test_nir", "infrared")])
def test_llcm_galleries_are_those_of_the_field(llcm_tree, llcm_sides, folder, modality):
    pool = llcm_sides[modality]
    drawn = [pool.path[llcm.draw_single_shot(group_into_folders(pool), trial)].tolist() for trial in range(10)]
    assert drawn == [field_draw(llcm_tree, folder, trial) for trial in range(10)]
    assert len({tuple(paths) for paths in drawn}) == 10


def test_llcm_equals_a_loop_over_its_queries(llcm_tree, llcm_sides):
    results = evaluate(PROTOCOLS["llcm"], llcm_sides, dataset="a tree", num_trials=4)
    names = ["infrared_to_visible", "visible_to_infrared", "visible_to_infrared_transposed"]
    assert [result.setting for result in results] == names
    visible, infrared = llcm_sides["visible"], llcm_sides["infrared"]

    def take(pool: Embedded, folder: str, trial: int) -> Embedded:
        index = {path: i for i, path in enumerate(pool.path.tolist())}
        return pool.subset(np.array([index[path] for path in field_draw(llcm_tree, folder, trial)]))

    pairs = [
        [(infrared, take(visible, "test_vis", trial)) for trial in range(4)],
        [(visible, take(infrared, "test_nir", trial)) for trial in range(4)],
        [(take(infrared, "test_nir", trial), visible) for trial in range(4)],
    ]
    for result, trials in zip(results, pairs, strict=True):
        values = [by_hand(*pair, same_camera_hidden=True, deduplicate=True) for pair in trials]
        for metric in METRICS:
            assert result.mean[metric] == pytest.approx(np.mean([v[metric] for v in values]), abs=1e-6), metric
            assert result.std[metric] == pytest.approx(np.std([v[metric] for v in values]), abs=1e-6), metric
        assert 0 < result.mean["mAP"] < 1
        assert result.std["mAP"] > 0
        assert (result.num_queries, result.num_trials) == (len(trials[0][0]), 4)
        assert (result.protocol, result.dataset, result.reranking) == ("LLCM", "a tree", False)
    assert [result.direction for result in results] == [
        "infrared->visible", "visible->infrared", "visible->infrared (transposed)",
    ]  # fmt: skip
    assert [result.gallery_source for result in results] == [
        "python-random", "python-random", "all images, queries python-random",
    ]  # fmt: skip


@pytest.mark.parametrize("product_elements", [1, 200])
def test_without_a_matrix_of_all_pairs_the_scores_are_the_same(monkeypatch, llcm_sides, regdb_sides, product_elements):
    for protocol, sides in ((llcm.PROTOCOL, llcm_sides), (regdb.PROTOCOL, regdb_sides)):
        whole = evaluate(protocol, sides, dataset="test", num_trials=2)
        with monkeypatch.context() as patch:
            patch.setattr("icre_jax.evals.protocol._MOST_SIMILARITIES", 0)
            patch.setattr("icre_jax.evals.protocol.cosine_similarity", None)  # is not called
            patch.setattr("icre_jax.evals.ranking._PRODUCT_ELEMENTS", product_elements)
            parts = evaluate(protocol, sides, dataset="test", num_trials=2)
        assert parts == whole


def test_llcm_on_paper():
    """One person in cameras 1 and 2, another in camera 1: the own camera is hidden, of the own person only."""
    infrared = embedded([[1, 0]], [1], [1])
    visible = embedded([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3]], [1, 2, 2, 1], [1, 1, 2, 2])
    there, back, transposed = evaluate(
        PROTOCOLS["llcm"], {"visible": visible, "infrared": infrared}, dataset="paper", num_trials=2
    )
    # Behind the hidden image of camera 1 come id 2 twice, then the match in camera 2.
    assert there.cmc == [0] + [1] * 19
    assert there.mean["mAP"] == pytest.approx(1 / 3)
    # The only infrared image is a match for the visible one of camera 2, and hidden from that of camera 1.
    assert (back.num_queries, back.num_valid_queries) == (4, 1)
    assert back.mean["rank1"] == back.mean["mAP"] == 1
    # Transposed: one query again, and a gallery of all four.
    assert (transposed.num_queries, transposed.mean["mAP"]) == (1, pytest.approx(1 / 3))


def test_transposed_sees_all_visible_images_and_direct_one_of_each(llcm_sides):
    _, back, transposed = evaluate(PROTOCOLS["llcm"], llcm_sides, dataset="tree", num_trials=1)
    folders = {(p, c) for p, c in zip(llcm_sides["infrared"].pid, llcm_sides["infrared"].camid, strict=True)}
    assert back.num_queries == len(llcm_sides["visible"])
    assert transposed.num_queries == len(folders) < len(llcm_sides["infrared"])


# --- RegDB --------------------------------------------------------------------------------------------------------


def test_regdb_equals_a_loop_over_its_queries(regdb_sides):
    results = evaluate(PROTOCOLS["regdb"], regdb_sides, dataset="pairs", num_trials=10)
    assert [result.setting for result in results] == [
        "visible_to_infrared", "infrared_to_visible",
        "visible_to_infrared_deduplicated", "infrared_to_visible_deduplicated",
    ]  # fmt: skip
    visible, infrared = regdb_sides["visible"], regdb_sides["infrared"]
    for result, (query, gallery, deduplicate) in zip(
        results,
        [
            (visible, infrared, False), (infrared, visible, False),
            (visible, infrared, True), (infrared, visible, True),
        ],
        strict=True,
    ):  # fmt: skip
        expected = by_hand(query, gallery, same_camera_hidden=False, deduplicate=deduplicate)
        assert result.mean == pytest.approx(expected, abs=1e-6)
        assert (result.num_trials, result.num_queries, result.num_valid_queries) == (1, 36, 36)
        assert set(result.std.values()) == {0}
        assert result.gallery_source == "all images"
    plain, _, deduplicated, _ = results
    for metric in ("rank1", "mAP", "mINP"):
        assert plain.mean[metric] == deduplicated.mean[metric]
    assert plain.mean["rank5"] < deduplicated.mean["rank5"]


def test_regdb_on_paper():
    """Two people: thermal images of id 0 at 0 and 50 degrees, of id 1 at 10 and 20; one visible image each."""
    turn = np.deg2rad
    infrared = embedded([[np.cos(turn(a)), np.sin(turn(a))] for a in (0, 50, 10, 20)], [0, 0, 1, 1], [2, 2, 2, 2])
    visible = embedded([[np.cos(turn(12)), np.sin(turn(12))]], [0], [1])
    results = evaluate(PROTOCOLS["regdb"], {"visible": visible, "infrared": infrared}, dataset="paper", num_trials=1)
    plain, back, deduplicated, _ = results
    # Ranking 10, 20, 0, 50: matches at ranks 3 and 4; as ids at rank 2.
    assert plain.cmc == [0, 0] + [1] * 18
    assert deduplicated.cmc == [0] + [1] * 19
    assert plain.mean["mAP"] == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert plain.mean["mINP"] == pytest.approx(2 / 4)
    # Back, only the two thermal images of id 0 have a match, and it is all there is.
    assert (back.num_queries, back.num_valid_queries, back.mean["mAP"]) == (4, 2, 1)


def test_swapping_the_directions_is_swapping_the_roles(regdb_sides):
    """What was visible is called infrared and the other way round: the two directions change places, exactly."""
    visible, infrared = regdb_sides["visible"], regdb_sides["infrared"]
    swapped = {
        "visible": Embedded(infrared.features, infrared.pid, visible.camid, infrared.path),
        "infrared": Embedded(visible.features, visible.pid, infrared.camid, visible.path),
    }
    there, back, *_ = evaluate(PROTOCOLS["regdb"], regdb_sides, dataset="pairs", num_trials=1)
    there_swapped, back_swapped, *_ = evaluate(PROTOCOLS["regdb"], swapped, dataset="pairs", num_trials=1)
    assert there.mean != back.mean
    assert there_swapped.mean == pytest.approx(back.mean, abs=1e-9)
    assert back_swapped.mean == pytest.approx(there.mean, abs=1e-9)


# --- all protocols ------------------------------------------------------------------------------------------------


def test_metric_names_are_those_of_the_results(llcm_sides, regdb_sides):
    for name, sides in (("llcm", llcm_sides), ("regdb", regdb_sides)):
        results = evaluate(PROTOCOLS[name], sides, dataset="tree", num_trials=1)
        names = [key for result in results for key in result.scalars()]
        assert tuple(names) == PROTOCOLS[name].metric_names
    assert "infrared_to_visible/mAP" in PROTOCOLS["llcm"].metric_names
    assert "visible_to_infrared/mAP" in PROTOCOLS["regdb"].metric_names
    assert "all/single/mAP" in PROTOCOLS["sysu_mm01"].metric_names
    assert not any(PROTOCOLS[name].settings[0].transposed for name in PROTOCOLS)  # the headline has rank lists


def test_sides_that_are_swapped_are_refused(regdb_sides, llcm_sides):
    swapped = {"visible": regdb_sides["infrared"], "infrared": regdb_sides["visible"]}
    with pytest.raises(InputError, match=r"visible side holds images of camera 2; RegDB .* swapped"):
        evaluate(PROTOCOLS["regdb"], swapped, dataset="pairs", num_trials=1)
    third = llcm_sides["infrared"].subset(np.array([0]))
    third.camid[:] = 3
    with pytest.raises(InputError, match=r"infrared side holds images of camera 3; LLCM"):
        evaluate(PROTOCOLS["llcm"], llcm_sides | {"infrared": third}, dataset="tree", num_trials=1)


def test_rank_lists_are_of_the_first_gallery_of_the_headline(llcm_tree, llcm_sides):
    ranked = rank_lists(llcm.PROTOCOL.settings[0], llcm_sides, [0, 5], top=4)
    drawn = set(field_draw(llcm_tree, "test_vis", 0))
    visible = llcm_sides["visible"]
    for row, query in zip(ranked, (0, 5), strict=True):
        assert len(row.gallery_index) == 4
        assert set(visible.path[row.gallery_index].tolist()) <= drawn
        np.testing.assert_array_equal(row.correct, visible.pid[row.gallery_index] == llcm_sides["infrared"].pid[query])
    sides = {"visible": embedded(np.eye(3), [0, 1, 2], [1] * 3), "infrared": embedded(np.eye(3), [0, 1, 2], [2] * 3)}
    (one,) = rank_lists(regdb.PROTOCOL.settings[0], sides, [1], top=10)
    assert len(one.gallery_index) == 3
    assert (one.gallery_index[0], one.correct.tolist()) == (1, [True, False, False])
