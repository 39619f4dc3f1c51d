"""The SYSU-MM01 protocol on a small tree of files: draws, place rule, settings, labels."""

import dataclasses
import random

import numpy as np
import pytest

from icre_jax.errors import InputError
from icre_jax.evals import protocol
from icre_jax.evals.galleries import PYTHON_RANDOM, GallerySource, draw_python_random, group_into_folders
from icre_jax.evals.ranking import Embedded, score
from icre_jax.evals.reranking import rerank
from icre_jax.evals.sysu_mm01 import PROTOCOL, exclude_same_place, make_protocol

IDS = (3, 6, 11, 25, 104, 333)
ALL, INDOOR = (1, 2, 4, 5), (1, 2)


def evaluate(query, gallery, *, dataset, settings=None, source=PYTHON_RANDOM, num_trials=10, **labels):
    """The protocol with only some of its settings."""
    chosen = make_protocol(source)
    if settings:
        chosen = dataclasses.replace(chosen, settings=tuple(s for s in chosen.settings if s.name in settings))
    sides = {"infrared": query, "visible": gallery}
    return protocol.evaluate(chosen, sides, dataset=dataset, num_trials=num_trials, **labels)


def images(rng, paths, centres):
    camid = np.array([int(path.split("/")[-3][3:]) for path in paths])
    pid = np.array([int(path.split("/")[-2]) for path in paths])
    noise = rng.normal(size=(len(paths), 8))
    features = np.stack([centres[p] for p in pid]) + 2 * noise
    return Embedded(features.astype(np.float32), pid, camid, np.array(paths))


@pytest.fixture
def tree(tmp_path):
    """A data set folder whose name holds "cam"; some (camera, id) folders are missing, sizes go from 1 to 23."""
    rng = np.random.default_rng(5)
    root = tmp_path / "cam9_copy"
    for camid in range(1, 7):
        for pid in IDS:
            if (camid, pid) in {(1, 6), (2, 6), (2, 11), (5, 3)}:
                continue
            folder = root / f"cam{camid}" / f"{pid:04d}"
            folder.mkdir(parents=True)
            for number in rng.permutation(40)[: rng.integers(1, 24)]:
                (folder / f"{number + 1:04d}.jpg").touch()
    return root


@pytest.fixture
def sides(tree):
    rng = np.random.default_rng(6)
    centres = {pid: rng.normal(size=8) for pid in IDS}
    paths = [path.as_posix() for path in tree.rglob("*.jpg")]
    rng.shuffle(paths)  # the pool's order must not matter

    def of(cameras):
        return images(rng, [path for path in paths if int(path.split("/")[-3][3:]) in cameras], centres)

    return of((3, 6)), of(ALL)


def field_single_shot(root, cameras, trial):
    """How the field's code lists a single-shot gallery: module-level generator, folders on the disk."""
    random.seed(trial)
    files = []
    for pid in sorted(IDS):
        for camid in cameras:
            folder = root / f"cam{camid}" / f"{pid:04d}"
            if folder.is_dir():
                files.append(random.choice(sorted(path.as_posix() for path in folder.iterdir())))
    return files


@pytest.mark.parametrize("cameras", [ALL, INDOOR])
def test_single_shot_draws_are_those_of_the_field(tree, sides, cameras):
    _, gallery = sides
    folders = group_into_folders(gallery)
    drawn = [gallery.path[draw_python_random(folders, cameras, 1, trial)].tolist() for trial in range(10)]
    assert drawn == [field_single_shot(tree, cameras, trial) for trial in range(10)]
    assert len({tuple(paths) for paths in drawn}) == 10
    # One image per folder that exists: 6 ids x 4 cameras - 4, or 6 x 2 - 3.
    assert len(drawn[0]) == (20 if cameras == ALL else 9)


def test_the_draw_in_absolute_terms():
    """Four folders of three images: with seed 0 Python's generator chooses 1, 1, 0, 1."""
    folders = {(pid, 1): {"a": 3 * pid, "b": 3 * pid + 1, "c": 3 * pid + 2} for pid in range(4)}
    np.testing.assert_array_equal(draw_python_random(folders, ALL, 1, 0), [1, 4, 6, 10])


