"""HITSZ-VCM by the commands, as a user starts them: what is refused, and other networks and searches on it.

Verified, prepared, trained, scored, exported, described and examined: `test_readme_commands.py`.
"""

import json
import shutil
from pathlib import Path

import pytest

from icre_jax.evals.results import read_results
from tests.conftest import TINY_NETWORK, refused, run_command

pytestmark = pytest.mark.long


@pytest.fixture
def flags(hitsz_vcm_tree, tmp_path):
    """Of a small run on a copy of the tree, and that copy."""
    copy = Path(shutil.copytree(hitsz_vcm_tree, tmp_path / "tree"))
    paths = (f"--config.data.data_dir={copy}", f"--config.data.prepared_dir={tmp_path / 'prepared'}")
    return ["--config", "configs/hitsz_vcm.py:baseline", *TINY_NETWORK, *paths], copy


def test_absent_data_says_what_belongs_where(flags, tmp_path):
    absent = f"--config.data.data_dir={tmp_path / 'absent'}"
    words = ("No HITSZ-VCM at", "academic use only", "Train/<id>/{ir,rgb}/D<camera>/*.jpg", "info/query_IDX.txt")
    process = run_command("icre_jax.train", *flags[0], absent, "--workdir", str(tmp_path / "run"))
    refused(process, str(tmp_path / "absent"), "--config.data.data_dir", *words)
    process = run_command("icre_jax.verify", "--dataset", "hitsz_vcm", "--data_dir", str(tmp_path / "absent"))
    refused(process, *words)


def test_a_missing_frame_stops_prepare_and_is_named_by_verify(flags, tmp_path):
    arguments, copy = flags
    frame = next(copy.glob("Test/*/ir/*/6.jpg"))
    name = frame.relative_to(copy).as_posix()
    frame.unlink()
    refused(run_command("icre_jax.prepare", *arguments), f"{name} is missing (info/test_name.txt line ")
    assert not (tmp_path / "prepared").exists()
    process = run_command("icre_jax.verify", "--dataset", "hitsz_vcm", "--data_dir", str(copy))
    assert (process.returncode, process.stderr) == (2, "")
    assert f"error: {name} is missing" in process.stdout


def test_fields_that_do_not_fit(flags, tmp_path):
    workdir = ("--workdir", str(tmp_path / "run"))
    process = run_command("icre_jax.train", *flags[0], "--config.data.frames_per_track=0", *workdir)
    refused(process, "data.frames_per_track")
    process = run_command("icre_jax.train", "--config", "configs/llcm.py", "--config.data.frames_per_track=6", *workdir)
    refused(process, "data.frames_per_track is 6; llcm has images, not tracks, so it must be None")
    few = ("--config.data.dataset=hitsz_vcm", "--config.data.synthetic.num_val_ids=0")
    few = (*few, "--config.data.train_splits=('train',)")
    few = (*few, f"--config.data.data_dir={tmp_path / 'rendered'}", f"--config.data.prepared_dir={tmp_path / 'p'}")
    process = run_command("icre_jax.prepare", "--config", "configs/synthetic.py", *few)
    refused(process, "num_images_per_camera is 2; allowed for hitsz_vcm: 12 or more")


def test_another_network_is_scored_on_its_tracks(hitsz_vcm_tree, tmp_path):
    place = ("--data_dir", str(hitsz_vcm_tree), "--dataset", "hitsz_vcm", "--prepared_dir", str(tmp_path / "p"))
    process = run_command("icre_jax.evaluate", "--workdir", "synthetic", *place, "--out", str(tmp_path / "out"))
    assert (process.returncode, process.stderr) == (0, "")
    results, _ = read_results(tmp_path / "out")
    assert [result.gallery_source for result in results[:3:2]] == [
        "all tracks, mean of 6 frames",
        "all tracks, one frame of each",
    ]
    # Nine tracks of each modality, of people whom this network finds.
    assert {result.num_queries for result in results} == {9}
    assert results[0].mean["mAP"] > results[0].chance
    process = run_command(
        "icre_jax.evaluate", "--workdir", "synthetic", *place, "--open_set", "--out", str(tmp_path / "open")
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert "same id and camera left out" in process.stdout
    # Two of the four people are enrolled, with their tracks and not their frames.
    measured = json.loads((tmp_path / "open" / "open_set.json").read_text())["directions"][0]
    assert measured["enrolled_persons"] == 2
    assert measured["gallery_images"] <= 9


def test_a_gallery_of_its_frames_is_searched(hitsz_vcm_tree, tmp_path):
    place = ("--images", str(hitsz_vcm_tree), "--dataset", "hitsz_vcm")
    index = ("--index", str(tmp_path / "gallery"))
    process = run_command("icre_jax.index", *index, *place, "--modality", "visible", "--network", "synthetic")
    assert process.returncode == 0, process.stderr
    assert "108 images of 4 persons" in process.stdout
    asked = str(next(hitsz_vcm_tree.glob("Test/*/ir/*/6.jpg")))
    found = tmp_path / "found.json"
    process = run_command("icre_jax.search", *index, "--images", asked, "--modality", "infrared", "--json", str(found))
    assert process.returncode == 0, process.stderr
    assert json.loads(found.read_text())
