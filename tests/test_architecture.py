"""Who may import whom (docs/design.md), held by reading the imports of every file.

A room is a folder of the package, or a loose module at its root; `configs`, `benchmarks` and `colabs` are rooms too. An
arrow is an ordered pair of rooms of which one imports the other.
"""

import ast
import functools
from pathlib import Path

import pytest

from icre_jax.__main__ import COMMANDS
from tests.conftest import ROOT

PACKAGE = ROOT / "icre_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
OTHERS = [file for name in ("configs", "benchmarks", "colabs") for file in sorted((ROOT / name).glob("*.py"))]
# On average; the first version had 4.7.
MOST_ARROWS_PER_ROOM = 3.5

# Importable by all, and among each other in this order.
GROUND_FLOOR = ("errors", "files", "sums", "datasets", "settings", "sourced")
DOORS = (*COMMANDS, "__main__")
# `import icre_jax` is the door of programs: `icre_jax.load` imports this when it is called.
ALLOWED_OF_THE_PACKAGE = {"engine"}
# Room -> rooms that it may import beside the ground floor.
ALLOWED: dict[str, set[str]] = {
    "models": set(),
    "losses": set(),
    "rendering": set(),
    "data": {"rendering"},
    "evals": set(),
    "retrieval": {"evals"},
    "machine": set(),
    "engine": {"models", "losses", "data", "evals", "retrieval", "machine"},
    "figures": set(),
    "report": {"evals", "figures"},
    "fleet": {"retrieval"},
    "identify": {"engine", "data", "evals", "retrieval", "report", "machine"},
    "serving": {"engine", "data", "retrieval", "identify", "machine"},
    "training": {"engine", "data", "evals", "report", "machine"},
    "experiments": {"data", "evals", "figures", "report", "machine"},
    "inspection": {"engine", "data", "evals", "figures"},
    "costs": {"engine", "models", "data", "machine"},
    "health": {"engine", "data", "machine"},
}


