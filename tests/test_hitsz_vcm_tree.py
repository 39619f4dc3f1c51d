"""HITSZ-VCM from a delivered tree to prepared records: which frames a track has, what is refused, what is odd."""

import dataclasses
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icre_jax.data.labelled import Source, list_labelled
from icre_jax.data.layouts import hitsz_vcm
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.plan import num_batches_per_epoch
from icre_jax.data.prepared import open_or_prepare
from icre_jax.data.ready import count_data, describe_data
from icre_jax.data.records import Record, SplitIndex
from icre_jax.data.tracks import choose_frames
from icre_jax.data.verification import verify
from icre_jax.engine.provenance import dataset_label
from icre_jax.errors import InputError
from icre_jax.rendering import write_tree
from tests.conftest import VCM_PEOPLE
from tests.full_trees import write_image


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def as_the_field_reads(root: Path, part: str) -> list[tuple[int, str, int, int, list[str]]]:
    """(number, modality, identity, camera, paths) of each track of 12 frames or more: slices of the list of names."""
    names = lines_of(root / "info" / f"{part}_name.txt")
    found = []
    for number, line in enumerate(lines_of(root / "info" / f"track_{part}_info.txt"), start=1):
        modality, first, last, pid, camid = map(int, line.split())
        paths = []
        for name in names[first - 1 : last]:
            camera, file = name[name.index("D") : name.index("T")], name[name.index("F") + 1 :]
            folder = "ir" if name[5] == "1" else "rgb"
            paths.append(f"{part.capitalize()}/{name[:4]}/{folder}/{camera}/{file}")
        if len(paths) >= 12:
            found.append((number, "infrared" if modality == 1 else "visible", pid, camid, paths))
    return found


def test_a_track_is_a_slice_of_the_list_of_frames(hitsz_vcm_tree):
    splits = hitsz_vcm.scan(hitsz_vcm_tree)
    assert list(splits) == ["train", "query", "gallery"]
    asking = {int(word) for word in (hitsz_vcm_tree / "info" / "query_IDX.txt").read_text().split()}
    train, test = (as_the_field_reads(hitsz_vcm_tree, part) for part in ("train", "test"))
    expected = {
        "train": train,
        "query": [track for track in test if track[0] in asking],
        "gallery": [track for track in test if track[0] not in asking],
    }
    for split, tracks in expected.items():
        assert tracks
        assert splits[split] == [
            Record(path, pid, camid, modality, number)
            for number, modality, pid, camid, paths in tracks
            for path in paths
        ]
        assert all((hitsz_vcm_tree / record.path).is_file() for record in splits[split])
    assert {record.modality for record in splits["query"]} == {"infrared"}
    assert {record.modality for record in splits["gallery"]} == {"visible"}
    assert not {r.pid for r in splits["train"]} & {r.pid for r in splits["query"] + splits["gallery"]}
    # File names are not counted through: 1.jpg, 6.jpg, ...
    assert splits["train"][1].path.endswith("/6.jpg")


def test_tracks_of_fewer_than_twelve_frames_are_left_out(hitsz_vcm_tree, tmp_path):
    used = {record.path for records in hitsz_vcm.scan(hitsz_vcm_tree).values() for record in records}
    on_disk = {file.relative_to(hitsz_vcm_tree).as_posix() for file in hitsz_vcm_tree.rglob("*.jpg")}
    assert used < on_disk
    assert {path.rsplit("/", 1)[1] for path in on_disk - used} == {"61.jpg"}  # the thirteenth
    # One frame less, and a track is gone.
    copy = Path(shutil.copytree(hitsz_vcm_tree, tmp_path / "copy"))
    edit(copy / "info" / "track_train_info.txt", lambda lines: ["2 1 11 " + lines[0].split(" ", 3)[3], *lines[1:]])
    assert len(hitsz_vcm.scan(copy)["train"]) == len(hitsz_vcm.scan(hitsz_vcm_tree)["train"]) - 12
    # A missing frame of a track that nobody reads is no harm.
    (copy / sorted(on_disk - used)[0]).unlink()
    hitsz_vcm.scan(copy)


