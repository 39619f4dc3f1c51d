"""The notebook is the text beside it, holds no output, redefines nothing, and runs from the first cell to the last."""

import ast

import jupytext
import nbclient
import nbformat
import pytest

from icre_jax.settings import flatten, parse
from tests.conftest import ROOT

NOTEBOOK = ROOT / "colabs" / "train_llcm_tpu.ipynb"
CODE = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]


def test_the_notebook_is_its_text():
    notebook, text = nbformat.read(NOTEBOOK, as_version=4), jupytext.read(NOTEBOOK.with_suffix(".py"))
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ]
    assert 20 <= len(notebook.cells) <= 25
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown"  # prose before code
            assert cell.outputs == []
            assert cell.execution_count is None
            assert len(cell.source.splitlines()) <= 15


@pytest.mark.parametrize("source", CODE)
def test_a_cell_imports_the_package_and_redefines_nothing(source):
    nodes = list(ast.walk(ast.parse(source)))
    assert not [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]
    if "pip" in source:
        assert "jax==" in source
        assert "--constraint" in source


def test_the_notebook_runs_twice_and_the_second_time_continues(config, tmp_path):
    """As after a disconnect: all cells again, in a new process; the finished run is not trained again."""
    fields = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in flatten(parse(config)).items()
        if name not in ("data.prepared_dir", "pretrained", "data.trial", "evaluation.exclude_same_camera")
    }
    texts = []
    for _ in range(2):
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        parameters.source += f"\nFIELDS = {fields!r}\n"
        nbclient.NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        # What rich prints comes as display data.
        texts.append("".join(output.get("text") or output.data.get("text/plain", "") for output in outputs))
    work = tmp_path / "icre_runs" / "synthetic"
    assert (work / "report.html").is_file()
    assert (work / "flip" / "results.json").is_file()
    assert (tmp_path / "icre_runs" / "exported" / "variables").is_dir()
    for text in texts:
        assert "1 x cpu (cpu), JAX" in text
        assert "all/single" in text
        assert "['classes.json', 'config.json', 'variables']" in text
    assert "step 9/9" in texts[0]
    assert "step 9/9" not in texts[1]
