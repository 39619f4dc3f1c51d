"""The official gallery draws: a MATLAB file of the true shape, from the tree to the scores."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from icre_jax.data.permutations import (
    SOURCE,
    STORED,
    describe_official_draws,
    keep_permutations,
    read_mat,
    read_permutations,
)
from icre_jax.data.prepared import open_or_prepare
from icre_jax.errors import InputError
from icre_jax.evals import PROTOCOLS, choose_protocol
from icre_jax.evals.galleries import group_into_folders, make_official_source
from icre_jax.evals.protocol import evaluate
from icre_jax.evals.ranking import Embedded, score
from icre_jax.evals.results import read_results
from icre_jax.evals.sysu_mm01 import exclude_same_place
from icre_jax.settings import parse
from icre_jax.training.run import assemble, keep_galleries, require_same_run
from tests.small_runs import run

# Images of each (camera, id) in a data set of five ids; none of id 2 at camera 4, nothing of id 3 but at camera 6.
COUNTS = {(1, 1): 3, (1, 2): 12, (1, 5): 1, (2, 1): 2, (2, 2): 1, (3, 1): 4, (4, 1): 11, (5, 5): 2, (6, 3): 1}


def nest(counts, num_ids, seed=0):
    """The cell as MATLAB's authors stored it: {camera}{id} = 10 x n, uint16, empty where there is no image."""
    rng = np.random.default_rng(seed)
    cell = np.empty((6, 1), object)
    for camid in range(1, 7):
        cell[camid - 1, 0] = np.empty((num_ids, 1), object)
        for pid in range(1, num_ids + 1):
            num = counts.get((camid, pid), 0)
            rows = [rng.permutation(num) + 1 for _ in range(10)]
            cell[camid - 1, 0][pid - 1, 0] = np.array(rows, np.uint16) if num else np.zeros((0, 0))
    return cell


def write(folder: Path, cell, name="rand_perm_cam") -> Path:
    path = folder / SOURCE
    path.parent.mkdir(exist_ok=True, parents=True)
    savemat(path, {name: cell})
    return path


def pool(counts, cameras):
    rows = [
        (f"cam{camid}/{pid:04d}/{number:04d}.jpg", pid, camid)
        for (camid, pid), num in counts.items()
        for number in range(1, num + 1)
        if camid in cameras
    ]
    paths, pids, camids = zip(*rows, strict=True)
    features = np.random.default_rng(len(rows)).normal(size=(len(rows), 5)).astype(np.float32)
    return Embedded(features, np.array(pids), np.array(camids), np.array(paths))


def test_the_nested_cell_is_read(tmp_path):
    cell = nest(COUNTS, 5)
    permutations = read_mat(write(tmp_path, cell))
    assert set(permutations) == {(pid, camid) for camid, pid in COUNTS}
    for (camid, pid), num in COUNTS.items():
        trials = permutations[pid, camid]
        assert len(trials) == 10
        assert all(sorted(trial) == list(range(1, num + 1)) for trial in trials)
        np.testing.assert_array_equal(trials, cell[camid - 1, 0][pid - 1, 0])


def test_the_draw_by_hand():
    three = [[2, 3, 1], [1, 2, 3]]
    permutations = {(7, 1): three, (7, 4): [[1], [1]], (9, 1): [[2, 1], [1, 2]], (7, 5): [[1], [1]]}
    gallery = Embedded(
        np.ones((7, 1), np.float32),
        np.array([9, 9, 7, 7, 7, 7, 7]),
        np.array([1, 1, 1, 1, 1, 4, 5]),
        np.array([
            "cam1/0009/0001.jpg", "cam1/0009/0002.jpg", "cam1/0007/0001.jpg", "cam1/0007/0002.jpg",
            "cam1/0007/0003.jpg", "cam4/0007/0001.jpg", "cam5/0007/0001.jpg",
        ]),
    )  # fmt: skip
    folders = group_into_folders(gallery)
    draw = make_official_source(permutations).draw
    # Cameras in order, then ids: camera 1 id 7 -> number 2 (row 3), id 9 -> number 2 (row 1); camera 4; not camera 5.
    assert draw(folders, (1, 2, 4), 1, 0).tolist() == [3, 1, 5]
    assert draw(folders, (1, 2, 4), 1, 1).tolist() == [2, 0, 5]
    # Multi-shot: the first ten of the row, in its order.
    assert draw(folders, (1, 2), 10, 0).tolist() == [3, 4, 2, 1, 0]
    assert draw(folders, (1, 2), 2, 0).tolist() == [3, 4, 1, 0]


def test_multi_shot_takes_ten_of_twelve():
    permutations = {(1, 1): [[*range(12, 0, -1)]]}
    gallery = pool({(1, 1): 12}, (1,))
    drawn = make_official_source(permutations).draw(group_into_folders(gallery), (1, 2), 10, 0)
    assert drawn.tolist() == [*range(11, 1, -1)]


