"""HITSZ-VCM as it is delivered.

    Train/IIII/{ir,rgb}/DN/F.jpg, Test/...   frames: identity, modality, camera, number
    info/{train,test}_name.txt               a frame a line: IIIIMmDNTtFF.jpg, m = 1 infrared, 2 visible
    info/track_{train,test}_info.txt         a track a line: m, first and last frame, identity, camera
    info/query_IDX.txt                       numbers of the test tracks that ask

First and last frame are lines of the list of frames, counted from 1 and both included; query numbers are lines of the
list of test tracks, counted from 1. "0001M2D3T1F6.jpg" is Train/0001/rgb/D3/6.jpg. The lists decide which frames there
are and whom they show: a frame has the identity, camera and modality of its track, whatever its own name says. Tracks
of fewer than 12 frames are left out, in training and in the test, as the field's code does.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from icre_jax.data.layouts.lists import read_list, require_folder
from icre_jax.data.records import Record
from icre_jax.datasets import HITSZ_VCM, INFRARED, VISIBLE, Modality
from icre_jax.errors import InputError, join_findings
from icre_jax.files.texts import whole_number

CAMERAS = tuple(range(1, 13))
MIN_FRAMES = 12
SPLITS = ("train", "query", "gallery")
PARTS = {"train": "Train", "test": "Test"}
QUERIES = "info/query_IDX.txt"
HOW_TO_GET = """\
HITSZ-VCM is three files (Train, Test, info) that its authors' page links to, github.com/VCM-project233/HITSZ-VCM-data;
who downloads them agrees to its licence: academic use only, no redistribution. Unpacked side by side they are:
  Train/<id>/{ir,rgb}/D<camera>/*.jpg, Test/<id>/...
  info/train_name.txt, info/test_name.txt              a frame a line, e.g. 0001M2D3T1F6.jpg
  info/track_train_info.txt, info/track_test_info.txt  a track a line: modality, first and last frame, identity, camera
  info/query_IDX.txt                                   numbers of the test tracks that ask"""

_MODALITIES: dict[str, tuple[str, Modality]] = {"1": ("ir", INFRARED), "2": ("rgb", VISIBLE)}
_FRAME = re.compile(r"(\d{4})M([12])D(\d{1,2})T\d+F(\d+\.jpg)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Frame:
    """A line of a list of frames: where it lies, and what its own name says."""

    path: str
    pid: int
    camid: int
    modality: Modality


@dataclass(frozen=True, slots=True)
class Track:
    """A line of a list of tracks; `number` and `lines` (of the list of frames) are counted from 1."""

    number: int
    modality: Modality
    lines: range
    pid: int
    camid: int

    @property
    def is_long(self) -> bool:
        """Whether it is used."""
        return len(self.lines) >= MIN_FRAMES


@dataclass(frozen=True)
class Part:
    """The lists of training or test; a line of the list of frames that cannot be read is None."""

    name: str
    frames: list[Frame | None]
    tracks: list[Track]


@dataclass(frozen=True)
class Lists:
    """All that the lists say. `queries`: numbers of test tracks, in the order of their list."""

    train: Part
    test: Part
    queries: list[int]


def scan(data_dir: Path) -> dict[str, list[Record]]:
    """List the frames of every split.

    Args:
      data_dir: the folder that holds Train, Test and info.

    Returns:
      "train" (both modalities), "query" (test tracks that ask: infrared) and "gallery" (all other test tracks:
      visible), tracks in the order of their list, frames in the order of theirs.

    Raises:
      InputError: naming every missing folder, list or frame, every line that cannot be read, and every identity in
        training and test.
    """
    splits, findings = survey(data_dir)
    if findings:
        raise InputError(f"{data_dir} is not a whole HITSZ-VCM tree:\n{join_findings(findings)}\n{HOW_TO_GET}")
    return splits


def survey(data_dir: Path) -> tuple[dict[str, list[Record]], list[str]]:
    """What `scan` gives, of what is there, and everything that is wrong with the tree.

    Raises:
      InputError: there is no folder `data_dir`.
    """
    lists, findings = read_lists(data_dir)
    return find_frames(data_dir, lists, findings), findings


def read_lists(data_dir: Path) -> tuple[Lists, list[str]]:
    """What the lists say, and everything that is wrong with them.

    Raises:
      InputError: there is no folder `data_dir`.
    """
    require_folder(HITSZ_VCM.title, data_dir, HOW_TO_GET)
    findings = [f"folder {name} is missing" for name in PARTS.values() if not (data_dir / name).is_dir()]
    train, test = (_read_part(data_dir, part, findings) for part in PARTS)
    queries = _read_queries(data_dir, len(test.tracks), findings)
    both = sorted({track.pid for track in train.tracks} & {track.pid for track in test.tracks})
    if both:
        findings.append(f"identities with tracks in both train and test: {both}")
    return Lists(train, test, queries), findings


def find_frames(data_dir: Path, lists: Lists, findings: list[str]) -> dict[str, list[Record]]:
    """The frames of the tracks that are used, by split; what is missing goes into `findings`."""
    splits: dict[str, list[Record]] = {name: [] for name in SPLITS}
    asking = {*lists.queries}
    files: dict[str, set[str]] = {}
    for part in (lists.train, lists.test):
        for track in part.tracks:
            if not track.is_long:
                continue
            split = "train" if part is lists.train else "query" if track.number in asking else "gallery"
            for line in track.lines:
                frame = part.frames[line - 1]
                if frame is None:
                    continue  # named where the list was read
                folder, _, name = frame.path.rpartition("/")
                if folder not in files:
                    files[folder] = _files_of(data_dir / folder)
                if name not in files[folder]:
                    findings.append(f"{frame.path} is missing (info/{part.name}_name.txt line {line})")
                else:
                    splits[split].append(Record(frame.path, track.pid, track.camid, track.modality, track.number))
    if not findings:
        findings += [
            f"no track of {MIN_FRAMES} frames or more for the split {name!r}" for name in SPLITS if not splits[name]
        ]
    return splits


def _read_part(data_dir: Path, part: str, findings: list[str]) -> Part:
    names, info = f"info/{part}_name.txt", f"info/track_{part}_info.txt"
    frames = [
        _frame(line, part, f"{names} line {number}", findings)
        for number, line in enumerate(_lines(data_dir, names, findings), start=1)
    ]
    tracks = []
    for number, line in enumerate(_lines(data_dir, info, findings), start=1):
        place, words = f"{info} line {number}", line.split()
        numbers = [value for word in words if (value := whole_number(word)) is not None]
        if len(words) != 5 or len(numbers) != 5:
            shown = line[:200]
            findings.append(f"{place} is not five whole numbers (modality, first, last, identity, camera): {shown!r}")
            continue
        _, first, last, pid, camid = numbers
        if words[0] not in _MODALITIES:
            findings.append(f"{place} has the modality {words[0]}; it is 1 (infrared) or 2 (visible)")
        elif camid not in CAMERAS:
            findings.append(f"{place} has the camera {camid}; it is 1 .. {CAMERAS[-1]}")
        elif not 1 <= first <= last <= len(frames):
            findings.append(f"{place} has the frames {first} to {last}, of {len(frames)} in {names}")
        else:
            tracks.append(Track(number, _MODALITIES[words[0]][1], range(first, last + 1), pid, camid))
    return Part(part, frames, tracks)


def _frame(name: str, part: str, place: str, findings: list[str]) -> Frame | None:
    found = _FRAME.fullmatch(name)
    if found is None or int(found[3]) not in CAMERAS:
        findings.append(f"{place} is no name of a frame such as 0001M2D3T1F6.jpg: {name!r}")
        return None
    folder, modality = _MODALITIES[found[2]]
    path = f"{PARTS[part]}/{found[1]}/{folder}/D{found[3]}/{found[4]}"
    return Frame(path, int(found[1]), int(found[3]), modality)


def _read_queries(data_dir: Path, num_tracks: int, findings: list[str]) -> list[int]:
    """Numbers separated by spaces or line breaks."""
    text = read_list(data_dir / QUERIES, QUERIES, findings)
    if text is None:
        return []
    words = text.split()
    wrong = [word for word in words if not 1 <= (whole_number(word) or 0) <= num_tracks]
    if wrong or not words:
        shown = f"holds {', '.join(word[:100] for word in wrong[:5])}" if words else "is empty"
        findings.append(f"{QUERIES} {shown}; it holds numbers of test tracks, 1 to {num_tracks}")
        return []
    queries = [int(word) for word in words]
    if len({*queries}) < len(queries):
        findings.append(f"{QUERIES} names {len(queries) - len({*queries})} tracks again")
    return queries


def _lines(data_dir: Path, name: str, findings: list[str]) -> list[str]:
    """All lines up to the last that is not empty: what the lists count are lines, so none is passed over."""
    text = read_list(data_dir / name, name, findings)
    if text is None:
        return []
    if not text.strip():
        findings.append(f"{name} is empty")
    return [line.strip() for line in text.rstrip().splitlines()]


def _files_of(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()
