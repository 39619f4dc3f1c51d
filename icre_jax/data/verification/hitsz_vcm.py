"""HITSZ-VCM: the published counts, tracks against the names of their frames, and which tracks ask."""

from pathlib import Path

from icre_jax.data.layouts import hitsz_vcm
from icre_jax.data.layouts.hitsz_vcm import MIN_FRAMES, PARTS, QUERIES, Lists, Part, Track
from icre_jax.data.records import Record
from icre_jax.data.verification.lists import note_unlisted
from icre_jax.data.verification.report import Report
from icre_jax.datasets import HITSZ_VCM, INFRARED, MODALITIES, VISIBLE


def check(data_dir: Path, trial: int | None, report: Report, *, published: bool) -> list[Record]:
    """Everything but the pixels; the frames of the tracks in use, each once."""
    del trial
    lists, findings = hitsz_vcm.read_lists(data_dir)
    splits = hitsz_vcm.find_frames(data_dir, lists, findings)
    report.errors += findings
    used = {"train": splits["train"], "test": splits["query"] + splits["gallery"]}
    for part in (lists.train, lists.test):
        _count(part, used[part.name], report, published=published)
        _check_tracks(part, report)
    _check_queries(lists, report, published=published)
    images = list({record.path: record for records in used.values() for record in records}.values())
    named = (frame.path for part in (lists.train, lists.test) for frame in part.frames if frame is not None)
    note_unlisted(data_dir, PARTS.values(), named, report)
    return images


def _count(part: Part, frames: list[Record], report: Report, *, published: bool) -> None:
    tracks, images = (HITSZ_VCM.track_counts[part.name], HITSZ_VCM.counts[part.name]) if published else (None, None)
    report.count(part.name, "frames named", len(part.frames), tracks.frames if tracks else None)
    report.count(part.name, "tracks", len(part.tracks), tracks.tracks if tracks else None)
    pids = {track.pid for track in part.tracks}
    report.count(part.name, "identities", len(pids), images.identities if images else None)
    for modality in MODALITIES:
        row = f"{part.name}, {modality}, tracks of {MIN_FRAMES} frames or more"
        long = sum(track.is_long and track.modality == modality for track in part.tracks)
        expected = {VISIBLE: tracks.visible, INFRARED: tracks.infrared}[modality] if tracks else None
        report.count(row, "tracks", long, expected)
        found = sum(record.modality == modality for record in frames)
        report.count(row, "images", found, images.of(modality) if images else None)


def _check_tracks(part: Part, report: Report) -> None:
    """Names that say something else than their track are odd, and so are frames in two tracks; the track decides."""
    names = f"info/{part.name}_name.txt"
    strangers, again = [], []
    first_of: dict[int, Track] = {}
    for track in part.tracks:
        for line in track.lines:
            frame = part.frames[line - 1]
            its = (track.pid, track.camid, track.modality)
            if frame is not None and (frame.pid, frame.camid, frame.modality) != its:
                strangers.append((track, line))
            if first_of.setdefault(line, track) is not track:
                again.append((track, line))
    if strangers:
        report.warnings.append(
            f"{len({track.number for track, _ in strangers}):,} {part.name} tracks hold {len(strangers):,} frames "
            f"whose names say another identity, camera or modality, first {_say(part, *strangers[0])}; they count as "
            "the track's"
        )
    if again:
        report.warnings.append(f"{len(again):,} lines of {names} are in two tracks, first {_say(part, *again[0])}")
    if part.frames and len(first_of) < len(part.frames):
        report.notes.append(f"{len(part.frames) - len(first_of):,} lines of {names} are in no track; nobody reads them")
    short = sum(not track.is_long for track in part.tracks)
    if short:
        report.notes.append(f"{short:,} {part.name} tracks have fewer than {MIN_FRAMES} frames and are left out")
    visible, infrared = (
        {t.pid for t in part.tracks if t.is_long and t.modality == modality} for modality in MODALITIES
    )
    one_sided = sorted(visible ^ infrared)
    if one_sided:
        # A test identity of one modality is no query with a match; one to train on makes no balanced batch.
        target = report.errors if part.name == "train" else report.warnings
        target.append(f"{part.name} identities with tracks of {MIN_FRAMES} frames in one modality only: {one_sided}")


def _say(part: Part, track: Track, line: int) -> str:
    return f"track {track.number} (info/track_{part.name}_info.txt), line {line} of info/{part.name}_name.txt"


def _check_queries(lists: Lists, report: Report, *, published: bool) -> None:
    """The tracks that ask are the infrared ones, and all of them; the protocol goes by the modality."""
    report.count("test", "queries", len(lists.queries), HITSZ_VCM.track_counts["test"].queries if published else None)
    asking = {*lists.queries}
    for modality, found in (
        (VISIBLE, [t.number for t in lists.test.tracks if t.modality == VISIBLE and t.number in asking]),
        (INFRARED, [t.number for t in lists.test.tracks if t.modality == INFRARED and t.number not in asking]),
    ):
        if found and lists.queries:
            where = "are in" if modality == VISIBLE else "are not in"
            report.warnings.append(f"{len(found):,} {modality} test tracks {where} {QUERIES}, first track {found[0]}")
