"""`python -m icre_jax` and the console script: the list of commands, how they start from it, what is not imported."""

import json
import subprocess
import sys
import tomllib

import numpy as np
import pytest

import icre_jax
from icre_jax.__main__ import COMMANDS, describe_commands
from icre_jax.evals.results import write_results
from tests.conftest import ROOT, flags_of, refused, run_command
from tests.test_average import facts, result

# What pip writes into a console script.
SCRIPT = "import sys; from icre_jax.__main__ import main; sys.exit(main())"


def run_script(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def run_either(how: str, *arguments: str) -> subprocess.CompletedProcess:
    return run_command("icre_jax", *arguments) if how == "module" else run_script(*arguments)


def test_every_command_has_one_line():
    lines = describe_commands().splitlines()
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    for line in lines:
        assert len(line) <= 120
        assert len(line.split()) > 3
        assert "`" not in line


def test_pip_makes_the_script():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"icre_jax": "icre_jax.__main__:main"}


@pytest.mark.parametrize("how", ["module", "script"])
def test_the_list_and_the_version(how):
    for arguments in ((), ("--help",), ("-h",)):
        process = run_either(how, *arguments)
        assert process.returncode == 0, process.stderr
        assert describe_commands() in process.stdout
        assert process.stderr == ""
        assert max(map(len, process.stdout.splitlines())) <= 120
    process = run_either(how, "--version")
    assert (process.returncode, process.stdout, process.stderr) == (0, f"{icre_jax.__version__}\n", "")


@pytest.mark.parametrize("how", ["module", "script"])
@pytest.mark.parametrize("word", ["trian", "settings", "__main__", "--verison", ""])
def test_what_is_no_command(how, word):
    process = run_either(how, word, "--config", "configs/synthetic.py")
    refused(process, f"error: There is no command {word!r}. Commands, as", describe_commands())
    assert process.stdout == ""


@pytest.mark.parametrize("how", ["module", "script"])
def test_a_command_calls_itself_what_the_user_called_it(how):
    process = run_either(how, "train", "--help")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("usage: icre_jax train ")
    assert run_command("icre_jax.train", "--help").stdout.startswith("usage: python -m icre_jax.train ")


@pytest.mark.parametrize("how", ["module", "script"])
def test_the_exit_code_is_that_of_the_command(how, tmp_path):
    (tmp_path / "config.py").write_text("def get_config():\n    return 7\n")
    refused(run_either(how, "score", "--protocol", "regdb"), "usage: icre_jax score", "--query")
    refused(run_either(how, "train", "--config", str(tmp_path / "config.py")), "must return an ml_collections")
    write_results(tmp_path / "1", [result(0.1)], facts(1))
    process = run_either(how, "average", "--workdirs", str(tmp_path / "1"), "--out", str(tmp_path / "mean"))
    refused(process, "A mean needs at least 2 runs, not 1")


def test_another_code_than_0_and_2_passes_as_well(config, tmp_path, monkeypatch):
    """The doctor's 5, where JAX finds no device."""
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    process = run_script("doctor", *flags_of(config), "--workdir", str(tmp_path))
    assert process.returncode == 5, process.stderr
    assert "Broken: devices, disk, one step." in process.stdout


WATCHED = """
import json, runpy, sys
file, module, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as leaving:
    assert not leaving.code, leaving.code
with open(file, "w") as opened:
    json.dump([*sys.modules], opened)
"""


@pytest.fixture
def libraries(tmp_path):
    """Starts a command as `python -m` does; the libraries that were imported by its end."""

    def run(module: str, *arguments: str) -> set[str]:
        file = tmp_path / "modules.json"
        command = [sys.executable, "-c", WATCHED, str(file), module, *arguments]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert process.returncode == 0, process.stdout + process.stderr
        return {name.split(".")[0] for name in json.loads(file.read_text())}

    return run


def test_importing_the_package_imports_no_library():
    code = "import icre_jax, sys; print(*{*sys.modules} & {'jax', 'flax', 'numpy', 'absl', 'pydantic'})"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout == "\n"


def test_the_list_imports_no_library(libraries):
    assert not libraries("icre_jax") & {"jax", "flax", "numpy", "absl", "pydantic"}


def test_what_needs_no_network_imports_no_jax(libraries, config, tree, tmp_path):
    """Not even on the way: each does its work here."""
    for name in ("query", "gallery"):
        np.savez(
            tmp_path / f"{name}.npz", features=np.eye(4, dtype=np.float32), pid=np.arange(4), camid=np.ones(4, int)
        )
    files = ("--query", str(tmp_path / "query.npz"), "--gallery", str(tmp_path / "gallery.npz"))
    for trial in (1, 2):
        write_results(tmp_path / str(trial), [result(trial / 10)], facts(trial))
    config.data.prepared_dir = str(tmp_path / "prepared")
    for module, arguments in {
        "score": ("--protocol", "regdb", *files),
        "average": ("--workdirs", str(tmp_path / "1"), str(tmp_path / "2"), "--out", str(tmp_path / "mean")),
        "verify": ("--dataset", "sysu_mm01", "--data_dir", str(tree)),
        "prepare": flags_of(config),
    }.items():
        found = libraries(f"icre_jax.{module}", *arguments)
        assert "numpy" in found
        assert not found & {"jax", "flax", "orbax", "torch", "tensorflow"}, module
    assert (tmp_path / "prepared" / "sysu_mm01").is_dir()
