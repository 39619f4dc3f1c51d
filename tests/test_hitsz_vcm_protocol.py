"""The HITSZ-VCM protocol: means of tracks in float64, a loop over its queries, a case on paper, and what is refused."""

import dataclasses

import numpy as np
import pytest

from configs import hitsz_vcm as hitsz_vcm_config
from configs import llcm as llcm_config
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.prepared import open_or_prepare
from icre_jax.datasets import CARDS, HITSZ_VCM
from icre_jax.engine.elsewhere import OtherData, _settings
from icre_jax.errors import InputError
from icre_jax.evals import PROTOCOLS, choose_protocol
from icre_jax.evals.protocol import evaluate, rank_lists
from icre_jax.evals.tables import is_comparable
from icre_jax.evals.tracks import average_tracks
from icre_jax.settings import parse
from tests.test_llcm_and_regdb_protocols import by_hand, embedded

SETTINGS = [
    "infrared_to_visible", "visible_to_infrared", "infrared_to_visible_frames", "visible_to_infrared_frames",
]  # fmt: skip


@pytest.fixture(scope="module")
def frames():
    """Per modality: random frames of 14 tracks of 5 people by 3 cameras, 4 to 9 frames each, and their tracks."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(5, 6))
    found = {}
    for modality in ("visible", "infrared"):
        lengths = rng.integers(4, 10, 14)
        pid, camid = rng.integers(0, 5, 14), rng.integers(1, 4, 14)
        track = np.repeat(rng.permutation(100)[:14], lengths)
        features = centres[np.repeat(pid, lengths)] + 1.6 * rng.normal(size=(lengths.sum(), 6))
        # Not of length 1: short and long vectors weigh differently in a mean.
        features *= rng.uniform(0.2, 3, (len(features), 1))
        shown = np.append(0, np.cumsum(lengths)[:-1]) + lengths // 2
        found[modality] = (embedded(features, np.repeat(pid, lengths), np.repeat(camid, lengths)), track, shown)
    return found


@pytest.fixture(scope="module")
def sides(frames):
    return {modality: average_tracks(*parts) for modality, parts in frames.items()}


def test_a_track_is_the_mean_of_its_frames(frames, sides):
    for modality, (side, track, shown) in frames.items():
        tracks = sides[modality]
        assert len(tracks) == len(shown) == 14
        for row, frame in enumerate(shown.tolist()):
            its = side.features[track == track[frame]].astype(np.float64)
            np.testing.assert_allclose(tracks.features[row], its.sum(axis=0) / len(its), rtol=1e-6, atol=1e-7)
            np.testing.assert_array_equal(tracks.frames[row], side.features[frame])
            labels = (tracks.pid[row], tracks.camid[row], tracks.path[row])
            assert labels == (side.pid[frame], side.camid[frame], side.path[frame])


def test_frames_may_lie_in_any_order(frames):
    side, track, shown = frames["visible"]
    order = np.random.default_rng(0).permutation(len(side))
    back = np.argsort(order)
    shuffled = average_tracks(side.subset(order), track[order], back[shown][::-1])
    straight = average_tracks(side, track, shown[::-1])
    np.testing.assert_allclose(shuffled.features, straight.features, rtol=1e-6)
    assert shuffled.path.tolist() == straight.path.tolist()


def test_the_scores_equal_a_loop_over_the_queries(sides):
    results = evaluate(PROTOCOLS["hitsz_vcm"], sides, dataset="tracks", num_trials=10)
    assert [result.setting for result in results] == SETTINGS
    for result in results:
        single = result.setting.endswith("_frames")
        pair = [
            dataclasses.replace(sides[m], features=sides[m].frames if single else sides[m].features)
            for m in ("infrared", "visible")
        ]
        query, gallery = pair if result.direction == "infrared->visible" else pair[::-1]
        expected = by_hand(query, gallery, same_camera_hidden=True, deduplicate=False)
        assert result.mean == pytest.approx(expected, abs=1e-6)
        assert (result.num_trials, result.num_queries) == (1, 14)
        assert set(result.std.values()) == {0}
        assert result.gallery_source == f"all tracks, {'one frame of each' if single else 'mean of 6 frames'}"
    # All four differ, so that none stands in for another.
    assert len({result.mean["mAP"] for result in results}) == 4
    names = tuple(key for result in results for key in result.scalars())
    assert names == PROTOCOLS["hitsz_vcm"].metric_names


def test_on_paper():
    """The own camera is hidden, of the own person only; a person counts as often as there are tracks."""
    frames = embedded([[1, 0], [1, 0.2], [3, -0.2], [1, 0.3], [1, 0.3]], [1, 2, 2, 3, 3], [1, 1, 1, 2, 2])
    visible = average_tracks(frames, np.array([1, 2, 2, 3, 3]), np.array([0, 1, 3]))
    # Means: (1, 0) of person 1, (2, 0) of person 2, (1, 0.3) of person 3.
    np.testing.assert_allclose(visible.features, [[1, 0], [2, 0], [1, 0.3]], atol=1e-7)
    both = visible.subset(np.array([0, 1, 1, 2]))
    infrared = average_tracks(embedded([[1, 0.31]], [1], [2]), np.array([8]), np.array([0]))
    there, back, there_frames, _ = evaluate(
        PROTOCOLS["hitsz_vcm"], {"visible": both, "infrared": infrared}, dataset="paper", num_trials=1
    )
    # Ranking: person 3, then 1 (the gallery's first of equal directions), then 2 twice.
    assert there.cmc == [0] + [1] * 19
    assert there.mean["mAP"] == pytest.approx(1 / 2)
    # By one frame each person 2 is at 0.2, twice, and comes between: three tracks are before person 1.
    assert there_frames.cmc == [0, 0, 0] + [1] * 17
    # Only the visible track of person 1 has a match.
    assert (back.num_queries, back.num_valid_queries, back.mean["rank1"]) == (4, 1, 1)
    hidden = dataclasses.replace(both, camid=np.array([2, 1, 1, 1]))
    with pytest.raises(InputError, match="None of the 1 queries has a true match"):
        evaluate(PROTOCOLS["hitsz_vcm"], {"visible": hidden, "infrared": infrared}, dataset="paper", num_trials=1)


def test_re_ranked_and_listed_as_tracks(sides):
    results = evaluate(PROTOCOLS["hitsz_vcm"], sides, dataset="tracks", num_trials=1, reranking=True)
    assert all(result.reranking for result in results)
    assert len({result.mean["mAP"] for result in results}) == 4
    (ranked,) = rank_lists(PROTOCOLS["hitsz_vcm"].settings[0], sides, [2], top=5)
    seen = ranked.gallery_index
    same = sides["visible"].pid[seen] == sides["infrared"].pid[2]
    np.testing.assert_array_equal(ranked.correct, same)
    assert not (same & (sides["visible"].camid[seen] == sides["infrared"].camid[2])).any()


def test_only_means_of_tracks_stand_beside_published_numbers(sides):
    card = CARDS["hitsz_vcm"]
    results = evaluate(PROTOCOLS["hitsz_vcm"], sides, dataset=card.title, num_trials=1)
    beside = {r.setting for r in results for paper in card.published if is_comparable(card, paper, r)}
    assert beside == {"infrared_to_visible", "visible_to_infrared"}
    assert "video methods" in card.note.lower()


def test_how_many_frames_a_mean_is_of_stands_in_the_result():
    for number, words in ((None, "mean of all frames"), (6, "mean of 6 frames"), (1, "mean of 1 frames")):
        protocol = choose_protocol("hitsz_vcm", frames_per_track=number)
        assert protocol.settings[0].gallery_source == f"all tracks, {words}"
        assert [setting.name for setting in protocol.settings] == SETTINGS
    with pytest.raises(InputError, match="cannot be chosen for HITSZ-VCM"):
        choose_protocol("hitsz_vcm", gallery_source="official")


def test_a_thirteenth_camera_is_refused(sides):
    other = dataclasses.replace(sides["visible"], camid=np.full(14, 13))
    with pytest.raises(InputError, match="visible side holds images of camera 13; HITSZ-VCM"):
        evaluate(PROTOCOLS["hitsz_vcm"], sides | {"visible": other}, dataset="tracks", num_trials=1)


def test_frames_per_track_is_of_tracks_alone():
    config = hitsz_vcm_config.get_config()
    assert parse(config).data.frames_per_track == HITSZ_VCM.frames_per_track == 6
    config.data.frames_per_track = None
    parse(config)
    config.data.frames_per_track = 0
    with pytest.raises(InputError, match=r"data\.frames_per_track"):
        parse(config)
    config = llcm_config.get_config()
    config.data.frames_per_track = 6
    with pytest.raises(
        InputError, match=r"data\.frames_per_track is 6; llcm has images, not tracks, so it must be None"
    ):
        parse(config)


def test_another_networks_tracks_have_as_many_frames_as_the_fields(tmp_path):
    trained = parse(llcm_config.get_config())
    assert _settings(trained, OtherData("hitsz_vcm", tmp_path)).data.frames_per_track == 6
    assert _settings(parse(hitsz_vcm_config.get_config()), OtherData("llcm", tmp_path)).data.frames_per_track is None


def test_the_evaluator_embeds_the_chosen_frames_and_shows_the_middle_one(hitsz_vcm_tree, tmp_path, monkeypatch):
    """The network is replaced by one that says which record it saw."""
    from icre_jax.engine import evaluator as engine
    from icre_jax.evals.ranking import Embedded

    prepared = open_or_prepare("hitsz_vcm", hitsz_vcm_tree, tmp_path)
    everything = {m: RecordSource(prepared, ("query", "gallery"), m) for m in ("visible", "infrared")}

    def embed(network, variables, source, modality, **how):
        place = {path: row for row, path in enumerate(everything[modality].index.path.tolist())}
        rows = np.array([place[path] for path in source.index.path.tolist()])
        index = source.index
        return Embedded(np.stack([rows, 0 * rows + 1], axis=1).astype(np.float32), index.pid, index.camid, index.path)

    monkeypatch.setattr(engine, "embed_records", embed)
    config = hitsz_vcm_config.get_config()
    for number, middle in ((6, 7), (None, 6)):
        config.data.frames_per_track = number
        evaluator = engine.Evaluator(None, prepared, parse(config))
        for modality, side in evaluator.embed(None).items():
            tracks = np.arange(len(side))
            # Twelve frames a track, of which 1, 3, ..., 11 or all are embedded.
            mean = np.mean([1, 3, 5, 7, 9, 11] if number else range(12))
            np.testing.assert_allclose(side.features[:, 0], 12 * tracks + mean, rtol=1e-6)
            np.testing.assert_array_equal(side.frames[:, 0], 12 * tracks + middle)
            assert side.path.tolist() == everything[modality].index.path[12 * tracks + middle].tolist()
            source = evaluator.sources[modality]
            assert source.index.path.tolist() == side.path.tolist()
            assert source.image_bytes(1) == (hitsz_vcm_tree / side.path[1]).read_bytes()