def test_the_track_says_who_is_on_its_frames(hitsz_vcm_tree, tmp_path):
    """As in the field's code; the published lists hold such frames. Verifying says how many."""
    copy = Path(shutil.copytree(hitsz_vcm_tree, tmp_path / "copy"))
    names = copy / "info" / "train_name.txt"
    stranger = next(line for line in lines_of(names) if line[5] == "1")
    edit(names, lambda lines: [lines[0], f"{stranger}\n", *lines[2:]])
    first, second = hitsz_vcm.scan(copy)["train"][:2]
    assert (second.pid, second.camid, second.modality, second.track) == (first.pid, first.camid, first.modality, 1)
    assert "/ir/" in second.path
    (copy / "synthetic.json").unlink()
    warnings = verify("hitsz_vcm", copy, num_workers=1).warnings
    words = "1 train tracks hold 1 frames whose names say another identity, camera or modality, first track 1 "
    assert any(warning.startswith(words) and "line 2 of info/train_name.txt" in warning for warning in warnings)


def test_query_numbers_may_stand_on_several_lines(hitsz_vcm_tree, tmp_path):
    copy = Path(shutil.copytree(hitsz_vcm_tree, tmp_path / "copy"))
    path = copy / "info" / "query_IDX.txt"
    path.write_text(path.read_text().replace(" ", "\n"))
    assert hitsz_vcm.scan(copy) == hitsz_vcm.scan(hitsz_vcm_tree)


def edit(path: Path, change) -> None:
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def remove_a_list(copy: Path) -> str:
    (copy / "info" / "train_name.txt").unlink()
    return r"list info/train_name\.txt is missing"


def remove_a_folder(copy: Path) -> str:
    shutil.rmtree(copy / "Test")
    return r"folder Test is missing\n(.|\n)*Test/\S+ is missing \(info/test_name\.txt line 1\)"


def remove_a_frame(copy: Path) -> str:
    path = hitsz_vcm.scan(copy)["query"][3].path
    (copy / path).unlink()
    return rf"{path} is missing \(info/test_name\.txt line \d+\)"


def empty_a_list(copy: Path) -> str:
    (copy / "info" / "track_test_info.txt").write_text("\n")
    return r"info/track_test_info\.txt is empty"


def misname_a_frame(copy: Path) -> str:
    edit(copy / "info" / "train_name.txt", lambda lines: [lines[0], "0001/rgb/D3/6.jpg\n", *lines[2:]])
    return r"info/train_name\.txt line 2 is no name of a frame such as 0001M2D3T1F6\.jpg: '0001/rgb/D3/6\.jpg'"


def lead_out_of_the_tree(copy: Path) -> str:
    edit(copy / "info" / "train_name.txt", lambda lines: ["0001M2D3T1F../../6.jpg\n", *lines[1:]])
    return r"info/train_name\.txt line 1 is no name of a frame"


def leave_a_line_empty(copy: Path) -> str:
    edit(copy / "info" / "train_name.txt", lambda lines: [lines[0], "\n", *lines[2:]])
    return r"info/train_name\.txt line 2 is no name of a frame"


def forget_a_camera(copy: Path) -> str:
    edit(copy / "info" / "track_train_info.txt", lambda lines: ["2 1 12 0001\n", *lines[1:]])
    return r"info/track_train_info\.txt line 1 is not five whole numbers"


def name_a_third_modality(copy: Path) -> str:
    edit(copy / "info" / "track_train_info.txt", lambda lines: ["3" + lines[0][1:], *lines[1:]])
    return r"info/track_train_info\.txt line 1 has the modality 3; it is 1 \(infrared\) or 2 \(visible\)"


