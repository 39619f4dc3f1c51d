"""Commands in processes of their own: some at a time, each on its share of the cores; stopped together."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Literal

from icre_jax.errors import InputError
from icre_jax.experiments.runs import Run
from icre_jax.machine import command
from icre_jax.machine.stop import StopRequest

_TAIL = 12  # lines of a failed run that are shown
_POLL_SECONDS = 0.1
_MOST_PARALLEL = 1024  # runs, where the number of cores cannot be had


class RunFailedError(Exception):
    """A run ended with an error; `code` is the exit code for the whole command."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def share_cores(num_parallel: int) -> list[set[int] | None]:
    """The cores of each of the runs that go at a time; None where the platform cannot say (or one run has them all).

    Raises:
      InputError: no run at a time, or more than there are cores.
    """
    if not 1 <= num_parallel <= _MOST_PARALLEL:
        raise InputError(f"--num_parallel is {num_parallel}; allowed are 1 to {_MOST_PARALLEL:,} runs at a time.")
    if num_parallel == 1 or not hasattr(os, "sched_getaffinity"):
        return [None] * num_parallel
    cores = sorted(os.sched_getaffinity(0))
    if num_parallel > len(cores):
        raise InputError(f"--num_parallel is {num_parallel}, but there are {len(cores)} cores; allowed is 1 to that.")
    bounds = [i * len(cores) // num_parallel for i in range(num_parallel + 1)]
    return [set(cores[a:b]) for a, b in itertools.pairwise(bounds)]


@dataclasses.dataclass(frozen=True)
class Command:
    """One process.

    Attributes:
      run: whose output.txt takes what it prints.
      task: what it does to the run.
      arguments: what follows `python` on its command line.
    """

    run: Run
    task: Literal["train", "removal"]
    arguments: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Child:
    command: Command
    rest: Sequence[Command]
    process: subprocess.Popen[bytes]
    cores: set[int] | None
    began: float


def work_off(
    jobs: Sequence[Sequence[Command]],
    *,
    cores: Sequence[set[int] | None],
    lock: int,
    on_finished: Callable[[Command, float], None],
) -> bool:
    """Work off the jobs in order, as many at a time as there are shares of the cores.

    SIGINT and SIGTERM are passed on: the runs save their state and leave.

    Args:
      jobs: each of them commands that follow one another on the same cores; a run that was interrupted continues.
      cores: one share per job at a time, from `share_cores`.
      lock: from `icre_jax.machine.lock.lock_folder`; the processes hold it as well.
      on_finished: called after each command with its wall-clock seconds.

    Returns:
      Whether all are done; False if a stop was asked for.

    Raises:
      RunFailedError: a command failed; the runs beside it have saved their state and left.
    """
    waiting, active, free = [job for job in jobs if job], list[_Child](), list(cores)
    stopping = False
    with StopRequest() as stop:
        try:
            while active or (waiting and not stopping):
                if stop.requested and not stopping:
                    stopping = True
                    _ask_to_stop(active)
                while waiting and free and not stopping:
                    active.append(_start(waiting.pop(0), free.pop(0), lock))
                for child in [child for child in active if child.process.poll() is not None]:
                    active.remove(child)
                    code, left = child.process.returncode, child.rest
                    if code == command.EXIT_STOPPED or (stopping and code == -signal.SIGTERM):
                        stop.requested = True  # also if someone else has stopped this one
                        left = [child.command, *left]
                    elif code:
                        raise _failure(child.command, code)
                    if left and not stop.requested:
                        active.append(_start(left, child.cores, lock))
                    else:
                        free.append(child.cores)
                        waiting += [left] if left else []
                    if code == 0:
                        on_finished(child.command, time.monotonic() - child.began)
                time.sleep(_POLL_SECONDS)
        except BaseException as error:
            # Asked a second time a run ends at once, which is what a second Ctrl-C is for.
            if not stopping or isinstance(error, KeyboardInterrupt):
                _ask_to_stop(active)
            raise
        finally:
            for child in active:
                child.process.wait()
    return not waiting


def _start(job: Sequence[Command], cores: set[int] | None, lock: int) -> _Child:
    first, *rest = job
    own = os.sched_getaffinity(0) if cores else set()
    try:
        if cores:
            # A child inherits it, before any library in it counts the cores.
            os.sched_setaffinity(0, cores)
        first.run.folder.mkdir(parents=True, exist_ok=True)
        with (first.run.folder / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *first.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,  # or Ctrl-C would reach it twice, and the second signal ends it unsaved
            )
    finally:
        if cores:
            os.sched_setaffinity(0, own)
    return _Child(first, rest, process, cores, time.monotonic())


def _ask_to_stop(children: Sequence[_Child]) -> None:
    for child in children:
        child.process.terminate()


def _failure(failed: Command, code: int) -> RunFailedError:
    run = failed.run
    output = run.folder / "output.txt"
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
    how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
    what = "" if failed.task == "train" else ", scored without its parts,"
    message = "\n".join(
        [
            f"Row {run.row.name}, seed {run.seed}{what} ended with {how}. The end of {output}:",
            *(f"    {line}" for line in lines),
            "What was finished is kept; start the same command again when this is mended.",
        ]
    )
    return RunFailedError(message, code if code > 0 else 1)