def test_multi_shot_draws_up_to_ten_of_every_folder(sides):
    _, gallery = sides
    drawn = draw_python_random(group_into_folders(gallery), ALL, 10, 7)
    random.seed(7)
    expected = []
    for pid in sorted(IDS):
        for camid in ALL:
            listing = sorted(gallery.path[(gallery.pid == pid) & (gallery.camid == camid)].tolist())
            expected += random.sample(listing, min(10, len(listing)))
    assert gallery.path[drawn].tolist() == expected
    assert len(set(drawn.tolist())) == len(drawn)
    # The module-level generator is left alone.
    state = random.getstate()
    draw_python_random(group_into_folders(gallery), ALL, 10, 7)
    assert random.getstate() == state


def test_place_rule_bites_only_between_cameras_2_and_3():
    query_camid, gallery_camid = np.array([3, 6]), np.array([1, 2, 4, 5])
    hidden = exclude_same_place(np.array([1, 1]), query_camid, np.array([1, 2, 1, 2]), gallery_camid)
    np.testing.assert_array_equal(hidden, [[False, True, False, False], [False] * 4])


def test_every_setting_equals_its_trials_scored_one_by_one(sides):
    query, gallery = sides
    results = evaluate(query, gallery, dataset="a small tree", num_trials=4)
    assert [result.setting for result in results] == ["all/single", "all/multi", "indoor/single", "indoor/multi"]
    folders = group_into_folders(gallery)
    for result, (cameras, num_images) in zip(results, [(ALL, 1), (ALL, 10), (INDOOR, 1), (INDOOR, 10)], strict=True):
        trials = [
            score(
                query,
                gallery.subset(draw_python_random(folders, cameras, num_images, trial)),
                excluded=exclude_same_place,
                deduplicate_ids=True,
            )
            for trial in range(4)
        ]
        for metric, values in {
            "rank1": [t.cmc[0] for t in trials],
            "rank5": [t.cmc[4] for t in trials],
            "rank10": [t.cmc[9] for t in trials],
            "rank20": [t.cmc[19] for t in trials],
            "mAP": [t.mAP for t in trials],
            "mINP": [t.mINP for t in trials],
        }.items():
            assert result.mean[metric] == pytest.approx(np.mean(values), abs=1e-9)
            assert result.std[metric] == pytest.approx(np.std(values), abs=1e-9)
        assert result.std["mAP"] > 0
        assert 0 < result.mean["rank1"] < 1  # neither end would tell a mistake
        np.testing.assert_allclose(result.cmc, np.mean([t.cmc for t in trials], axis=0), atol=1e-9)
        assert result.chance == pytest.approx(trials[0].chance)
        labels = (result.dataset, result.gallery_source, result.direction, result.feature)
        assert labels == ("a small tree", "python-random", "infrared->visible", "embeddings")
        assert (result.flip, result.reranking, result.num_trials, result.num_queries) == (False, False, 4, len(query))


def test_indoor_queries_without_a_match_do_not_count(sides):
    query, gallery = sides
    (result,) = evaluate(query, gallery, dataset="tree", settings=["indoor/single"], num_trials=2)
    # Indoors id 6 is in neither camera; id 11 only in camera 1, which both query cameras may see.
    assert result.num_valid_queries == int((query.pid != 6).sum()) < len(query)
    # Without camera 1, a camera-3 query has no gallery left: the same place as camera 2.
    beside = gallery.subset(np.flatnonzero(gallery.camid == 2))
    (result,) = evaluate(query, beside, dataset="tree", settings=["indoor/single"], num_trials=1)
    assert result.num_valid_queries == int(((query.camid == 6) & np.isin(query.pid, [3, 25, 104, 333])).sum())


