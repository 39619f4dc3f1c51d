"""Several processes that want the same records at once: one writes them, and all have them."""

import subprocess
import sys

import pytest

from icre_jax.data import prepared as rooms
from icre_jax.data.prepared import open_or_prepare
from icre_jax.files.turns import one_at_a_time
from tests.conftest import ROOT


@pytest.mark.parametrize("before", ["_check_images", "one_at_a_time"])
def test_records_that_another_wrote_meanwhile_are_taken_as_they_are(tree, tmp_path, monkeypatch, before):
    """The other begins and ends while this one checks the images, or when it is about to write."""
    original, theirs = getattr(rooms, before), []

    def after_the_other(*arguments):
        monkeypatch.setattr(rooms, before, original)
        theirs.append(open_or_prepare("sysu_mm01", tree, tmp_path))
        theirs.append({path: path.stat().st_mtime_ns for path in theirs[0].folder.iterdir()})
        return original(*arguments)

    monkeypatch.setattr(rooms, before, after_the_other)
    ours = open_or_prepare("sysu_mm01", tree, tmp_path)
    assert ours.fingerprint == theirs[0].fingerprint
    assert {path: path.stat().st_mtime_ns for path in ours.folder.iterdir()} == theirs[1]
    assert all(len(ours.sums[name]) == len(index) for name, index in ours.index.items())


def test_two_that_begin_at_once_end_with_the_same_records(tree, tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom icre_jax.data.prepared import open_or_prepare\n"
        "print(open_or_prepare('sysu_mm01', Path(sys.argv[1]), Path(sys.argv[2])).fingerprint)"
    )
    command = [sys.executable, "-c", code, str(tree), str(tmp_path)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1] == f"{open_or_prepare('sysu_mm01', tree, tmp_path).fingerprint}\n"


def test_where_there_are_no_locks_nobody_waits(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with one_at_a_time(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()


def test_a_file_that_a_killed_process_was_writing_is_no_damage(tree, tmp_path):
    folder = open_or_prepare("sysu_mm01", tree, tmp_path).folder
    for name in (".gallery_permutations.json.4242.partial", ".SHA256SUMS.4242.partial"):
        (folder / name).write_text("half a")
    assert len(open_or_prepare("sysu_mm01", tree, tmp_path).index["train"]) > 0
