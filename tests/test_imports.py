"""What a command imports at its start: what it needs, and nothing else that takes long.

Imports at the head of files are followed from every door, without importing anything. What stands in a function is
imported where it is called.
"""

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from icre_jax.__main__ import COMMANDS
from tests.conftest import ROOT

TABLES = {"ablate", "sweep", "noise"}
NETWORKS = {"embed", "index", "search", "calibrate", "export", "convert"}  # what they do needs no test data
SCORED = {"train", "evaluate", "visualize", "doctor"}
RECORDS = {*SCORED, "export"}
# Library or room -> the commands that import it at their start, however far down.
IMPORTED_BY = {
    "jax": {*NETWORKS, *SCORED, "describe", "serve"},
    "flax": {*NETWORKS, *SCORED, "describe"},
    "orbax": {*NETWORKS, *SCORED},
    "optax": {*SCORED, "describe"},
    "grain": RECORDS,
    "tensorflow_datasets": {*RECORDS, *TABLES, "prepare"},
    "scipy": {"ablate", "noise"},
    "matplotlib": {*TABLES, "visualize"},
    "jinja2": {*TABLES, "train", "search", "calibrate"},
    "sklearn": set(),
    "ray": set(),
    "pyarrow": set(),
    "starlette": set(),
    "uvicorn": set(),
    "huggingface_hub": set(),
    "tensorboardX": set(),
    "icre_jax.training": {"train"},
    "icre_jax.losses": {*SCORED, "describe"},
    "icre_jax.rendering": {*RECORDS - {"doctor"}, *TABLES, "prepare", "verify"},
    "icre_jax.identify": {"index", "search", "calibrate"},
    "icre_jax.serving": set(),
    "icre_jax.fleet": {"embed", "search"},
    "icre_jax.experiments": TABLES,
    "icre_jax.inspection": {"visualize"},
    "icre_jax.costs": {"describe"},
    "icre_jax.health": {"doctor"},
}


def file_of(module: str) -> Path | None:
    """The source of a module of the package; None of anything else."""
    place = ROOT.joinpath(*module.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if module.startswith("icre_jax") and file.is_file()), None)


def run_at_import(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.Import | ast.ImportFrom):
            yield inner
        elif not isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not (
            isinstance(inner, ast.If) and ast.unparse(inner.test) == "TYPE_CHECKING"
        ):
            yield from run_at_import(inner)


@functools.cache
def imports_of(file: Path) -> frozenset[str]:
    """What a file imports when it is imported, and all packages that this is in."""
    names = set()
    for node in run_at_import(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names]
    return frozenset(".".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1))


@functools.cache
def all_imports(module: str) -> set[str]:
    """Names that are imported with a module, however far down."""
    found, left = set(), {module}
    while left:
        name = left.pop()
        found.add(name)
        file = file_of(name)
        if file is not None:
            left |= imports_of(file) - found
    return found


@pytest.mark.parametrize("what", IMPORTED_BY)
def test_only_commands_that_need_it_import_it_at_their_start(what):
    assert {name for name in COMMANDS if what in all_imports(f"icre_jax.{name}")} == IMPORTED_BY[what]


def test_what_is_imported_where_it_is_called_is_not_counted(tmp_path):
    file = tmp_path / "a.py"
    file.write_text(
        "import a\nfrom b.c import d\nif TYPE_CHECKING:\n    import e\n"
        "try:\n    import f\nexcept ImportError:\n    pass\n"
        "class G:\n    import h\n    def i(self):\n        import j\n"
    )
    assert imports_of(file) == {"a", "b", "b.c", "b.c.d", "f", "h"}


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_python_imports_the_same(name):
    """The libraries import others too, and none of these may be one that was meant to stay away."""
    code = f"import json, sys, icre_jax.{name}; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    there = set(json.loads(done.stdout))
    assert {what for what in IMPORTED_BY if what in there} == {
        what for what, names in IMPORTED_BY.items() if name in names
    }
