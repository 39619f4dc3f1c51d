"""Names that others gave to files and folders: refused where they could not be told in a table, escaped in messages."""

import os

import numpy as np
import pytest

from icre_jax import embed, score
from icre_jax.data.collection import collect
from icre_jax.data.folders import write_manifest
from icre_jax.data.labelled import Source, list_labelled
from icre_jax.errors import InputError, join_findings
from icre_jax.files.names import find_name_defect, is_file
from icre_jax.retrieval.storage import Entry, check_entries
from tests.page_server import image_bytes

WRONG = {
    "\x1b[2J.png": "a control character, \\x1b",
    "a\nb.png": "a control character, \\n",
    "a\rb.png": "a control character, \\r",
    "a\x7f.png": "a control character, \\x7f",
    "a\x9b31m.png": "a control character, \\x9b",
    "gpj\u202e.png": "\\u202e, which turns the direction",
    "a\u2028b.png": "a line break, \\u2028",
    os.fsdecode(b"\xff\xfe.png"): "not valid UTF-8",
}
RIGHT = [
    "a.png",
    "Zoë 1.png",
    "人物/カメラ 1.png",
    "a\u00a0b.png",
    "👩\u200d🔬.png",
    "<b>&.png",
    "=1+1.png",
    "עברית.png",
]


@pytest.mark.parametrize("name", WRONG)
def test_names_that_no_list_can_hold(name, tmp_path):
    assert WRONG[name] in (find_name_defect(name) or "")
    folder = tmp_path / "train" / "visible" / "anna"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(image_bytes((1, 2, 3)))
    for attempt in (
        lambda: collect(tmp_path / "train", "visible"),
        lambda: list_labelled(Source(folder.parent), "visible"),
        lambda: write_manifest(tmp_path),
        lambda: check_entries([Entry(name, "p", 1, "visible", "/r")]),
        lambda: check_entries([Entry("a.png", name, 1, "visible", "/r")]),
    ):
        with pytest.raises(InputError) as caught:
            attempt()
        said = str(caught.value)
        assert WRONG[name] in said
        assert "ename" in said
        assert all(letter.isprintable() or letter == "\n" for letter in said)
    assert {path.name for path in tmp_path.iterdir()} == {"train"}


@pytest.mark.parametrize("name", RIGHT)
def test_names_of_all_languages_can_be_used(name, tmp_path):
    assert find_name_defect(name) is None
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(image_bytes((1, 2, 3)))
    assert collect(tmp_path, "visible").path.tolist() == [name]
    check_entries([Entry(name, name, 1, "visible", "/r")])


def test_a_command_names_them_and_leaves_nothing(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / os.fsdecode(b"\xff.png")).write_bytes(image_bytes((1, 2, 3)))
    flags = ["--network", "synthetic", "--images", str(tmp_path / "images"), "--modality", "visible"]
    with pytest.raises(InputError, match=r"udcff.png' cannot be listed, as it is not valid UTF-8; rename it"):
        embed.main([*flags, "--out", str(tmp_path / "out.npz")])
    assert {path.name for path in tmp_path.iterdir()} == {"images"}


@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 3000, "a\0b", "", "."])
def test_no_name_is_an_error_where_it_is_looked_for(name, tmp_path):
    assert not is_file(tmp_path / name)
    (tmp_path / "circle").symlink_to("circle")
    assert not is_file(tmp_path / "circle")


def test_messages_stay_short_whatever_a_line_holds():
    words = join_findings(["x" * 60_000] * 50)
    assert len(words) < 25_000
    assert words.endswith("... and 30 more")
    said = str(InputError("a name of " + "x" * 300_000))
    assert len(said) < 50_100
    assert said.endswith("... (300,010 characters)")


def test_empty_folders_of_persons_are_named(tmp_path):
    for person in ("anna", "bert", "carl"):
        for modality in ("visible", "infrared"):
            folder = tmp_path / "train" / modality / person
            folder.mkdir(parents=True)
            if person == "anna":
                (folder / "1.png").write_bytes(image_bytes((1, 2, 3)))
    (tmp_path / "train" / "visible" / "carl" / "cam1").mkdir()
    with pytest.raises(InputError) as caught:
        list_labelled(Source(tmp_path / "train"), "visible")
    assert "  - bert/ holds no image\n  - carl/ holds no image" in str(caught.value)
    with pytest.raises(InputError) as caught:
        write_manifest(tmp_path)
    for modality in ("visible", "infrared"):
        for person in ("bert", "carl"):
            assert f"train/{modality}/{person} holds no image" in str(caught.value)
    assert not (tmp_path / "manifest.csv").exists()


def test_features_that_are_zero_are_warned_of(tmp_path, capsys):
    drawn = np.random.default_rng(0)
    columns = {"pid": np.arange(6) % 3, "camid": np.arange(6) % 2 + 1}
    features = drawn.normal(size=(6, 4))
    np.savez(tmp_path / "gallery.npz", features=features, **columns)
    features[2:4] = 0
    np.savez(tmp_path / "query.npz", features=features, **columns)
    files = ["--query", str(tmp_path / "query.npz"), "--gallery", str(tmp_path / "gallery.npz")]
    assert score.main(["--protocol", "manifest", "--no-exclude_same_camera", *files]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"warning: 2 of 6 rows of features in {tmp_path / 'query.npz'} are zero throughout")
    assert said.count("warning") == 1