def test_scores_are_those_of_the_drawn_galleries(tmp_path):
    permutations = read_mat(write(tmp_path, nest(COUNTS, 5)))
    sides = {"visible": pool(COUNTS, (1, 2, 4, 5)), "infrared": pool(COUNTS | {(6, 5): 4}, (3, 6))}
    results = evaluate(choose_protocol("sysu_mm01", permutations), sides, dataset="tree", num_trials=10)
    assert {result.gallery_source for result in results} == {"official"}
    gallery = sides["visible"]
    for result, cameras, num in zip(results, [(1, 2, 4, 5)] * 2 + [(1, 2)] * 2, (1, 10) * 2, strict=True):
        maps = []
        for trial in range(10):
            wanted = {
                f"cam{camid}/{pid:04d}/{number:04d}.jpg"
                for (pid, camid), trials in permutations.items()
                if camid in cameras
                for number in trials[trial][:num]
            }
            drawn = gallery.subset(np.flatnonzero([path in wanted for path in gallery.path.tolist()]))
            maps.append(score(sides["infrared"], drawn, excluded=exclude_same_place, deduplicate_ids=True).mAP)
        assert result.mean["mAP"] == pytest.approx(np.mean(maps), abs=1e-12)
    plain = evaluate(choose_protocol("sysu_mm01"), sides, dataset="tree", num_trials=10)
    assert [r.setting for r in plain] == [r.setting for r in results]
    assert {result.gallery_source for result in plain} == {"python-random"}


def test_which_source_is_used():
    permutations = {(1, 1): [[1]]}

    def names(*arguments):
        return {setting.gallery_source for setting in choose_protocol(*arguments).settings}

    assert names("sysu_mm01", permutations) == names("sysu_mm01", permutations, "official") == {"official"}
    assert names("sysu_mm01", permutations, "python-random") == names("sysu_mm01") == {"python-random"}
    assert choose_protocol("llcm") is PROTOCOLS["llcm"]
    with pytest.raises(InputError, match=r"need exp/rand_perm_cam\.mat"):
        choose_protocol("sysu_mm01", None, "official")
    with pytest.raises(InputError, match="'official' cannot be chosen for RegDB"):
        choose_protocol("regdb", None, "official")


def test_draws_of_other_data_are_refused():
    folders = group_into_folders(pool({(1, 1): 2, (2, 1): 1}, (1, 2)))
    with pytest.raises(InputError, match="know no image of id 1 at camera 2"):
        make_official_source({(1, 1): [[1, 2]]}).draw(folders, (1, 2), 1, 0)
    with pytest.raises(InputError, match=r"name image 3 of id 1 at camera 1; the files there are 0001\.jpg"):
        make_official_source({(1, 1): [[3, 1, 2]], (1, 2): [[1]]}).draw(folders, (1, 2), 1, 0)
    with pytest.raises(InputError, match=r"hold 1 trials; evaluation\.num_trials"):
        make_official_source({(1, 1): [[1, 2]], (1, 2): [[1]]}).draw(folders, (1, 2), 1, 1)


def damage(camera, pid, value):
    cell = nest(COUNTS, 5)
    if pid is None:
        cell[camera - 1, 0] = value
    else:
        cell[camera - 1, 0][pid - 1, 0] = value
    return cell


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (nest(COUNTS, 5)[:5], "must be a 6 x 1 cell, not 5 x 1 cell"),
        (np.ones((6, 1)), "must be a 6 x 1 cell, not 6 x 1 float64"),
        (damage(2, None, np.ones((3, 3))), "camera 2 must be a cell of one matrix per id, not 3 x 3 float64"),
        (damage(1, 2, np.ones((9, 4))), "camera 1, id 2 must be 10 x n, one row for each trial, not 9 x 4"),
        (damage(1, 2, np.tile([0, 1, 2], (10, 1))), "camera 1, id 2 must hold a permutation of 1 to 3 in each row"),
        (damage(1, 2, np.tile([1.5, 2, 3], (10, 1))), "camera 1, id 2 must hold a permutation of 1 to 3"),
        (damage(1, 2, "text"), "camera 1, id 2 must be a matrix of numbers"),
        (nest({}, 5), "no camera has a permutation"),
    ],
)
def test_files_of_another_shape_are_refused(cell, words, tmp_path):
    with pytest.raises(InputError, match=words):
        read_mat(write(tmp_path, cell))


def test_files_that_are_no_matlab_files(tmp_path):
    with pytest.raises(InputError, match="holds other, but no rand_perm_cam"):
        read_mat(write(tmp_path, np.ones(3), "other"))
    whole = write(tmp_path, nest(COUNTS, 5)).read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], b"x" * 500):
        (tmp_path / SOURCE).write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be read as a MATLAB file|Fetch"):
            read_mat(tmp_path / SOURCE)