def name_a_thirteenth_camera(copy: Path) -> str:
    edit(copy / "info" / "track_train_info.txt", lambda lines: ["2 1 12 0001 13\n", *lines[1:]])
    return r"info/track_train_info\.txt line 1 has the camera 13; it is 1 \.\. 12"


def run_past_the_end(copy: Path) -> str:
    edit(copy / "info" / "track_train_info.txt", lambda lines: ["2 1 9999 0001 3\n", *lines[1:]])
    return r"line 1 has the frames 1 to 9999, of 260 in info/train_name\.txt"


def count_from_zero(copy: Path) -> str:
    edit(copy / "info" / "track_train_info.txt", lambda lines: ["2 0 11 0001 3\n", *lines[1:]])
    return r"line 1 has the frames 0 to 11, of 260"


def ask_with_a_track_that_there_is_not(copy: Path) -> str:
    (copy / "info" / "query_IDX.txt").write_text("0 1 2 -3 99 x")
    return r"info/query_IDX\.txt holds 0, -3, 99, x; it holds numbers of test tracks, 1 to 36"


def ask_nobody(copy: Path) -> str:
    (copy / "info" / "query_IDX.txt").write_text("\n")
    return r"info/query_IDX\.txt is empty; it holds numbers of test tracks"


def ask_twice(copy: Path) -> str:
    path = copy / "info" / "query_IDX.txt"
    path.write_text(f"{path.read_text().strip()} {path.read_text().split()[0]}")
    return r"info/query_IDX\.txt names 1 tracks again"


def test_a_train_identity(copy: Path) -> str:
    pid = lines_of(copy / "info" / "track_test_info.txt")[0].split()[3]
    edit(copy / "info" / "track_train_info.txt", lambda lines: [f"2 1 12 {pid} 3\n", *lines[1:]])
    return rf"identities with tracks in both train and test: \[{int(pid)}\]"


def keep_short_tracks_only(copy: Path) -> str:
    edit(copy / "info" / "track_train_info.txt", lambda lines: ["2 1 11 0001 3\n"])
    return r"no track of 12 frames or more for the split 'train'"


DAMAGES = [
    remove_a_list, remove_a_folder, remove_a_frame, empty_a_list, misname_a_frame, lead_out_of_the_tree,
    leave_a_line_empty, forget_a_camera, name_a_third_modality, name_a_thirteenth_camera, run_past_the_end,
    count_from_zero, ask_with_a_track_that_there_is_not, ask_nobody, ask_twice, test_a_train_identity,
    keep_short_tracks_only,
]  # fmt: skip
test_a_train_identity.__test__ = False


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_tree_is_refused_by_name(hitsz_vcm_tree, tmp_path, damage):
    copy = Path(shutil.copytree(hitsz_vcm_tree, tmp_path / "copy", copy_function=link))
    for file in (copy / "info").iterdir():  # not through the link
        text = file.read_text()
        file.unlink()
        file.write_text(text)
    message = damage(copy)
    with pytest.raises(InputError, match=message):
        hitsz_vcm.scan(copy)


def link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def test_absent_data_says_what_belongs_where(tmp_path):
    with pytest.raises(InputError, match=r"No HITSZ-VCM at (.|\n)*academic use only(.|\n)*info/query_IDX\.txt"):
        hitsz_vcm.scan(tmp_path / "absent")


def test_few_frames_are_refused_where_the_layout_has_tracks(tmp_path):
    people = dataclasses.replace(VCM_PEOPLE, num_images_per_camera=11)
    with pytest.raises(InputError, match=r"num_images_per_camera is 11; allowed for hitsz_vcm: 12 or more"):
        write_tree("hitsz_vcm", tmp_path / "data", people)


# --- records ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records(hitsz_vcm_tree, tmp_path_factory):
    return open_or_prepare("hitsz_vcm", hitsz_vcm_tree, tmp_path_factory.mktemp("records"))


