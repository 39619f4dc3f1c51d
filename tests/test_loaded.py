"""`icre_jax.load` and what it gives: the network in the box, embeddings of images in any form, the docs' lines."""

import doctest
import importlib
import json
import os
import re
import shutil
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import icre_jax
from icre_jax.engine import stored
from icre_jax.errors import InputError
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.storage import Entry
from tests.conftest import ROOT

BOX = ROOT / "icre_jax" / "box" / "synthetic"


@pytest.fixture(scope="module")
def net():
    return icre_jax.load("synthetic")


@pytest.fixture(scope="module")
def pixels():
    """Noise of several sizes, none of them the network's."""
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((128, 64), (96, 48), (50, 70), (200, 31))]


def by_hand(net, images, modality):
    """Resized by Pillow, normalised with ImageNet's numbers in float64, applied one by one, divided by the length."""
    height, width = net.image_size
    rows = []
    for image in images:
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        x = (np.asarray(resized, np.float64) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        outputs, _ = net.network.apply(net.variables, jnp.asarray(x[None], jnp.float32), modality=modality, train=False)
        z = np.asarray(outputs["embeddings"][0], np.float64)
        rows.append(z / np.sqrt((z**2).sum()))
    return np.stack(rows)


@pytest.mark.versions
@pytest.mark.parametrize("modality", ["visible", "infrared"])
def test_embeddings_are_those_of_the_network_by_hand(net, pixels, modality):
    found = net.embed(pixels, modality=modality)
    assert (found.dtype, found.shape) == (np.float32, (4, net.size))
    np.testing.assert_allclose(found, by_hand(net, pixels, modality), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.astype(np.float64), axis=1), 1, atol=1e-6)


def test_the_stems_differ(net, pixels):
    visible, infrared = (net.embed(pixels, modality=modality) for modality in ("visible", "infrared"))
    assert np.abs(visible - infrared).max() > 0.05


