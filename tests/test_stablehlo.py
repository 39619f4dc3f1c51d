"""StableHLO files: what is in them, on which platform, and that nobody needs this package to run them."""

import datetime
import functools
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from icre_jax.engine import stablehlo
from icre_jax.engine.forward import embed_step
from icre_jax.engine.stablehlo import PLATFORMS, describe_end, embed_elsewhere, lower, write_stablehlo
from icre_jax.engine.stablehlo_reader import FORBIDDEN
from icre_jax.engine.stored import Stored
from icre_jax.errors import InputError
from icre_jax.models import convolution, layers, pooling, stem
from icre_jax.models.network import build_network
from icre_jax.settings import parse

TODAY = datetime.date(2030, 8, 31)


def shapes_of(config):
    """A network, and zeros for its variables: enough for its program."""
    network, (height, width) = build_network(parse(config), 5), config.data.image_size
    init = functools.partial(network.init, modality="paired", train=True)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((2, height, width, 3)))
    return network, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def network_of(config):
    """A network and variables of which none is what it starts as, so that every part counts."""
    network, zeros = shapes_of(config)
    rng, leaves = np.random.default_rng(0), []
    for path, leaf in jax.tree_util.tree_leaves_with_path(zeros):
        values = rng.normal(size=leaf.shape).astype(np.float32)
        name = path[-1].key
        if name == "kernel":
            values *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
        leaves.append(1 + 0.1 * abs(values) if name in ("scale", "var") else values)
    return network, jax.tree.unflatten(jax.tree.structure(zeros), leaves)


def stored_of(config):
    network, variables = network_of(config)
    return Stored(parse(config), 6, network, variables, [1, 2, 3, 4, 5], {}, False)


def images_of(config, number=2):
    rng = np.random.default_rng(1)
    shape = (number, *config.data.image_size, 3)
    return {modality: rng.integers(0, 256, shape, np.uint8) for modality in ("visible", "infrared")}


def operations(text):
    return Counter(re.findall(r"\b((?:stablehlo|chlo)\.\w+)", text))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("stablehlo"), {}


@pytest.fixture
def written(config, made):
    """The files of one small network, written once for this file: their folder, network, variables, description."""
    folder, kept = made
    if not kept:
        stored = stored_of(config)
        kept["all"] = stored, write_stablehlo(folder, stored, today=TODAY)
    return folder, *kept["all"]


def test_programs_that_embed_as_the_network_does_and_say_until_when(written, config):
    folder, stored, description = written
    assert {path.name for path in folder.iterdir()} == {"visible.stablehlo", "infrared.stablehlo", "stablehlo.json"}
    assert json.loads((folder / "stablehlo.json").read_text()) == description
    assert description["platforms"] == ["cpu", "cuda", "tpu"]
    assert description["readable_until"] == "2031-02-27"
    assert "until 2031-02-27" in describe_end(folder)
    for modality, images in images_of(config, 5).items():
        content = (folder / f"{modality}.stablehlo").read_bytes()
        assert description["files"][f"{modality}.stablehlo"] == {"sha256": hashlib.sha256(content).hexdigest()}
        program = export.deserialize(bytearray(content))
        assert program.platforms == PLATFORMS
        (argument,) = program.in_avals
        assert (str(argument.shape[0]), argument.dtype) == ("b", np.uint8)
        found = np.asarray(program.call(images))
        plain = np.asarray(embed_step(stored.variables, images, network=stored.network, modality=modality), np.float64)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)
        assert abs(found[0] - found[1]).max() > 1e-3  # it looks at the images
        elsewhere = embed_elsewhere(folder, images, modality, tolerance=1e-5)
        np.testing.assert_allclose(elsewhere, found, atol=1e-6)
    with pytest.raises(ValueError, match=r"(?i)shape|dimension"):
        program.call(images[:, :-1])


def test_a_process_without_this_package_runs_them(written, config, tmp_path):
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' in p or 'lib/python' in p]\n"
        f"for name in {FORBIDDEN}: sys.modules[name] = None\n"
        "import numpy as np; from jax import export\n"
        f"program = export.deserialize(bytearray(open({str(written[0] / 'visible.stablehlo')!r}, 'rb').read()))\n"
        f"print(program.call(np.zeros((1, *{tuple(config.data.image_size)}, 3), np.uint8)).shape)\n"
    )
    process = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == str((1, 32))