def test_one_place_case_on_paper():
    # Query of camera 3; nearest is its own person in camera 2 (dropped), then id 2 twice, then id 1.
    query = Embedded(
        np.array([[1, 0]], np.float32), np.array([1]), np.array([3]), np.array(["data/cam3/0001/0001.jpg"])
    )
    gallery = Embedded(
        np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3]], np.float32),
        np.array([1, 2, 2, 1]),
        np.array([2, 1, 4, 5]),
        np.array([f"data/cam{c}/{p:04d}/0001.jpg" for c, p in ((2, 1), (1, 2), (4, 2), (5, 1))]),
    )
    (result,) = evaluate(query, gallery, dataset="paper", settings=["all/single"], num_trials=3)
    assert result.cmc == [0] + [1] * 19  # ids in order: 2, 1
    assert result.mean["mAP"] == pytest.approx(1 / 3)  # images in order: 2, 2, 1
    assert result.mean["mINP"] == pytest.approx(1 / 3)
    assert result.chance == pytest.approx(1 / 3)
    assert max(result.std.values()) < 1e-12


def test_results_name_their_source_and_labels(sides):
    query, gallery = sides

    asked = []

    def draw_first(folders, cameras, num_images, trial):
        asked.append((cameras, num_images, trial))
        return np.array([next(iter(f.values())) for (_, camid), f in sorted(folders.items()) if camid in cameras])

    (result,) = evaluate(
        query,
        gallery,
        dataset="tree",
        settings=["all/single"],
        num_trials=3,
        source=GallerySource("first file", draw_first),
        feature="pool",
        flip=True,
    )
    assert (result.gallery_source, result.feature, result.flip) == ("first file", "pool", True)
    assert asked == [(ALL, 1, 0), (ALL, 1, 1), (ALL, 1, 2)]
    assert max(result.std.values()) < 1e-12  # the same gallery in every trial
    assert {setting.gallery_source for setting in PROTOCOL.settings} == {"python-random"}


def test_all_settings_share_one_similarity_matrix(sides, monkeypatch):
    calls = []
    original = protocol.cosine_similarity
    monkeypatch.setattr(protocol, "cosine_similarity", lambda q, g: calls.append(1) or original(q, g))
    evaluate(*sides, dataset="tree", num_trials=2)
    assert len(calls) == 1


def test_re_ranked_settings_equal_their_trials_re_ranked_one_by_one(sides):
    query, gallery = sides
    results = evaluate(query, gallery, dataset="a small tree", settings=["indoor/single"], num_trials=2, reranking=True)
    folders = group_into_folders(gallery)
    trials = []
    for trial in range(2):
        drawn = gallery.subset(draw_python_random(folders, INDOOR, 1, trial))
        options = {"excluded": exclude_same_place, "deduplicate_ids": True}
        trials.append(score(query, drawn, **options, similarity=rerank(query, drawn)))
    assert results[0].reranking
    assert results[0].mean["mAP"] == pytest.approx(np.mean([t.mAP for t in trials]), abs=1e-12)


def test_what_is_not_sysu_is_refused(sides):
    query, gallery = sides
    with pytest.raises(InputError, match="num_trials"):
        evaluate(query, gallery, dataset="tree", num_trials=0)
    with pytest.raises(InputError, match=r"visible side holds images of camera 3, 6;.*swapped"):
        evaluate(gallery, query, dataset="tree")
    with pytest.raises(InputError, match=r"visible side holds images of camera 3, 6; SYSU-MM01 .* camera 1, 2, 4, 5"):
        evaluate(query, query, dataset="tree")
    outdoor = gallery.subset(np.flatnonzero(gallery.camid > 3))
    with pytest.raises(InputError, match="indoor/single finds no visible test image"):
        evaluate(query, outdoor, dataset="tree")
    with pytest.raises(InputError, match="twice"):
        group_into_folders(gallery.subset(np.array([0, 1, 0])))
    # The same file name in another folder is another image.
    renamed = dataclasses.replace(gallery, path=np.array(["x/0001.jpg"] * len(gallery)))
    assert len(group_into_folders(renamed.subset(np.unique(gallery.pid * 10 + gallery.camid, return_index=True)[1])))
