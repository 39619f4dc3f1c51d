"""Each notebook is the text beside it, holds no output, redefines nothing, and runs from the first cell to the last."""

import ast
import base64
import copy
import io
import itertools
import os
import re
from pathlib import Path

import jax
import jupytext
import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

import icre_jax
from icre_jax.data.stand_ins import render_few
from icre_jax.settings import flatten, parse
from tests.conftest import ROOT

FILES = sorted((ROOT / "colabs").glob("*.ipynb"))
NOTEBOOKS = {file.stem: nbformat.read(file, as_version=4) for file in FILES}
SHARED = ("The code", "Installation")
# A gradient needs a function, and the loss on the points of the plane is none of the package's.
MAY_HOLD_A_LAMBDA = {"icre_step_by_step": 1}


def sections_of(name: str) -> dict[str, str]:
    """Title -> code of the cell below it."""
    cells = NOTEBOOKS[name].cells
    return {
        before.source.splitlines()[0].lstrip("# "): cell.source
        for before, cell in itertools.pairwise(cells)
        if cell.cell_type == "code"
    }


def test_each_notebook_has_a_page_and_a_text():
    texts = {file.stem for file in (ROOT / "colabs").glob("*.py")}
    assert set(NOTEBOOKS) == texts == {"train_llcm_tpu", "explore_retrieval", "icre_step_by_step"}
    page = (ROOT / "docs" / "notebooks.md").read_text()
    assert all(f"`colabs/{name}.ipynb`" in page for name in NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_its_text(name):
    cells, text = NOTEBOOKS[name].cells, jupytext.read(ROOT / "colabs" / f"{name}.py")
    assert [(cell.cell_type, cell.source) for cell in cells] == [(cell.cell_type, cell.source) for cell in text.cells]
    assert 20 <= len(cells) <= 25
    for before, cell in itertools.pairwise(cells):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown"  # prose before code
            assert cell.outputs == []
            assert cell.execution_count is None
            assert len(cell.source.splitlines()) <= 20


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_cells_import_the_package_and_redefine_nothing(name):
    nodes = [node for source in sections_of(name).values() for node in ast.walk(ast.parse(source))]
    assert not [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert sum(isinstance(node, ast.Lambda) for node in nodes) == MAY_HOLD_A_LAMBDA.get(name, 0)


def test_the_code_is_found_and_installed_in_one_way():
    """tests/test_colab.py tries it, on one of them."""
    for title in SHARED:
        (cell,) = {sections_of(name)[title] for name in NOTEBOOKS}
        assert cell


def execute(name: str, folder: Path, added: str = "") -> tuple[str, int]:
    """Run all cells in a new process, with lines added to the parameters; what they print, and how many images.

    No image is of one colour.
    """
    notebook = copy.deepcopy(NOTEBOOKS[name])
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source += f"\n{added}\n"
    client = nbclient.NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})  # this copy of the package, whichever is installed
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    shown = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    for png in shown:
        assert np.std(Image.open(io.BytesIO(base64.b64decode(png))).convert("L")) > 5
    # What rich prints comes as display data.
    return "".join(output.get("text") or output.data.get("text/plain", "") for output in outputs), len(shown)


@pytest.mark.long
@pytest.mark.versions
def test_training_runs_twice_and_the_second_time_continues(config, tmp_path):
    """As after a disconnect: all cells again, in a new process; the finished run is not trained again."""
    fields = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in flatten(parse(config)).items()
        if name not in ("data.prepared_dir", "pretrained", "data.trial", "evaluation.exclude_same_camera")
    }
    texts = []
    for _ in range(2):
        text, num_images = execute("train_llcm_tpu", tmp_path, f"FIELDS = {fields!r}")
        assert num_images == 1
        texts.append(text)
    work = tmp_path / "icre_runs" / "synthetic"
    assert (work / "report.html").is_file()
    assert (work / "flip" / "results.json").is_file()
    assert (tmp_path / "icre_runs" / "exported" / "variables").is_dir()
    for text in texts:
        assert "installed already" in text
        assert "1 x cpu (cpu), JAX" in text
        assert "All is well." in text
        assert "all/single" in text
        assert "['README.md', 'SHA256SUMS', 'classes.json', 'config.json', 'provenance.json', 'variables']" in text
    assert "step 9/9" in texts[0]
    assert "step 9/9" not in texts[1]