def test_what_is_kept_outlives_the_tree(tmp_path):
    data_dir, folder = tmp_path / "tree", tmp_path / "records"
    folder.mkdir()
    keep_permutations(data_dir, folder)
    assert read_permutations(folder) is None
    assert "python-random" in describe_official_draws("sysu_mm01", folder)
    path = write(data_dir, nest(COUNTS, 5))
    expected = read_mat(path)
    keep_permutations(data_dir, folder)
    assert read_permutations(folder) == expected
    assert "at hand" in describe_official_draws("sysu_mm01", folder)
    assert describe_official_draws("llcm", folder) is None
    path.unlink()
    keep_permutations(data_dir, folder)
    assert read_permutations(folder) == expected
    write(data_dir, nest(COUNTS, 5, seed=1))
    keep_permutations(data_dir, folder)
    assert read_permutations(folder) != expected
    (folder / STORED).write_text(json.dumps({"pid_camid_trials": [[1]]}))
    with pytest.raises(InputError, match="is damaged"):
        read_permutations(folder)


def test_preparing_a_rendered_tree_keeps_the_draws(tree, tmp_path):
    copy = Path(shutil.copytree(tree, tmp_path / "tree"))
    prepared = open_or_prepare("sysu_mm01", copy, tmp_path / "records")
    assert read_permutations(prepared.folder) is None
    # It is fetched later: the records stay, the draws join them.
    index = prepared.index["gallery"]
    keys, sizes = np.unique(np.stack([index.camid, index.pid]), axis=1, return_counts=True)
    counts = dict(zip(map(tuple, keys.T.tolist()), sizes.tolist(), strict=True))
    write(copy, nest(counts, int(index.pid.max())))
    again = open_or_prepare("sysu_mm01", copy, tmp_path / "records")
    assert again.fingerprint == prepared.fingerprint
    permutations = read_permutations(again.folder)
    gallery = Embedded(np.ones((len(index), 1), np.float32), index.pid, index.camid, index.path)
    drawn = make_official_source(permutations).draw(group_into_folders(gallery), (1, 2, 4, 5), 1, 3)
    for row in drawn.tolist():
        number = permutations[int(index.pid[row]), int(index.camid[row])][3][0]
        assert index.path[row].endswith(f"{number:04d}.jpg")
    assert len(drawn) == len(counts)


@pytest.fixture
def own_tree(config, tree, tmp_path):
    """The config on a copy of the tree, and a function that gives the copy official draws."""
    config.data.data_dir, config.data.prepared_dir = str(tmp_path / "tree"), str(tmp_path / "prepared")
    shutil.copytree(tree, tmp_path / "tree")

    def add_draws(seed):
        counts = {}
        for image in (tmp_path / "tree").glob("cam*/*/*.jpg"):
            place = int(image.parts[-3][3:]), int(image.parts[-2])
            counts[place] = counts.get(place, 0) + 1
        write(tmp_path / "tree", nest(counts, max(pid for _, pid in counts), seed))

    return config, add_draws


class Said(list):
    """Checkpoints of one run, of which only the facts are asked for; and who is told."""

    def __init__(self, facts):
        super().__init__()
        self._facts = facts

    def read_facts(self, step):
        return self._facts

    say = list.append


def test_a_run_keeps_the_galleries_that_it_began_with(own_tree, tmp_path):
    config, add_draws = own_tree
    settings = parse(config)

    def opened():
        data = settings.data
        prepared = open_or_prepare(data.dataset, Path(data.data_dir), Path(data.prepared_dir))
        return assemble(settings, tmp_path / "run", prepared)

    def sources(run):
        return {setting.gallery_source for setting in run.evaluators[0].protocol.settings}

    before = opened()
    assert (before.facts["official_draws"], sources(before)) == (None, {"python-random"})
    add_draws(seed=1)
    now = opened()
    assert re.fullmatch("[0-9a-f]{64}", now.facts["official_draws"])
    assert sources(now) == {"official"}

    saved = Said(before.facts)
    kept = keep_galleries(now, saved, 2, saved)
    assert (kept.facts, sources(kept)) == (before.facts, {"python-random"})
    assert "began without the official gallery draws" in saved[0]
    require_same_run(kept, saved, 2)

    older = {name: value for name, value in before.facts.items() if name != "official_draws"}
    for facts, step in ((now.facts, 2), (older, 2), (before.facts, None)):
        assert keep_galleries(now, Said(facts), step, Said(facts)) is now
    require_same_run(now, Said(older), 2)

    add_draws(seed=2)
    for other in (opened(), before):
        with pytest.raises(InputError, match=r"is of another run:\n.*official gallery draws, by their SHA-256"):
            require_same_run(other, Said(now.facts), 2)


@pytest.mark.long
def test_draws_that_come_later_change_no_score_of_a_run(own_tree, tmp_path):
    config, add_draws = own_tree
    run(config, tmp_path / "run")
    results, _ = read_results(tmp_path / "run")
    add_draws(seed=1)
    _, screen = run(config, tmp_path / "run")
    assert "goes on with those of python-random" in screen
    assert read_results(tmp_path / "run")[0] == results
    assert {result.gallery_source for result in results} == {"python-random"}
