"""Memory that one step gives back is kept for the next one.

XLA's CPU backend asks for the temporaries of a program each time it runs, in one block. glibc takes blocks of that size
from the kernel and gives them back when they are freed, so that each step begins with the kernel clearing all of it
again: an eighth of the time of a step (`docs/benchmarks.md`).
"""

import ctypes
import os
import platform

# Names of <malloc.h>, which Python does not have.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MOST = 2**31 - 1  # mallopt takes an int
_SHARE = 8  # of the machine's memory: a larger block would be missed elsewhere if it had to be kept twice


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed: blocks of up to an eighth of the machine's memory, and 2 GiB.

    To be called before JAX starts its devices. Nothing is done elsewhere than on Linux with glibc, nor where the user
    tells glibc's malloc by GLIBC_TUNABLES what to do (`docs/training.md`).
    """
    if platform.libc_ver()[0] != "glibc" or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    keep = min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _SHARE, _MOST)
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_THRESHOLD, keep)
    mallopt(_TRIM_THRESHOLD, keep)
    # Threads get arenas of their own otherwise, and these never hold a block of more than 64 MiB.
    mallopt(_ARENA_MAX, 1)
