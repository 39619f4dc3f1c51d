"""What a notebook does on a runtime of Colab before it can begin, tried on one of them.

What it installs comes from the user, what fits the accelerator stays, and it ends where something is not as it should.
"""

import importlib
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from icre_jax import doctor
from tests.test_notebooks import sections_of
from tests.test_requirements import KEPT

SECTIONS = sections_of("train_llcm_tpu")


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


@pytest.mark.parametrize("changed", ["jax", "numpy", "protobuf"])
def test_an_installation_that_changed_what_is_in_use_ends_the_notebook(changed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    importlib.import_module("google.protobuf")
    version = metadata.version

    class Pip(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", "pass"], **options)
            monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == changed else version(name))

    monkeypatch.setattr(subprocess, "Popen", Pip)
    installed = {found.name for found in metadata.distributions()}
    message = "An older protobuf is in use: Runtime → Restart session" if changed == "protobuf" else "did not stay"
    with pytest.raises(RuntimeError, match=message):
        run_section("Installation", source="git+https://host.example/icre_jax.git", installed=installed)


def test_a_runtime_that_cannot_train_ends_the_notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "main", lambda arguments: 5)
    with pytest.raises(RuntimeError, match="cannot train"):
        run_section("Can this runtime train?", home=tmp_path)


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