def test_records_know_their_track(hitsz_vcm_tree, records):
    for split, listed in hitsz_vcm.scan(hitsz_vcm_tree).items():
        index, source = records.index[split], records.source(split)
        assert index.track.tolist() == [record.track for record in listed]
        assert source[5]["image"] == (hitsz_vcm_tree / listed[5].path).read_bytes()
    again = open_or_prepare("hitsz_vcm", hitsz_vcm_tree, records.folder.parent.parent)
    assert again.fingerprint == records.fingerprint
    np.testing.assert_array_equal(again.index["train"].track, records.index["train"].track)
    assert dataset_label(records) == "synthetic people"
    rows = count_data(records)
    assert [row["tracks"] * 12 for row in rows] == [row["images"] for row in rows]
    assert "tracks" in [column.header for column in describe_data(records).columns]


def test_a_change_of_the_tracks_alone_is_another_data_set(hitsz_vcm_tree, tmp_path):
    """Two tracks of one person and camera become one: no image changes, and no label but the track."""
    copy = Path(shutil.copytree(hitsz_vcm_tree, tmp_path / "copy"))
    info = copy / "info" / "track_train_info.txt"
    edit(info, lambda lines: [lines[0], lines[0], *lines[2:]])  # the short track is the long one again
    two = open_or_prepare("hitsz_vcm", copy, tmp_path / "two")
    edit(info, lambda lines: [lines[0].replace(" 12 ", " 11 ", 1), *lines[1:]])
    one = open_or_prepare("hitsz_vcm", copy, tmp_path / "one")
    assert two.fingerprint != one.fingerprint
    with pytest.raises(InputError, match="were made from other files or labels"):
        open_or_prepare("hitsz_vcm", copy, tmp_path / "two")


def test_an_index_without_tracks_stays_what_it_was(llcm_tree, tmp_path):
    prepared = open_or_prepare("llcm", llcm_tree, tmp_path)
    with np.load(prepared.folder / "index.npz") as columns:
        assert "track" not in {name.split("/")[1] for name in columns.files}
    assert prepared.index["train"].track is None


def test_a_tree_without_the_record_must_have_the_published_counts(hitsz_vcm_tree, tmp_path):
    copy = Path(shutil.copytree(hitsz_vcm_tree, tmp_path / "copy"))
    (copy / "synthetic.json").unlink()
    report = verify("hitsz_vcm", copy, num_workers=2)
    assert "train: 40 tracks, 11,061 expected" in report.errors
    assert "test: 18 queries, 5,159 expected" in report.errors
    assert "test, infrared, tracks of 12 frames or more: 108 images, 105,979 expected" in report.errors
    assert not [error for error in report.errors if "expected" not in error]
    assert "20 train tracks have fewer than 12 frames and are left out" in report.notes
    assert dataset_label(open_or_prepare("hitsz_vcm", copy, tmp_path / "p")) == "HITSZ-VCM"


def test_what_is_odd_is_said(hitsz_vcm_tree, tmp_path):
    copy = Path(shutil.copytree(hitsz_vcm_tree, tmp_path / "copy"))
    tracks = lines_of(copy / "info" / "track_test_info.txt")
    (copy / "info" / "query_IDX.txt").write_text("1 2")  # visible ones, and no infrared one
    edit(copy / "info" / "track_train_info.txt", lambda lines: [lines[0], lines[0], *lines[2:]])
    write_image(copy / "Train" / "0001" / "rgb" / "D1" / "9999.jpg", "visible")
    report = verify("hitsz_vcm", copy, num_workers=2)
    infrared = [number for number, line in enumerate(tracks, start=1) if line[0] == "1"]
    assert "2 visible test tracks are in info/query_IDX.txt, first track 1" in report.warnings
    words = f"{len(infrared)} infrared test tracks are not in info/query_IDX.txt, first track {infrared[0]}"
    assert words in report.warnings
    assert any(
        w.startswith("12 lines of info/train_name.txt are in two tracks, first track 2") for w in report.warnings
    )
    assert "1 lines of info/train_name.txt are in no track; nobody reads them" in report.notes
    assert "1 images in Train/ are in no list, first Train/0001/rgb/D1/9999.jpg" in report.notes


