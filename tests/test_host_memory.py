"""Freed memory is kept: what is asked for again does not come from the kernel again."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = """
import ctypes, resource, sys, threading
from icre_jax.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def use_and_free():
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(64 * 2**20)))
    ctypes.memset(block, 1, 64 * 2**20)
    libc.free(block)

def work():  # in a thread, as XLA's programs run
    use_and_free()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        use_and_free()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 8)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults_per_run(how: str) -> int:
    """Pages that the kernel gives for a block of 64 MiB that was used and freed before."""
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_a_block_that_is_used_again_is_not_cleared_by_the_kernel_again():
    # 16,384 pages of 4 KiB, or 32 of 2 MiB.
    assert faults_per_run("plain") >= 32
    assert faults_per_run("keep") < 8