def test_files_arrays_and_batches_give_the_same(net, pixels, tmp_path):
    expected = net.embed(pixels, modality="visible")
    files = [tmp_path / f"{number}.png" for number in range(len(pixels))]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image).save(file)
    assert net.embed(files, modality="visible").tobytes() == expected.tobytes()
    mixed = [files[0], str(files[1]), pixels[2], files[3]]
    assert net.embed(mixed, modality="visible").tobytes() == expected.tobytes()
    for batch_size in (1, 3, 4):
        said = []
        found = net.embed(
            pixels, modality="visible", batch_size=batch_size, progress=lambda *done, said=said: said.append(done)
        )
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert said[-1] == (4, 4)
        assert len(said) == -(-4 // batch_size)
    together = np.stack([pixels[0]] * 5)
    np.testing.assert_allclose(net.embed(together, modality="visible"), expected[[0] * 5], atol=1e-6)
    assert net.embed([], modality="visible").shape == (0, net.size)


def test_flip_is_the_mean_direction_of_both(net, pixels):
    there, mirrored = (by_hand(net, [image[:, ::step] for image in pixels], "infrared") for step in (1, -1))
    mean = there + mirrored
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(net.embed(pixels, modality="infrared", flip=True), expected, atol=1e-5)


def test_all_images_that_cannot_be_used_are_named(net, pixels, tmp_path):
    Image.fromarray(pixels[0]).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.bmp").touch()
    with (tmp_path / "huge.png").open("wb") as stream:
        stream.truncate(2**27)  # sparse
    bad = {
        tmp_path / "cut.png": "cut.png: not readable",
        tmp_path / "text.jpg": "text.jpg: not readable (no JPEG, PNG, BMP file)",
        tmp_path / "empty.bmp": "empty.bmp: empty file",
        tmp_path / "huge.png": "huge.png: it has 134,217,728 bytes; at most 67,108,864 are read",
        tmp_path / "none.png": "none.png: there is no such file",
        tmp_path: f"{tmp_path}: it is a folder, not a file",
        "a\0b": "a\\x00b: its name holds a null character",
    }
    arrays = {
        "float64 [8, 4, 3]": np.zeros((8, 4, 3)),
        "uint8 [8, 4]": np.zeros((8, 4), np.uint8),
        "uint8 [8, 4, 4]": np.zeros((8, 4, 4), np.uint8),
        "uint8 [0, 4, 3]": np.zeros((0, 4, 3), np.uint8),
        "a NoneType; a path or a NumPy array is needed": None,
    }
    # Whether they come first, last or in batches of their own.
    images = [pixels[0], *bad, tmp_path / "good.png", *arrays.values()]
    with pytest.raises(InputError) as caught:
        net.embed(images, modality="visible", batch_size=2)
    message = str(caught.value)
    for words in (*bad.values(), *arrays):
        assert words in message
    assert f"{len(bad) + len(arrays)} of {len(images)} images cannot be used" in message
    assert "good.png" not in message


@pytest.mark.parametrize(
    ("images", "flags", "words"),
    [
        ([], {"modality": "thermal"}, "modality is 'thermal'; allowed are 'visible', 'infrared'"),
        ([], {"batch_size": 0}, "batch_size is 0"),
        ([], {"batch_size": 2.0}, "batch_size is 2.0"),
        ("one.png", {}, "images is 'one.png'; give a list"),
        (Path("one.png"), {}, "give a list"),
        (np.zeros((8, 4, 3), np.uint8), {}, r"images is one array \[8, 4, 3\]"),
        (np.zeros((2, 8, 4, 3)), {}, r"images\[1\]: float64 \[8, 4, 3\]"),
    ],
)
def test_what_is_no_request(net, images, flags, words):
    with pytest.raises(InputError, match=words):
        net.embed(images, **{"modality": "visible"} | flags)


def test_search_finds_what_sorting_all_cosines_finds(net, pixels, tmp_path):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (40, *net.image_size, 3), dtype=np.uint8)
    gallery = net.embed(images, modality="visible")
    queries = net.embed(pixels, modality="infrared")
    cosine = queries.astype(np.float64) @ gallery.T.astype(np.float64)
    found = net.search(pixels, gallery, modality="infrared", top=7)
    np.testing.assert_array_equal(found.indices, np.argsort(-cosine, axis=1)[:, :7])
    np.testing.assert_allclose(found.similarities, -np.sort(-cosine, axis=1)[:, :7], atol=1e-6)
    again = net.search(queries, gallery, modality="infrared", top=7)
    np.testing.assert_array_equal(again.indices, found.indices)

    entries = [Entry(f"{number}.png", "", None, "visible", "/") for number in range(40)]
    mirrored = net.embed(images, modality="visible", flip=True)
    index = GalleryIndex.create(
        tmp_path / "index", mirrored, entries, model_hash=net.model_hash, preprocessing={"flip": True}
    )
    expected = net.embed(pixels, modality="infrared", flip=True) @ mirrored.T
    for place in (index, tmp_path / "index", str(tmp_path / "index")):
        found = net.search(pixels, place, modality="infrared", top=1)
        # float16 rows: the best, or one as good as that.
        chosen = np.take_along_axis(expected, found.indices, axis=1)[:, 0]
        np.testing.assert_allclose(chosen, expected.max(axis=1), atol=1e-3)
    other = GalleryIndex.create(tmp_path / "other", mirrored, entries, model_hash="0" * 64)
    with pytest.raises(InputError, match="was made with another network than synthetic"):
        net.search(pixels, other, modality="infrared")
    with pytest.raises(InputError):
        net.search(pixels, tmp_path / "none", modality="infrared")
    with pytest.raises(InputError, match="modality is 'thermal'"):
        net.search(queries, gallery, modality="thermal")


