"""Where compiled programs are kept."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import jax
from icre_jax.machine.caches import keep_compiled_programs
print(keep_compiled_programs())
jax.jit(lambda x: x + 1)(1.0)
"""


def start(**environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=clean | environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_programs_are_kept_in_the_users_cache_and_found_again(tmp_path):
    folder = start(XDG_CACHE_HOME=str(tmp_path))
    assert folder.startswith(str(tmp_path / "icre_jax"))
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "icre_jax").rglob("*-cache")}
    assert kept
    start(XDG_CACHE_HOME=str(tmp_path))
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "icre_jax").rglob("*-cache")} == kept


def test_the_users_own_folder_is_taken(tmp_path):
    assert start(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"), XDG_CACHE_HOME=str(tmp_path / "x")) == str(
        tmp_path / "mine"
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs a file where a folder should be")
def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    (tmp_path / "file").write_text("")
    assert start(XDG_CACHE_HOME=str(tmp_path / "file")) == "None"


def test_a_user_without_a_home_has_no_cache():
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("HOME", "XDG", "JAX"))}
    nobody = "import os\nos.setuid(4242)\n" if os.getuid() == 0 else "import pwd\ndel pwd.getpwuid\n"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import jax\nfrom icre_jax.machine import caches\n{nobody}print(caches.keep_compiled_programs())",
        ],
        env=alone,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