def test_an_identity_of_one_modality_cannot_be_trained_on(hitsz_vcm_tree, tmp_path):
    copy = Path(shutil.copytree(hitsz_vcm_tree, tmp_path / "copy"))
    lines = lines_of(copy / "info" / "track_train_info.txt")
    pid = int(lines[0].split()[3])
    edit(
        copy / "info" / "track_train_info.txt",
        lambda lines: [line for line in lines if line[0] == "2" or int(line.split()[3]) != pid],
    )
    assert any(
        error == f"train identities with tracks of 12 frames in one modality only: [{pid}]"
        for error in verify("hitsz_vcm", copy, num_workers=1).errors
    )


def test_a_gallery_may_be_indexed(hitsz_vcm_tree):
    for modality, split in (("visible", "gallery"), ("infrared", "query")):
        root, images = list_labelled(Source(hitsz_vcm_tree, "hitsz_vcm"), modality)
        expected = hitsz_vcm.scan(hitsz_vcm_tree)[split]
        assert root == hitsz_vcm_tree
        assert [(i.path, i.person, i.camid) for i in images] == [(r.path, str(r.pid), r.camid) for r in expected]


# --- frames of tracks ---------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), max_size=8), st.none() | st.integers(1, 30))
def test_frames_are_spread_evenly(lengths, number):
    track = np.repeat(np.arange(len(lengths)) * 3 + 1, lengths)
    rows = choose_frames(track, number)
    assert rows.tolist() == sorted({*rows.tolist()})
    start = 0
    for length in lengths:
        chosen = [row - start for row in rows.tolist() if start <= row < start + length]
        if number is None or length <= number:
            assert chosen == list(range(length))
        else:
            # The middles of `number` equal pieces of [0, length).
            assert chosen == [int((i + 0.5) * length / number) for i in range(number)]
        start += length


def test_one_frame_is_the_middle_one():
    track = np.repeat([7, 2, 9], [12, 1, 5])
    assert choose_frames(track, 1).tolist() == [6, 12, 15]
    assert choose_frames(track[:12], 6).tolist() == [1, 3, 5, 7, 9, 11]
    assert choose_frames(track[:0], 6).tolist() == []


def test_an_epoch_counts_a_track_as_often_as_the_config_says():
    # Visible: tracks of 20 and 13 frames; infrared: of 12.
    index = SplitIndex(
        path=np.array([f"{i}.jpg" for i in range(45)]),
        pid=np.zeros(45, np.int64),
        camid=np.zeros(45, np.int64),
        modality=np.repeat([0, 0, 1], [20, 13, 12]),
        track=np.repeat([1, 2, 3], [20, 13, 12]),
    )
    batch = {"num_ids_per_batch": 1, "num_images_per_id": 2}
    assert num_batches_per_epoch(index, **batch) == 17
    assert num_batches_per_epoch(index, **batch, frames_per_track=None) == 17
    assert num_batches_per_epoch(index, **batch, frames_per_track=6) == 6
    assert num_batches_per_epoch(index, **batch, frames_per_track=16) == 15  # 16 + 13


def test_a_source_of_chosen_records_travels_to_workers(records):
    source = RecordSource(records, ("query", "gallery"), "visible")
    six = source.select(choose_frames(source.index.track, 6))
    one = six.select(choose_frames(six.index.track, 1))
    tracks = np.unique(source.index.track)
    assert (len(six.index), len(one.index)) == (6 * len(tracks), len(tracks))
    # Of twelve frames 1, 3, 5, 7, 9, 11, and of these the middle one: 7.
    assert one.index.path.tolist() == source.index.path.reshape(-1, 12)[:, 7].tolist()
    assert set(one.split.tolist()) == {"gallery"}
    again = pickle.loads(pickle.dumps(one))
    assert [again.image_bytes(i) for i in range(3)] == [source.image_bytes(12 * i + 7) for i in range(3)]