@functools.cache
def imports_of(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "icre_jax" else parts[0]


def rooms_imported(file: Path) -> set[str]:
    """Rooms that a file imports; the package itself, for its version, is none."""
    rooms = set()
    for name in imports_of(file):
        first, *rest = name.split(".")
        if first == "icre_jax" and rest:
            rooms.add(rest[0])
        elif first in ("configs", "benchmarks", "colabs"):
            rooms.add(first)
    return rooms - {room_of(file)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_what_it_may(file):
    room, used = room_of(file), rooms_imported(file)
    assert not used & set(DOORS), f"{file} imports a door"
    if room in GROUND_FLOOR:
        allowed = set(GROUND_FLOOR[: GROUND_FLOOR.index(room)])
    elif room == "__init__":
        allowed = ALLOWED_OF_THE_PACKAGE
    elif room in DOORS:
        allowed = {*GROUND_FLOOR, *ALLOWED, "configs"}
    else:
        allowed = {*GROUND_FLOOR, *ALLOWED.get(room, set())}
    assert not used - allowed, f"icre_jax/{room} may not import {sorted(used - allowed)}; see docs/design.md"


def test_the_root_holds_doors_and_the_ground_floor_only():
    loose = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert loose | folders == {*DOORS, *GROUND_FLOOR, *ALLOWED}
    assert not folders & {*DOORS}
    assert loose <= {*DOORS, *GROUND_FLOOR}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_door_is_short_and_only_a_door(name):
    text = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    functions = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert [function for function in functions if not function.startswith("_")] == ["main"]


def test_few_arrows_and_no_circle(capsys):
    arrows: dict[str, set[str]] = {}
    for file in FILES + OTHERS:
        arrows.setdefault(room_of(file), set()).update(rooms_imported(file))
    # The notebooks show what is in the rooms, one after the other, and nobody imports them.
    of_the_house = {room: used for room, used in arrows.items() if room != "colabs"}
    number = sum(map(len, of_the_house.values()))
    with capsys.disabled():
        print(f"\n{len(of_the_house)} rooms, {number} arrows between them")
    assert number <= MOST_ARROWS_PER_ROOM * len(of_the_house)
    while arrows:
        free = {room for room, used in arrows.items() if not used & arrows.keys()}
        assert free, f"a circle among {sorted(arrows)}"
        arrows = {room: used for room, used in arrows.items() if room not in free}


def users_of(library: str) -> set[str]:
    return {
        room_of(file)
        for file in FILES
        if any(name == library or name.startswith(library + ".") for name in imports_of(file))
    }


def test_libraries_stay_in_their_rooms():
    assert users_of("flax.linen") == {"models"}
    of_orbax = {file.parent for file in FILES if any(name.startswith("orbax") for name in imports_of(file))}
    assert of_orbax == {PACKAGE / "engine" / "checkpoint"}
    assert [file.stem for file in FILES if any(n.startswith("safetensors") for n in imports_of(file))] == ["tensors"]
    assert users_of("pyarrow") == {"evals"}
    assert users_of("starlette") == users_of("uvicorn") == {"serving"}
    assert users_of("ray") == {"fleet"}
    assert users_of("grain") == {"data"}
    assert users_of("sklearn") == {"figures"}
    assert users_of("scipy") == {"evals", "retrieval", "experiments"}
    assert users_of("tensorflow_datasets") == {"data"}
    assert not users_of("jax") & {*GROUND_FLOOR, "data", "evals", "rendering", "figures", "report", "experiments"}
    for library in ("torch", "tensorflow", "clu", "pickle", "cv2", "dill"):
        assert not users_of(library)


def test_configs_import_only_each_other():
    for file in sorted((ROOT / "configs").glob("*.py")):
        names = {name.split(".")[0] for name in imports_of(file)}
        assert names <= {"configs", "ml_collections"}, file


def test_nobody_passes_the_parts_of_a_session_apart():
    apart = {"state", "checkpoints", "log", "screen"}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
                assert not apart <= names, f"{file}: {node.name}"


def test_no_stray_files():
    assert not [file for file in FILES if file.stem in ("utils", "util", "helpers", "misc", "common")]


# Calls that read a file, and libraries that do nothing else; `icre_jax.files` alone may, and what stands below.
READ_CALLS = {
    *("np.load", "np.memmap", "np.fromfile", "np.loadtxt", "np.genfromtxt", "np.lib.format.open_memmap"),
    *("json.load", "json.loads", "csv.reader", "csv.DictReader", "Image.open", "loadmat", "scipy.io.loadmat"),
}
READ_METHODS = {"read_text", "read_bytes"}
READ_LIBRARIES = {"zipfile", "tarfile", "gzip", "bz2", "lzma", "shelve", "marshal", "scipy.io", "mmap", "tomllib"}
# (file, what it calls) -> why nobody else can have written what is read.
READ_BY_ITSELF = {
    ("__main__", "read_text"): "the package's own source",
    ("report/found", "read_text"): "a template of the package",
    ("report/write", "read_text"): "a template of the package",
    ("serving/application", "read_bytes"): "the page, of the package",
    ("machine/hosts", "json.loads"): "what the processes of a run tell each other, in memory",
    ("rendering/worker", "json.loads"): "the argument that its parent started it with",
    ("rendering/writers", "json.loads"): "a value of its own, through JSON and back",
    ("experiments/processes", "read_text"): "the end of what a process that it started has printed",
    ("engine/stablehlo_reader", "np.load"): "what its parent wrote; it may use nothing of the package",
    ("engine/stablehlo_reader", "json.loads"): "what its parent wrote; it may use nothing of the package",
    ("engine/stablehlo_reader", "read_text"): "what its parent wrote; it may use nothing of the package",
    ("engine/stablehlo_reader", "read_bytes"): "what its parent wrote; it may use nothing of the package",
}


def reads_of(file: Path) -> set[str]:
    """What a file calls or imports to read files."""
    imported = imports_of(file)
    found = {name for name in READ_LIBRARIES if any(used == name or used.startswith(f"{name}.") for used in imported)}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in READ_CALLS:
            found.add(called)
        elif isinstance(node.func, ast.Attribute) and node.func.attr in READ_METHODS:
            found.add(node.func.attr)
        elif called.split(".")[-1] == "open" and opens_to_read(called, node.args):
            found.add("open")
    return found


def opens_to_read(called: str, arguments: list[ast.expr]) -> bool:
    """Of `path.open(mode)` and `open(path, mode)`; `GalleryIndex.open(folder)` is another thing."""
    given = arguments[1:] if called in ("open", "os.open", "io.open") else arguments
    if given and not isinstance(given[0], ast.Constant):
        return called == "os.open" and "O_WRONLY" not in ast.unparse(given[0])
    return not given or not set(str(given[0].value)) & set("wax")


def test_files_of_anybody_are_read_in_one_room():
    reads = {
        (file.relative_to(PACKAGE).with_suffix("").as_posix(), what)
        for file in FILES
        if room_of(file) != "files"
        for what in reads_of(file)
    }
    assert reads - READ_BY_ITSELF.keys() == set(), "read it by icre_jax.files, or say why not in READ_BY_ITSELF"
    assert READ_BY_ITSELF.keys() - reads == set(), "not read any more"


def test_the_look_at_reads_sees_them(tmp_path):
    file = tmp_path / "a.py"
    for text, what in (
        ("import json\njson.loads('1')", "json.loads"),
        ("from pathlib import Path\nPath('a').open('rb')", "open"),
        ("from pathlib import Path\nPath('a').open(encoding='utf-8')", "open"),
        ("open('a')", "open"),
        ("from zipfile import ZipFile", "zipfile"),
        ("import numpy as np\nnp.load('a')", "np.load"),
        ("def f(path): return path.read_text()", "read_text"),
    ):
        file.write_text(text)
        imports_of.cache_clear()
        assert reads_of(file) == {what}
    file.write_text("Index.open(folder)\npath.open('wb')\npath.open('a')\nopen(path, 'w')\n")
    imports_of.cache_clear()
    assert reads_of(file) == set()
