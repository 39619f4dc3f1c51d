"""The notebook is the text beside it, holds no output, redefines nothing, and runs from the first cell to the last.

What it installs comes from the user, what fits the accelerator stays, and it ends where something is not as it should.
"""

import ast
import itertools
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

from icre_jax import doctor
from icre_jax.settings import flatten, parse
from tests.conftest import ROOT
from tests.test_requirements import KEPT

NOTEBOOK = ROOT / "colabs" / "train_llcm_tpu.ipynb"
CELLS = nbformat.read(NOTEBOOK, as_version=4).cells
CODE = [cell.source for cell in CELLS if cell.cell_type == "code"]
SECTIONS = {
    before.source.splitlines()[0].removeprefix("## "): cell.source
    for before, cell in itertools.pairwise(CELLS)
    if cell.cell_type == "code"
}


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


def run_section(title: str, **names) -> dict:
    """One code cell, with what the cells before it leave; what it leaves."""
    names |= {"sys": sys, "Path": Path, "shutil": shutil, "metadata": metadata}
    exec(compile(SECTIONS[title], title, "exec"), names)
    return names


@pytest.fixture
def absent(monkeypatch):
    """As on a runtime, where the package is not installed."""
    others = [found for found in metadata.distributions() if found.name != "icre_jax"]
    monkeypatch.setattr(metadata, "distributions", lambda: others)


@pytest.mark.parametrize("code", ["icre_jax", "", "absent/icre_jax", "icre_jax==0.1.0"])
def test_without_a_folder_or_an_address_nothing_is_installed(code, absent, tmp_path):
    """Above all nothing that somebody else may give that name in a package index."""
    with pytest.raises(RuntimeError, match=r"No code: no pyproject\.toml in .* is no Git address"):
        run_section("The code", drive=tmp_path, CODE=code)


def test_the_code_comes_from_the_folder_or_the_address_that_is_given(absent, tmp_path):
    folder = tmp_path / "code"
    for name in ("icre_jax/data/x.py", "pyproject.toml", "build/lib/icre_jax/old.py", ".git/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    copy = run_section("The code", drive=tmp_path, CODE="code")["source"]
    # A folder of an earlier build would put into the package what is gone from the code.
    assert {str(path.relative_to(copy)) for path in copy.rglob("*.*")} == {"icre_jax/data/x.py", "pyproject.toml"}
    for code in ("https://host.example/owner/icre_jax.git", "git+https://host.example/owner/icre_jax.git@branch"):
        source = run_section("The code", drive=tmp_path, CODE=code)["source"]
        assert source == "git+" + code.removeprefix("git+")


@pytest.mark.parametrize("returncode", [0, 1])
def test_pip_is_shown_and_keeps_what_fits_the_accelerator(returncode, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = []

    class Pip(subprocess.Popen):
        def __init__(self, command, **options):
            commands.append(command)
            lines = f"print('Collecting optax'); print('from below'); raise SystemExit({returncode})"
            super().__init__([sys.executable, "-c", lines], **options)

    monkeypatch.setattr(subprocess, "Popen", Pip)
    source, installed = "git+https://host.example/icre_jax.git", {found.name for found in metadata.distributions()}
    if returncode:
        with pytest.raises(RuntimeError, match="not installed"):
            run_section("Installation", source=source, installed=installed)
    else:
        kept = run_section("Installation", source=source, installed=installed)["kept"]
        assert kept.keys() >= {"jax", "jaxlib", "flax", "numpy"}
    assert capsys.readouterr().out == "Collecting optax\nfrom below\n"
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[4:] == ["--constraint", "kept.txt", source]
    lines = Path("kept.txt").read_text().splitlines()
    assert set(lines) >= {f"{name}=={metadata.version(name)}" for name in ("jax", "jaxlib", "flax", "numpy")}
    assert {line.split("==")[0] for line in lines} <= set(KEPT)
    assert all(f'"{name}"' in SECTIONS["Installation"] for name in KEPT)


def test_a_failed_verification_ends_the_notebook(tmp_path, monkeypatch):
    title = "Can this runtime train?"
    with pytest.raises(RuntimeError, match="did not stay"):
        run_section(title, home=tmp_path, kept={"jax": "0.1"})
    monkeypatch.setattr(doctor, "main", lambda arguments: 5)
    with pytest.raises(RuntimeError, match="cannot train"):
        run_section(title, home=tmp_path, kept={"jax": metadata.version("jax")})
    monkeypatch.setattr("google.protobuf.__version__", "5.29.6")
    with pytest.raises(RuntimeError, match="An older protobuf is in use: Runtime → Restart session"):
        run_section(title, home=tmp_path, kept={})


def test_data_that_is_not_sound_ends_the_notebook(llcm_tree, tmp_path, monkeypatch, capsys):
    title = "The data, and is it what it should be?"
    shutil.make_archive(str(tmp_path / "LLCM"), "zip", llcm_tree.parent)
    monkeypatch.chdir(tmp_path)
    run_section(title, drive=tmp_path, LLCM_ARCHIVE="LLCM.zip")
    assert capsys.readouterr().out == "sound\n"
    picture = next((tmp_path / "data" / "llcm").rglob("*.jpg"))
    picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(RuntimeError, match="LLCM is not what it should be: 1 errors, which stand above"):
        run_section(title, drive=tmp_path, LLCM_ARCHIVE="LLCM.zip")
    assert picture.name in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.versions
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
        assert "installed already" in text
        assert "1 x cpu (cpu), JAX" in text
        assert "All is well." in text
        assert "all/single" in text
        assert "['README.md', 'classes.json', 'config.json', 'provenance.json', 'variables']" in text
    assert "step 9/9" in texts[0]
    assert "step 9/9" not in texts[1]
