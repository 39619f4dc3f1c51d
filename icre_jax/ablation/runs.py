"""The runs of the ablation: one work folder each, trained by the command that a user would type."""

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from icre_jax import command
from icre_jax.ablation.rows import Row
from icre_jax.errors import InputError, join_findings
from icre_jax.evals.results import ProtocolResult, read_results
from icre_jax.settings import Settings, differences, from_json, parse
from icre_jax.stop import StopRequest

_TAIL = 12  # lines of a failed run that are shown
_POLL_SECONDS = 0.1


class RunFailedError(Exception):
    """A run ended with an error; `code` is the exit code for the whole command."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class AblationRun:
    """One row with one seed.

    Attributes:
      row: what to train.
      seed: of initialisation, sampling and augmentation; the data is the same for all.
      folder: its work folder.
    """

    row: Row
    seed: int
    folder: Path

    @property
    def settings(self) -> Settings:
        """What its config.json says."""
        return self.row.settings.model_copy(update={"seed": self.seed})

    @property
    def arguments(self) -> list[str]:
        """Behind `python`."""
        config, *fields = self.row.flags
        words = ["--config", config.removeprefix("--config="), *fields, f"--config.seed={self.seed}"]
        return ["-m", "icre_jax.train", *words, "--workdir", str(self.folder)]


@dataclasses.dataclass(frozen=True)
class RunScore:
    """What a finished run says.

    Attributes:
      row, seed: which run.
      result: the headline setting (first of results.json) after the last step.
      num_steps: how long it trained.
      seconds: of training, without compiling, scoring and saving; over all starts of the run.
      data_fingerprint: of the data.
    """

    row: str
    seed: int
    result: ProtocolResult
    num_steps: int
    seconds: float
    data_fingerprint: str

    @property
    def setting(self) -> str:
        """Name of the setting, e.g. "all/single"."""
        return next(iter(self.result.scalars())).rpartition("/")[0]


def folder_of(out: Path, row: str, seed: int) -> Path:
    """The work folder of one run."""
    return out / row / f"seed_{seed}"


def find_runs(out: Path, names: Sequence[str]) -> list[tuple[str, int]]:
    """(row, seed) of every work folder of these rows that is there, finished or not."""
    found = []
    for name in names:
        for config in (out / name).glob("seed_*/config.json"):
            seed = config.parent.name.removeprefix("seed_")
            if seed.isdecimal():
                found.append((name, int(seed)))
    return sorted(found, key=lambda run: (names.index(run[0]), run[1]))


def require_same_ablation(run: AblationRun) -> None:
    """Refuse a work folder of other settings.

    Raises:
      InputError: it holds a run of other settings; says which.
    """
    config = run.folder / "config.json"
    if not config.is_file():
        return
    changed = differences(from_json(config.read_text(encoding="utf-8")), run.settings)
    if changed:
        raise InputError(
            f"{run.folder} is a run of an ablation of another config:\n{join_findings(changed)}\n"
            "Use the same config and fields to continue it, or another --out."
        )


def read_score(run: AblationRun, num_steps: int) -> RunScore | None:
    """The scores of a finished run; None if there is none yet, or it is of other settings or another step.

    Raises:
      InputError: its files are damaged.
    """
    if not (run.folder / "results.json").is_file():
        return None
    results, provenance = read_results(run.folder)
    try:
        step, fingerprint = provenance["step"], provenance["data_fingerprint"]
        lines = (run.folder / "timing.jsonl").read_text(encoding="utf-8").splitlines()
        seconds = sum(float(json.loads(line)["seconds"]) for line in lines)
        same = step == num_steps and not differences(parse(provenance["settings"]), run.settings)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{run.folder} is damaged ({error!r}). Move it away; the run will be repeated.") from error
    return RunScore(run.row.name, run.seed, results[0], num_steps, seconds, fingerprint) if same else None


@contextlib.contextmanager
def lock_folder(out: Path) -> Iterator[int]:
    """Keep other ablations out of `out` (created); the file descriptor of the lock, which the runs are to inherit.

    They hold the lock until they end, so that nothing trains in their folders even if this process was killed.

    Raises:
      InputError: it is locked, or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("w")
    except OSError as error:
        raise InputError(f"Cannot write to {out}: {error}. Choose another --out.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"An ablation, or a run that one started, is still going on in {out}. Wait for it, stop it, or use "
                "another --out."
            ) from error
        yield file.fileno()