@pytest.mark.versions
def test_the_lines_of_the_docs(net, pixels, tmp_path, monkeypatch):
    """Five lines, a heat map, the functional network and NNX, in one go."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    assert len([line for line in blocks[0].splitlines() if line]) == 5
    monkeypatch.chdir(tmp_path)
    for name, image in zip(("infrared.png", "one.jpg", "two.jpg"), pixels, strict=False):
        Image.fromarray(image).save(name)
    names = {"pixels": np.stack([pixels[1]] * 2)}
    found = []
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
        found.append(names.pop("outputs", None))
    similarity = (
        by_hand(net, [pixels[0]], "infrared") @ by_hand(net, [pixels_of("one.jpg"), pixels_of("two.jpg")], "visible").T
    )
    np.testing.assert_allclose(names["similarity"], similarity, atol=1e-5)
    assert found[:2] == [None, None]
    np.testing.assert_array_equal(found[3]["embeddings"], found[2]["embeddings"])
    assert names["query"].shape == (*net.image_size, 3)
    assert len(jax.tree.leaves(names["nnx"].state(names["model"]))) == len(jax.tree.leaves(net.variables))


def pixels_of(name):
    return np.asarray(Image.open(name))


@pytest.mark.parametrize("name", ["icre_jax", "icre_jax.engine.loaded"])
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    found = doctest.testmod(module)
    assert found.failed == 0
    assert found.attempted > 0
    if name.endswith("loaded"):
        for part in ("", ".embed", ".search", ".explain", ".model_hash"):
            public = eval(f"LoadedNetwork{part}", vars(module))
            assert ">>>" in public.__doc__, part


def test_the_box_is_what_it_says_and_travels_with_the_package(net):
    """Small, without a word of the machine it was made on, and in the wheel."""
    files = sorted(BOX.iterdir())
    assert [file.name for file in files] == [
        "README.md", "SHA256SUMS", "classes.json", "config.json", "network.safetensors", "provenance.json",
    ]  # fmt: skip
    everything = [file for folder in stored.BOX.iterdir() for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in everything) < 8 * 10**6
    about = json.loads((BOX / "provenance.json").read_text())
    assert about["network_sha256"] == {"safetensors": net.model_hash}
    assert net.provenance == about
    assert (about["data"], about["pretrained"]) == ("synthetic people", None)
    assert 'license: "apache-2.0"' in (BOX / "README.md").read_text()
    for file in files[:4]:
        assert not re.search(r"(?<![\w.:/])/(tmp|home|root|work)/", file.read_text()), file
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["icre_jax"]
    package = ROOT / "icre_jax"
    assert {file for pattern in patterns for file in package.glob(pattern)} >= set(everything)
    assert package / "box" == stored.BOX
    assert {folder.name for folder in stored.BOX.iterdir()} == {*stored.IN_THE_BOX}


def test_a_path_is_never_the_box(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (Path("synthetic"), "./synthetic", f".{os.sep}synthetic"):
        with pytest.raises(InputError, match="holds no trained network"):
            icre_jax.load(path)
    shutil.copytree(stored.BOX / "synthetic", tmp_path / "synthetic")
    by_name, by_path, below = (icre_jax.load(path) for path in ("synthetic", Path("synthetic"), "./synthetic"))
    assert (by_name.origin, by_name.place) == ("synthetic", "synthetic")
    assert by_path.origin == by_path.place == str(tmp_path / "synthetic")
    assert (below.origin, below.place) == ("./synthetic", str(tmp_path / "synthetic"))
    monkeypatch.setenv("HOME", str(tmp_path))
    at_home = icre_jax.load("~/synthetic")
    assert (at_home.origin, at_home.place) == ("~/synthetic", str(tmp_path / "synthetic"))


def test_the_hash_is_of_every_bit_and_setting_that_decides(net):
    """Against sha256 over the bytes in the order that the docstring of the function gives."""
    settings = net.settings
    first = stored.hash_network(settings, net.variables)
    assert first == net.model_hash
    stats = jax.tree.map(np.array, net.variables["batch_stats"])
    leaf = stats["head"]["neck"]["mean"]
    leaf[-1] = np.nextafter(leaf[-1], np.float32(np.inf))
    others = [stored.hash_network(settings, net.variables | {"batch_stats": stats})]
    model = settings.model
    for name, value in {"gem_p": 2.0, "dtype": "bfloat16"}.items():
        changed = settings.model_copy(update={"model": model.model_copy(update={name: value})})
        others.append(stored.hash_network(changed, net.variables))
    data = settings.data.model_copy(update={"image_size": (48, 96)})
    others.append(stored.hash_network(settings.model_copy(update={"data": data}), net.variables))
    assert len({first, *others}) == 5
    # What only changes speed or names a place does not.
    same = settings.model_copy(
        update={
            "model": model.model_copy(update={"remat": not model.remat}),
            "data": settings.data.model_copy(update={"data_dir": "elsewhere", "num_threads": 7}),
        }
    )
    assert stored.hash_network(same, jax.tree.map(np.asarray, net.variables)) == first
    assert stored.unflatten(stored.flatten(net.variables)).keys() == net.variables.keys()


def test_it_shows_itself_in_a_line(net):
    assert repr(net) == f"<LoadedNetwork 'synthetic': step {net.step}, images 128x64 -> 128 numbers>"
    assert net.image_size == net.settings.data.image_size


def test_a_setting_that_came_later_leaves_the_hash_of_older_networks():
    """Such a setting has a default, what there was before it; this network was written before this one."""
    net = icre_jax.load("instrument")
    sdce = net.settings.model.sdce
    assert not type(sdce).model_fields["residual"].is_required()
    assert "residual" not in json.loads((stored.BOX / "instrument" / "config.json").read_text())["model"]["sdce"]
    model = net.settings.model.model_copy(update={"sdce": sdce.model_copy(update={"residual": not sdce.residual})})
    changed = net.settings.model_copy(update={"model": model})
    assert stored.hash_network(changed, net.variables) != net.model_hash
