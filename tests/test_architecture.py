"""Who may import whom (docs/design.md), held by reading the imports of every file."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "icre_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# Room -> rooms of the package it may import. "errors" and "settings" may be imported by all.
FREE = {"errors", "settings", ""}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "settings": set(),
    "models": set(),
    "losses": set(),
    "data": set(),
    "evals": set(),
    "ablation": {"command", "evals", "report", "stop"},
    "report": {"evals"},
    "optimizer": set(),
    "stop": set(),
    "state": {"models"},
    "steps": {"models", "state"},
    "parallel": {"hosts", "models", "state", "steps"},
    "checkpoint": {"state"},
    "pretrained": set(),
    "runlog": {"evals"},
    "provenance": {"data"},
    "command": set(),
    "compile_cache": set(),
    "host_memory": set(),
    "hosts": set(),
    "lock": set(),
    "convert": {"checkpoint", "command", "models", "pretrained"},
    "program": {"losses", "models", "optimizer", "state", "steps"},
    "costs": {"models", "parallel", "program", "sourced", "state", "steps"},
    "sourced": set(),
    "prepare": {"command", "data", "runlog"},
    "trained": {"checkpoint", "data", "models", "prepare", "runlog", "state"},
    "verify": {"command", "data", "runlog"},
    "evaluate": {
        "command", "compile_cache", "data", "evals", "host_memory", "models", "parallel", "provenance", "runlog",
        "steps", "trained",
    },
    "export": {"checkpoint", "command", "compile_cache", "data", "runlog", "steps", "trained"},
    "score": {"command", "evals"},
    "average": {"command", "evals"},
    "run": {
        "checkpoint", "data", "evals", "evaluate", "optimizer", "parallel", "pretrained", "program", "state",
    },
    "saving": {"checkpoint", "hosts", "run", "runlog", "state"},
    "divergence": {"checkpoint", "data", "hosts", "run", "state"},
    "replay": {"checkpoint", "data", "divergence", "prepare", "run", "runlog", "state"},
    "health": {"data", "parallel", "program"},
    "doctor": {"command", "compile_cache", "health", "runlog"},
    "finish": {
        "checkpoint", "data", "evals", "hosts", "prepare", "provenance", "report", "run", "runlog", "saving", "state",
    },
    "ablate": {"ablation", "command", "data", "lock", "models", "prepare", "report", "runlog", "state"},
    "train": {
        "checkpoint", "command", "compile_cache", "data", "divergence", "evals", "finish", "host_memory", "hosts",
        "lock", "prepare", "replay", "run", "runlog", "saving", "state", "stop",
    },
    "describe": {
        "command", "costs", "data", "parallel", "program", "provenance", "runlog", "sourced", "state",
    },
}  # fmt: skip


def imports_of(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_what_it_may(file):
    room = room_of(file)
    used = {name.split(".")[1] for name in imports_of(file) if name.startswith("icre_jax.")}
    forbidden = used - FREE - ALLOWED.get(room, set()) - {room}
    assert not forbidden, f"icre_jax/{room} may not import {sorted(forbidden)}; see docs/design.md"


def test_every_room_is_on_the_list():
    assert {room_of(file) for file in FILES} - {""} == set(ALLOWED)


def users_of(library: str) -> set[str]:
    return {
        room_of(file)
        for file in FILES
        if any(name == library or name.startswith(library + ".") for name in imports_of(file))
    }


def test_libraries_stay_in_their_rooms():
    assert users_of("flax.linen") == {"models"}
    assert users_of("orbax") == {"checkpoint"}
    assert users_of("grain") == {"data"}
    assert users_of("safetensors") == {"pretrained"}
    assert users_of("scipy") == {"data", "evals"}
    assert users_of("tensorflow_datasets") == {"data"}
    assert not users_of("jax") & {"data", "evals", "pretrained", "report", "settings"}
    for library in ("torch", "tensorflow", "clu", "pickle", "cv2", "dill"):
        assert not users_of(library)


def test_configs_import_only_each_other():
    for file in sorted((ROOT / "configs").glob("*.py")):
        names = {name.split(".")[0] for name in imports_of(file)}
        assert names <= {"configs", "ml_collections"}, file


def test_no_stray_files():
    assert not [file for file in FILES if file.stem in ("utils", "util", "helpers", "misc", "common")]
