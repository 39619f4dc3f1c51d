"""`python -m icre_jax.embed` as a user starts it: folders, lists and manifests, labels and names, and bad input."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import icre_jax
from icre_jax.data.collection import collect
from icre_jax.data.folders import write_manifest
from icre_jax.data.labelled import Source, list_labelled
from icre_jax.engine.embed_files import embed_files
from icre_jax.errors import InputError
from icre_jax.evals import features
from icre_jax.machine.screen import Screen, open_console
from tests.conftest import refused, run_command
from tests.test_own_pictures import make_folders


@pytest.fixture
def folder(tmp_path):
    """Three people in queries and gallery of both modalities, five in training; with a list."""
    folder = make_folders(tmp_path / "own", two_ways=True)
    write_manifest(folder)
    return folder


@pytest.fixture(scope="module")
def net():
    return icre_jax.load("synthetic")


def embed(images, out, *flags, network="synthetic", modality="infrared"):
    return run_command(
        "icre_jax.embed",
        "--network",
        network,
        "--images",
        str(images),
        "--modality",
        modality,
        "--out",
        str(out),
        *flags,
    )


def test_labels_and_names_of_a_manifest_survive(folder, net, tmp_path):
    process = embed(folder / "manifest.csv", tmp_path / "q.npz", "--split", "query", "--flip", "--batch_size", "4")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert "embedding: 4/6" in process.stdout
    assert "6 infrared images, 128 numbers each" in process.stdout
    assert "with pid and camid" in process.stdout
    # 3 people x 2 images x (query and gallery) x 2 modalities, and 5 x 2 x 2 to train on.
    assert "38 images of the list are of the other modality or another split" in process.stdout
    with np.load(tmp_path / "q.npz", allow_pickle=False) as found:
        arrays = dict(found)
    assert arrays["path"].tolist() == [
        f"query/infrared/{person:03d}/größe {n}{suffix}"
        for person in (11, 12, 13)
        for n, suffix in enumerate((".jpg", ".PNG" if person % 2 else ".bmp"))
    ]
    assert arrays["pid"].tolist() == [11, 11, 12, 12, 13, 13]
    assert arrays["camid"].tolist() == [2] * 6
    assert (str(arrays["modality"]), str(arrays["network_sha256"])) == ("infrared", net.model_hash)
    expected = net.embed([folder / path for path in arrays["path"].tolist()], modality="infrared", flip=True)
    np.testing.assert_allclose(arrays["features"], expected, atol=1e-6)
    # What scores any code base reads it.
    read = features.read_features(tmp_path / "q.npz", side="query", cameras=None, needs_camid=True)
    assert read.pid.tolist() == arrays["pid"].tolist()


def test_folders_and_lists_have_no_labels(folder, net, tmp_path, capsys):
    people = folder / "gallery" / "visible"
    (people / ".hidden").write_text("left by a file manager")
    listener = Screen(open_console())
    for name, source in (("folder", people), ("list", tmp_path / "list.txt")):
        (tmp_path / "list.txt").write_text(
            "own/gallery/visible/013/größe 1.PNG\n\nown/gallery/visible/011/größe 0.jpg\n"
        )
        _, images = embed_files("synthetic", source, tmp_path / f"{name}.npz", modality="visible", listener=listener)
        with np.load(tmp_path / f"{name}.npz", allow_pickle=False) as found:
            assert sorted(found) == ["features", "modality", "network_sha256", "path"]
            assert found["path"].tolist() == images.path.tolist()
            expected = net.embed(images.files, modality="visible")
            np.testing.assert_allclose(found["features"], expected, atol=1e-6)
    assert images.path.tolist() == ["own/gallery/visible/013/größe 1.PNG", "own/gallery/visible/011/größe 0.jpg"]
    assert collect(people, "visible").path.tolist()[:2] == ["011/größe 0.jpg", "011/größe 1.PNG"]
    assert len(collect(folder, "visible", "train")) == 10  # the folder of a manifest
    assert "embedding: 6/6" in capsys.readouterr().out


def test_parquet_holds_the_same(folder, tmp_path):
    listener = Screen(open_console())
    for suffix in ("npz", "parquet"):
        embed_files("synthetic", folder, tmp_path / f"v.{suffix}", modality="visible", listener=listener)
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet")
    with np.load(tmp_path / "v.npz") as found:
        np.testing.assert_array_equal(np.array(table["features"].to_pylist(), np.float32), found["features"])
        for name in ("path", "pid", "camid"):
            assert table[name].to_pylist() == found[name].tolist()
        assert table.schema.metadata == {
            b"modality": b"visible",
            b"network_sha256": str(found["network_sha256"]).encode(),
        }


def test_parquet_without_pyarrow_names_the_extra(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pyarrow, which is not installed. Install `icre_jax\[parquet\]`, or write"):
        embed_files("synthetic", folder, tmp_path / "v.parquet", modality="visible", listener=Screen(open_console()))


def test_all_damaged_images_are_named_and_nothing_is_written(folder, tmp_path):
    bad = [folder / "query" / "infrared" / name for name in ("011/größe 0.jpg", "012/größe 1.bmp")]
    for file in bad:
        file.write_bytes(file.read_bytes()[:60])
    process = embed(folder, tmp_path / "new" / "q.npz", "--split", "query")
    refused(process, "2 of 6 images cannot be used", *map(str, bad), "Nothing was left out")
    assert not (tmp_path / "new").exists()


def test_bad_flags(folder, tmp_path):
    refused(embed(folder, tmp_path / "q.npy"), f"--out is {tmp_path / 'q.npy'}; it must end in .npz or .parquet")
    both = embed(folder, tmp_path / "q.npz", "--workdir", str(tmp_path))
    refused(both, "--workdir: not allowed with argument --network")


def test_what_is_no_collection(folder, tmp_path):
    (tmp_path / "q.npz").touch()
    with pytest.raises(InputError, match=r"q.npz exists already"):
        embed_files("synthetic", folder, tmp_path / "q.npz", modality="visible", listener=Screen(open_console()))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").touch()
    (tmp_path / "list.txt").write_text("own/none.png\nempty\nown/none.png\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    for source, words in {
        "nowhere": "There is no .*nowhere. Give a folder of images, a list",
        "empty": "holds no image",
        "empty.txt": "names no image",
        "bytes.txt": "is no list of images",
    }.items():
        with pytest.raises(InputError, match=words):
            collect(tmp_path / source, "visible")
    with pytest.raises(InputError) as caught:
        collect(tmp_path / "list.txt", "visible")
    for words in (
        "line 1: own/none.png is missing",
        "line 2: empty is missing",
        "line 3: own/none.png is named in line 1",
    ):
        assert words in str(caught.value)
    with pytest.raises(InputError, match="--split query needs a manifest"):
        collect(tmp_path / "empty", "visible", "query")


def test_an_image_has_one_path_however_a_list_writes_it(folder):
    image = "query/visible/011/größe 0.jpg"
    (folder / "list.txt").write_text(f"./{image.replace('/', '//')}\n", encoding="utf-8")
    assert collect(folder / "list.txt", "visible").path.tolist() == [image]
    (folder / "list.txt").write_text(f"{image}\nquery/./visible/011//größe 0.jpg\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 2: query/visible/011/größe 0\.jpg is named in line 1 already"):
        collect(folder / "list.txt", "visible")


def test_a_folder_with_other_files_or_links_is_refused_by_name(folder, tmp_path):
    people = Path(shutil.copytree(folder / "query" / "visible", tmp_path / "people"))
    (people / "notes.txt").write_text("?")
    (people / "more").symlink_to(folder / "gallery")
    with pytest.raises(InputError) as caught:
        collect(people, "visible")
    assert "notes.txt is none of .jpg" in str(caught.value)
    assert "more is a link to a folder" in str(caught.value)


def test_of_a_folder_with_both_modalities_one_is_taken(folder):
    """The other's images would pass a stem that is not theirs."""
    people = folder / "query"
    for modality in ("visible", "infrared"):
        found = collect(people, modality)
        assert (found.root, len(found)) == (people / modality, 6)
        assert all(file.is_file() for file in found.files)
    (people / ".hidden").touch()
    (people / "Thumbs.db").touch()
    assert len(collect(people, "visible")) == 6
    (people / "013").mkdir()
    with pytest.raises(InputError, match="holds 013 beside visible and infrared"):
        collect(people, "visible")
    shutil.rmtree(people / "visible")
    with pytest.raises(InputError, match="has no folder 'visible' beside the other modality's"):
        collect(people, "visible")


