"""Compiled programs are kept for the next start, in a folder of the user's: compiling is most of what a start takes."""

import os
import platform
import tempfile
from pathlib import Path

import jax


def keep_compiled_programs() -> Path | None:
    """Let JAX keep what it compiles in $XDG_CACHE_HOME/icre_jax (~/.cache/icre_jax), a folder for each machine.

    A program is found again by what it computes, with which versions and for which devices. One folder for each
    machine, as homes are shared and programs for the CPU fit the instructions of one. JAX_COMPILATION_CACHE_DIR names
    another folder, and JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.

    Returns:
      The folder; None where it cannot be written: a cache is no reason to stop.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return Path(jax.config.values["jax_compilation_cache_dir"])
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "icre_jax" / platform.node()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # the latter of a user without a home
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder
