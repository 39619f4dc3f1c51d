"""Freed memory is kept: a program that runs again does not ask the kernel for its temporaries again."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = """
import resource, sys
from icre_jax.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
import jax, jax.numpy as jnp
x = jnp.ones((4096, 64))
program = jax.jit(lambda x: (x @ x.T) @ x)
for _ in range(3):
    program(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    program(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 8)
"""


def faults_per_run(how: str) -> int:
    """Pages that the kernel has to give each time the program runs."""
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_temporaries_are_not_cleared_by_the_kernel_for_every_run():
    # 4,096 x 4,096 float32 are 64 MiB: 16,384 pages of 4 KiB, or 32 of 2 MiB.
    plain, kept = faults_per_run("plain"), faults_per_run("keep")
    assert plain >= 32
    assert kept < plain / 4