@pytest.mark.parametrize("variant", ["icre", "agw"])
def test_no_form_of_a_cpu_gets_into_any_program(config, variant, monkeypatch):
    """The same program, to the letter, as with the library's own convolutions and maximum everywhere."""
    if variant == "agw":
        config.model.mpfr.enabled = config.model.sdce.enabled = False
        config.model.non_local_blocks = (0, 1, 1, 0)
    network, variables = shapes_of(config)
    ours = lower(network, variables, "visible", config.data.image_size).mlir_module()
    assert "precision = [HIGHEST, HIGHEST]" in ours  # what the config says of products holds on every platform
    assert operations(ours)["stablehlo.convolution"] > 0

    def library(x, kernel, stride=1):
        if kernel.shape[0] == 1:
            return convolution.convolve(x, kernel, stride)
        return convolution._library(x, kernel, stride)

    monkeypatch.setattr(layers, "convolve", library)
    monkeypatch.setattr(stem, "max_pool", pooling._library)
    theirs = lower(network, variables, "visible", config.data.image_size).mlir_module()
    assert operations(ours) == operations(theirs)


def test_where_a_form_is_chosen_it_is_chosen_for_each_platform():
    """The gradient of max-pool has two forms: one is a TPU's, one that of all others. For all it holds both."""

    def gradient(x):
        return jax.grad(lambda x: pooling.max_pool(x).sum())(x)

    image = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
    texts = {
        platforms: operations(export.export(jax.jit(gradient), platforms=platforms)(image).mlir_module())
        for platforms in (("cpu",), ("cuda",), ("tpu",), PLATFORMS)
    }
    scatter = "stablehlo.select_and_scatter"
    assert {platforms: texts[platforms][scatter] > 0 for platforms in texts} == {
        ("cpu",): False, ("cuda",): False, ("tpu",): True, PLATFORMS: True,
    }  # fmt: skip
    assert texts[PLATFORMS]["stablehlo.case"] > 0


def test_the_classifier_is_not_in_the_files(config):
    network, variables = shapes_of(config)
    text = lower(network, variables, "visible", config.data.image_size).mlir_module()
    assert "x5xf32" not in text.replace(" ", "")
    assert "stablehlo.convolution" in text


def test_vectors_that_are_not_those_of_one_image_are_refused(written, config, tmp_path, monkeypatch):
    folder, images = written[0], images_of(config)["visible"]
    reader = Path(stablehlo._READER).read_text()
    for change, words in (("np.asarray(program.call(images[modality][:1]))", "differs by 2.0e-05"), ("x", "length 1")):
        damaged = tmp_path / "reader.py"
        damaged.write_text(
            reader.replace(change, f"{change} + np.float32(2e-5)")
            if "program" in change
            else reader.replace("np.savez(", "embeddings = {k: 2 * v for k, v in embeddings.items()}\n    np.savez(")
        )
        monkeypatch.setattr(stablehlo, "_READER", damaged)
        with pytest.raises(InputError, match=words):
            embed_elsewhere(folder, images, "visible", tolerance=1e-5)


def test_files_that_need_this_package_are_refused(written, config, tmp_path, monkeypatch):
    reader = tmp_path / "reader.py"
    reader.write_text("import sys\nsys.modules['icre_jax'] = None\nimport icre_jax\n")
    monkeypatch.setattr(stablehlo, "_READER", reader)
    with pytest.raises(InputError, match=r"without this package: ModuleNotFoundError.*icre_jax"):
        embed_elsewhere(written[0], images_of(config)["visible"], "visible", tolerance=1e-5)


def test_a_damaged_file_is_refused(written, config, tmp_path):
    content = (written[0] / "visible.stablehlo").read_bytes()
    (tmp_path / "visible.stablehlo").write_bytes(content[: len(content) // 2])
    (tmp_path / "stablehlo.json").write_bytes((written[0] / "stablehlo.json").read_bytes())
    with pytest.raises(InputError, match=r"without this package: visible\.stablehlo is not the file that"):
        embed_elsewhere(tmp_path, images_of(config)["visible"], "visible", tolerance=1e-5)


def test_without_flatbuffers(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(InputError, match="pip install flatbuffers"):
        write_stablehlo(tmp_path, None)
    assert not list(tmp_path.iterdir())