def share_cores(num_parallel: int) -> list[set[int] | None]:
    """The cores of each of the runs that go at a time; None where the platform cannot say (or one run has them all).

    Raises:
      InputError: more runs than cores.
    """
    if num_parallel == 1 or not hasattr(os, "sched_getaffinity"):
        return [None] * num_parallel
    cores = sorted(os.sched_getaffinity(0))
    if num_parallel > len(cores):
        raise InputError(f"--num_parallel is {num_parallel}, but there are {len(cores)} cores; allowed is 1 to that.")
    bounds = [i * len(cores) // num_parallel for i in range(num_parallel + 1)]
    return [set(cores[a:b]) for a, b in itertools.pairwise(bounds)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Child:
    run: AblationRun
    process: subprocess.Popen[bytes]
    cores: set[int] | None
    began: float


def train_all(
    runs: Sequence[AblationRun],
    *,
    cores: Sequence[set[int] | None],
    lock: int,
    on_finished: Callable[[AblationRun, float], None],
) -> bool:
    """Train the runs in order, as many at a time as there are shares of the cores.

    SIGINT and SIGTERM are passed on: the runs save their state and leave.

    Args:
      runs: what to train; a run that was interrupted continues.
      cores: one share per run at a time, from `share_cores`.
      lock: from `lock_folder`; the runs hold it as well.
      on_finished: called behind each run with its wall-clock seconds.

    Returns:
      Whether all are done; False if a stop was asked for.

    Raises:
      RunFailedError: a run failed; those beside it have saved their state and left.
    """
    waiting, active, free = list(runs), list[_Child](), list(cores)
    num_done, stopping = 0, False
    with StopRequest() as stop:
        try:
            while active or (waiting and not stopping):
                while waiting and free and not stopping:
                    active.append(_start(waiting.pop(0), free.pop(0), lock))
                if stop.requested and not stopping:
                    stopping = True
                    _ask_to_stop(active)
                for child in [child for child in active if child.process.poll() is not None]:
                    active.remove(child)
                    free.append(child.cores)
                    code = child.process.returncode
                    if code == 0:
                        num_done += 1
                        on_finished(child.run, time.monotonic() - child.began)
                    elif code == command.EXIT_STOPPED or (stopping and code == -signal.SIGTERM):
                        stop.requested = True  # also if someone else has stopped this one
                    else:
                        raise _failure(child.run, code)
                time.sleep(_POLL_SECONDS)
        except BaseException as error:
            # Asked a second time a run ends at once, which is what a second Ctrl-C is for.
            if not stopping or isinstance(error, KeyboardInterrupt):
                _ask_to_stop(active)
            raise
        finally:
            for child in active:
                child.process.wait()
    return num_done == len(runs)


def _start(run: AblationRun, cores: set[int] | None, lock: int) -> _Child:
    own = os.sched_getaffinity(0) if cores else set()
    try:
        if cores:
            # A child inherits it, before any library in it counts the cores.
            os.sched_setaffinity(0, cores)
        run.folder.mkdir(parents=True, exist_ok=True)
        with (run.folder / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *run.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,  # or Ctrl-C would reach it twice, and the second signal ends it unsaved
            )
    finally:
        if cores:
            os.sched_setaffinity(0, own)
    return _Child(run, process, cores, time.monotonic())


def _ask_to_stop(children: Sequence[_Child]) -> None:
    for child in children:
        child.process.terminate()


def _failure(run: AblationRun, code: int) -> RunFailedError:
    output = run.folder / "output.txt"
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
    how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
    message = "\n".join(
        [
            f"Row {run.row.name}, seed {run.seed} ended with {how}. The end of {output}:",
            *(f"    {line}" for line in lines),
            "What was finished is kept; start the same command again when this is mended.",
        ]
    )
    return RunFailedError(message, code if code > 0 else 1)
