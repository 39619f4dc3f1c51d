"""Read first by every Python process of a disturbed run (tests/test_soak.py): clocks that jump, disks that fail.

ICRE_JAX_DISTURBED says what: "clock", "slow_disk" or "full_disk". What is random is a function of
ICRE_JAX_DISTURBED_SEED.
"""

import builtins
import errno
import io
import os
import random
import time

KIND = os.environ.get("ICRE_JAX_DISTURBED", "")
DRAW = random.Random(int(os.environ.get("ICRE_JAX_DISTURBED_SEED", "0")))
DAY = 86_400


def disturb_clock() -> None:
    """The time of day jumps by up to a day, forward and back; the clock that only goes forward does so still."""
    real, offset = time.time, [0.0]

    def jumping() -> float:
        if DRAW.random() < 0.02:
            offset[0] = DRAW.uniform(-DAY, DAY)
        return real() + offset[0]

    time.time = jumping
    time.time_ns = lambda: int(jumping() * 1e9)


def disturb_disk(*, full: bool) -> None:
    """Opening a file of the run to write waits, or fails for half a minute as on a disk without space."""
    real_open, real_mkdir = io.open, os.mkdir
    began = time.monotonic() + DRAW.uniform(5, 30)

    def suffer(path: object) -> None:
        if "/disturbed/run" not in str(path):
            return
        if full and began < time.monotonic() < began + 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if not full:
            time.sleep(DRAW.uniform(0, 0.05))

    def opening(file, mode="r", *args, **kwargs):
        if isinstance(mode, str) and set(mode) & set("wax+"):
            suffer(file)
        return real_open(file, mode, *args, **kwargs)

    def making(path, *args, **kwargs):
        suffer(path)
        return real_mkdir(path, *args, **kwargs)

    io.open = builtins.open = opening
    os.mkdir = making


if KIND == "clock":
    disturb_clock()
elif KIND in ("slow_disk", "full_disk"):
    disturb_disk(full=KIND == "full_disk")
