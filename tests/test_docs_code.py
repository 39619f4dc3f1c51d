"""Python in the pages: it parses, what it imports is there, and, but for what needs other libraries, a test runs it."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import icre_jax
from configs import synthetic, sysu_mm01
from icre_jax.evals.results import write_results
from icre_jax.retrieval.index import Entry, GalleryIndex
from icre_jax.settings import parse, to_json
from tests.conftest import ROOT
from tests.test_average import facts, result

# Pages whose code needs what is not installed for the tests, or is an excerpt of a file.
NOT_RUN = {"onnx.md", "pretrained.md", "design.md"}


def blocks_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


PAGES = [str(path.relative_to(ROOT / "docs")) for path in sorted((ROOT / "docs").rglob("*.md"))]


def run(page: str, number: int = 0, **names):
    exec(compile(blocks_of(page)[number], f"docs/{page}", "exec"), names)
    return names


@pytest.fixture(scope="module")
def net():
    return icre_jax.load("synthetic")


def test_every_page_with_code_is_run_by_a_test():
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for page in PAGES:
        if blocks_of(page) and page not in NOT_RUN:
            assert (
                f'compile(block, "docs/{page}"' in tests
                or f'"docs/{page}", "exec"' in tests
                or (f'run("{page}"' in tests)
            ), f"no test runs the code of docs/{page}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)])
def test_it_parses_and_imports_what_is_there(page):
    for block in blocks_of(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("icre_jax", "configs"):
                exec(compile(ast.Module([node], []), page, "exec"), {})


def test_the_loop_is_that_of_the_file():
    code = (ROOT / "icre_jax" / "training" / "loop.py").read_text()
    (block,) = blocks_of("design.md")
    assert all(line.strip() in code for line in block.splitlines() if "..." not in line)


def test_a_config_of_ones_own_for_the_paper():
    settings = parse(run("matching_the_paper.md")["get_config"]("baseline"))
    assert (settings.model.mpfr.taps, settings.loss.icg_rho1) == ((2, 3, 4), 0.5)
    assert settings.data == parse(sysu_mm01.get_config("baseline")).data


def test_an_old_run_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = synthetic.get_config()
    for name, seed in (("mine", 0), ("other", 1)):
        config.seed = seed
        write_results(tmp_path / "runs" / name, [result(0.5)], facts(1) | {"command": "as it was"})
        Path("runs", name, "config.json").write_text(to_json(parse(config)))
    run("how_to/read_an_old_run.md")
    first, second = capsys.readouterr().out.splitlines()
    assert first == "seed: 0 -> 1"
    assert "0.5" in second
    assert second.endswith("as it was")


def test_a_part_is_taken_out(net):
    names = run("network.md", 1, variables=net.variables)
    assert names["removal"].parts_of(net.variables["params"])[:3] == ["masks", "guide", "cross_attention"]
    outputs, _ = net.network.apply(
        names["reduced"], np.zeros((1, *net.image_size, 3), np.float32), modality="visible", train=False
    )
    assert outputs["embeddings"].shape == (1, net.size)


def test_a_pair_is_explained(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(1).integers(0, 256, (2, 96, 48, 3), np.uint8)
    for name, image in zip(("infrared.png", "one.jpg"), images, strict=True):
        Image.fromarray(image).save(name)
    names = run("visualize.md")
    assert names["query"].shape == names["candidate"].shape == (*net.image_size, 3)
    assert -1 <= names["seen"].similarity <= 1


def test_a_gallery_is_searched(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (3, 96, 48, 3), np.uint8)
    Image.fromarray(images[0]).save("who.png")
    vectors = net.embed(images, modality="infrared")
    preprocessing = {"image_size": list(net.image_size), "flip": False}
    GalleryIndex.create(
        Path("gallery"), vectors, [Entry(f"{n}.png", "", None, "visible", "/") for n in range(3)],
        model_hash=net.model_hash, origin="synthetic", preprocessing=preprocessing,
    )  # fmt: skip
    assert run("search_gallery.md")["found"].indices[0, 0] == 0


@pytest.mark.long
def test_a_run_is_trained(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic, "get_config", lambda: small)
    outcome = run("training.md")["outcome"]
    assert outcome.last[0].mean["rank1"] == pytest.approx(float(capsys.readouterr().out.splitlines()[-1]))
    assert (tmp_path / "runs" / "mine" / "results.json").is_file()