@pytest.mark.long
@pytest.mark.versions
def test_exploring_runs_without_a_drive(tmp_path):
    text, num_images = execute("explore_retrieval", tmp_path)
    assert num_images == 5
    assert "<LoadedNetwork 'synthetic'" in text
    # Chance is 3 %.
    assert float(re.search(r"Rank-1: ([\d.]+)%", text)[1]) > 30
    assert float(re.search(r"FPIR ([\d.]+)%", text)[1]) <= 10
    enrolled, strangers = re.findall(r"(\d+) of (\d+) searches give candidates", text)
    assert int(enrolled[0]) / int(enrolled[1]) > int(strangers[0]) / int(strangers[1])
    same, others = re.findall(r"mean distance ([\d.]+)", text)
    assert float(same) < float(others) < 2
    assert "No folder of your own is named in the first cell." in text


@pytest.mark.long
def test_own_images_are_searched_for(tmp_path):
    few = render_few(3, (60, 30))
    for modality, images in few.items():
        (tmp_path / "own" / modality / "somebody").mkdir(parents=True)
        for i, image in enumerate(images):
            # One of the grey images as a camera may write it, with one channel.
            Image.fromarray(image[..., 0] if modality == "infrared" and i == 0 else image).save(
                tmp_path / "own" / modality / "somebody" / f"{i}.png"
            )
    net = icre_jax.load("synthetic")
    names = {"drive": tmp_path, "OWN_IMAGES": "own", "net": net, "plt": plt}
    exec(sections_of("explore_retrieval")["Your own images"], names)
    expected = net.embed(few["infrared"], modality="infrared") @ net.embed(few["visible"], modality="visible").T
    np.testing.assert_array_equal(names["found"].indices, np.argsort(-expected, axis=1))
    titles = [axis.get_title() for axis in names["figure"].axes]
    assert titles == ["2.png", *(f"{similarity:.2f}" for similarity in -np.sort(-expected[2]))]


@pytest.mark.long
@pytest.mark.versions
def test_the_method_runs_step_by_step(tmp_path):
    text, num_images = execute("icre_step_by_step", tmp_path)
    assert num_images == 5
    assert "2 devices" in text
    differences = [float(x) for x in re.findall(r"(?:largest difference.*:|F_en - F_4 - Delta:) ([\d.e-]+)", text)]
    assert len(differences) == 5
    assert max(differences) < 1e-4
    moved, difference = map(float, re.search(r"move by up to (.*); the two ways differ by up to (.*)", text).groups())
    assert 0 <= difference < moved / 50 < 1e-3
    # The loss at the start is that of guessing among twelve people.
    for value in re.search(r"loss/identity +([\d.]+) +([\d.]+)", text).groups():
        assert float(value) == pytest.approx(np.log(12), abs=0.01)


@pytest.mark.long
def test_the_icg_loss_brings_people_together_and_apart():
    names = {"np": np, "jax": jax, "plt": plt}
    exec(sections_of("icre_step_by_step")["The ICG loss, seen to move"], names)
    losses = [float(axis.get_title().split(": ")[1]) for axis in names["figure"].axes]
    assert losses[0] > 1
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01
    points = np.asarray(names["points"])
    centers = np.stack(
        [[points[(names["person"] == y) & (names["modality"] == m)].mean(axis=0) for m in range(2)] for y in range(3)]
    )
    for y, m, other in itertools.product(range(3), range(2), range(3)):
        if other != y:
            own = np.linalg.norm(centers[y, m] - centers[y, 1 - m])
            assert own < np.linalg.norm(centers[y, m] - centers[other], axis=1).min()