def test_folders_of_splits_are_no_folder_of_images(folder):
    """As they lie before --make_manifest: images of the other modality are among them, and training images."""
    (folder / "manifest.csv").unlink()
    with pytest.raises(InputError, match=r"holds gallery, query, train with .* --make_manifest"):
        collect(folder, "infrared")
    with pytest.raises(InputError, match=r"holds gallery, query, train with .* --make_manifest"):
        list_labelled(Source(folder), "infrared")
    assert len(collect(folder / "query", "infrared")) > 0


def test_training_images_of_a_manifest_may_be_left_out(folder):
    found = collect(folder, "infrared", with_training=False)
    assert [path.split("/")[0] for path in found.path.tolist()] == ["query"] * 6 + ["gallery"] * 6
    assert found.num_others == 32
    (folder / "manifest.csv").write_text(
        "path,pid,camid,modality,split\ntrain/visible/001/größe 0.jpg,1,1,visible,train\n"
    )
    with pytest.raises(
        InputError, match=r"no visible image in the split query or gallery.*training images are not taken"
    ):
        collect(folder, "visible", with_training=False)
    assert len(collect(folder, "visible")) == 1


def test_lines_of_a_manifest_are_checked_and_it_need_not_be_fit_for_training(tmp_path):
    Image.new("RGB", (8, 16)).save(tmp_path / "a.png")
    header = "path,pid,camid,modality,split\n"
    (tmp_path / "mine.csv").write_text(header + "a.png,5,3,visible,gallery\n")
    found = collect(tmp_path / "mine.csv", "visible")
    assert (found.path.tolist(), found.pid.tolist(), found.camid.tolist()) == (["a.png"], [5], [3])
    with pytest.raises(InputError, match=r"names no infrared image. Choose another --modality"):
        collect(tmp_path / "mine.csv", "infrared")
    with pytest.raises(InputError, match="names no visible image in the split train"):
        collect(tmp_path / "mine.csv", "visible", "train")
    (tmp_path / "mine.csv").write_text(header + "a.png,x,3,visible,gallery\n../b.png,1,1,red,gallery\n")
    with pytest.raises(InputError) as caught:
        collect(tmp_path / "mine.csv", "visible")
    for words in ("mine.csv line 2: pid is 'x'", "mine.csv line 3: path is '../b.png'", "mine.csv line 3: modality is"):
        assert words in str(caught.value)
