"""What a run tells: lines in files for programs, and one line on its progress for people.

metrics.jsonl  what the run computed: equal for equal seeds
timing.jsonl   how fast it did so: never equal
"""

import contextlib
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from icre_jax.errors import InputError, NotSavedError, UnreadableError
from icre_jax.evals.results import ProtocolResult, from_records
from icre_jax.files import sync
from icre_jax.files.json_files import parse_json
from icre_jax.files.regular import read_bytes
from icre_jax.machine.screen import Screen

# Curves of fewer points say little; a run of fewer steps logs each of them.
FEWEST_LINES = 50
_FILES = _METRICS, _TIMING = "metrics.jsonl", "timing.jsonl"
_WORDS = ("kind", "results")  # of a line, which holds numbers otherwise
_LARGEST_FILE = 2**30  # bytes; a run of days has a hundredth of that


class RunLog:
    """The files of one run, and TensorBoard's if wanted."""

    def __init__(self, workdir: Path, saved_step: int | None, *, tensorboard: bool):
        """Open for appending, without what came after the checkpoint: it will be computed and written again.

        Args:
          workdir: of the run.
          saved_step: step of the checkpoint the run continues from; None if it starts.
          tensorboard: write TensorBoard files into `workdir`/tensorboard as well.

        Raises:
          InputError: TensorBoard is wanted and not installed.
        """
        keep_to = -1 if saved_step is None else saved_step
        with contextlib.ExitStack() as opened:
            self._metrics = _JsonLines(workdir / _METRICS, keep_to)
            opened.callback(self._metrics.close)
            self._timing = _JsonLines(workdir / _TIMING, keep_to)
            opened.callback(self._timing.close)
            self._board = _open_tensorboard(workdir / "tensorboard", keep_to + 1) if tensorboard else None
            opened.pop_all()

    def write_step(self, line: dict[str, Any]) -> None:
        """Numbers of one training step; "step", "epoch" and scalars."""
        self._metrics.write({"kind": "train"} | line)
        self._write_board(line)

    def write_speed(self, line: dict[str, Any]) -> None:
        """Speed up to one training step; "step" and scalars."""
        self._timing.write(line)
        self._write_board(line)

    def write_evaluation(
        self, step: int, epoch: float, results: list[ProtocolResult], screen: Screen
    ) -> dict[str, float]:
        """Scores of one step, in the file and in a line on the screen; returned by name, as "all/single/rank1"."""
        scores = {name: value for result in results for name, value in result.scalars().items()}
        line = {"step": step, "epoch": epoch} | scores
        self._metrics.write({"kind": "evaluation"} | line | {"results": [asdict(result) for result in results]})
        self._write_board(line)
        first = results[0]
        screen.say(
            f"scores after step {step}: {first.setting} Rank-1 {first.mean['rank1']:.1%}  mAP {first.mean['mAP']:.1%}  "
            f"mINP {first.mean['mINP']:.1%}"
        )
        return scores

    def read_steps(self) -> list[dict[str, Any]]:
        """Lines of `write_step`."""
        return self._metrics.read("train")

    def read_speed(self) -> list[dict[str, Any]]:
        """Lines of `write_speed`."""
        return self._timing.read()

    def read_score_curve(self) -> list[dict[str, Any]]:
        """Step, epoch and scores of every evaluation."""
        lines = self._metrics.read("evaluation")
        return [{key: line[key] for key in line if key not in ("kind", "results")} for line in lines]

    def read_evaluations(self) -> dict[int, list[ProtocolResult]]:
        """Step -> results of every evaluation."""
        return {line["step"]: line["results"] for line in self._metrics.read("evaluation")}

    def require_written(self) -> None:
        """Write what a full disk has kept back so far, and wait until all of it is there: a checkpoint counts on it.

        Raises:
          NotSavedError: the disk is still full, or cannot write.
        """
        self._metrics.require_on_disk()
        self._timing.require_on_disk()

    def close(self) -> None:
        """Close all files."""
        self._metrics.close()
        self._timing.close()
        if self._board is not None:
            self._board.close()

    def _write_board(self, line: dict[str, Any]) -> None:
        if self._board is not None:
            for name in line.keys() - {"step"}:
                self._board.add_scalar(name, line[name], line["step"])


class NoLog(RunLog):
    """The log of a process that is not to write one: it keeps nothing, needs no disk, and has nothing to read."""

    def __init__(self) -> None:
        self._metrics = self._timing = _NoLines()
        self._board = None


def require_scores(workdir: Path, steps: Collection[int]) -> None:
    """Look, before anything is cut or trained, whether the log has the scores that the end of the run will need.

    Args:
      workdir: of the run.
      steps: whose scores these are.

    Raises:
      InputError: the log lacks some, or is damaged.
    """
    path = workdir / _METRICS
    logged = {line["step"] for line in _read_lines(path, "evaluation")}
    if missing := sorted({*steps} - logged):
        raise InputError(
            f"{path} lacks the scores of step {', '.join(map(str, missing))}, which results.json will need. Put a copy "
            "of the whole file back, or train again in another --workdir."
        )


def set_aside(workdir: Path) -> list[Path]:
    """Rename the logs of a run that has no checkpoint any more, so that the run that starts does not cut them.

    The first checkpoint is older than the first step. So lines of steps without any checkpoint are those of a run whose
    checkpoints somebody took away; the scores before the first step alone are computed again.

    Returns:
      The files under their new names; none if there was no step.

    Raises:
      InputError: the log is damaged, or the folder cannot be written.
    """
    if not _read_lines(workdir / _METRICS, "train"):
        return []
    # One number for both, which neither has.
    number = next(n for n in itertools.count(1) if not any(_aside(workdir / name, n).exists() for name in _FILES))
    kept = []
    for name in _FILES:
        path = workdir / name
        if path.exists():
            try:
                kept.append(path.rename(_aside(path, number)))
            except OSError as error:
                raise InputError(
                    f"{path} cannot be renamed ({error.strerror}), and {workdir / 'checkpoints'} is empty: training "
                    "would overwrite it. Use another --workdir."
                ) from error
    return kept


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}_before_{number}{path.suffix}")


class _JsonLines:
    """A file of one JSON object per line, each with its "step", in ascending order.

    Lines that a full disk does not take wait in memory for the next write, so that training goes on and no line is lost
    or torn.
    """

    def __init__(self, path: Path, keep_to: int):
        self._path = path
        kept = sum(line["step"] <= keep_to for line in self.read())
        try:
            if path.exists() and not path.is_file():  # opening a pipe would wait
                raise OSError(0, "it is no regular file")
            # Unbuffered: what `write` returns from is in the hands of the system, and outlives this process.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}). Use another --workdir.") from error
        # Cut in place: that needs no space, and what is kept keeps its bytes.
        whole = read_bytes(path, most_bytes=_LARGEST_FILE)
        self._size = sum(len(line) for line in whole.splitlines(keepends=True)[:kept])
        self._file.truncate(self._size)
        self._waiting = b""

    def write(self, line: dict[str, Any]) -> None:
        self._waiting += json.dumps(line).encode() + b"\n"
        with contextlib.suppress(NotSavedError):
            self.require_written()

    def require_written(self) -> None:
        if not self._waiting:
            return
        try:
            written = self._file.write(self._waiting)
            if written != len(self._waiting):  # the disk became full in the middle of a line
                raise OSError(f"{written} of {len(self._waiting)} bytes written; the disk is full")
        except OSError as error:
            os.truncate(self._file.fileno(), self._size)
            raise NotSavedError(f"{self._path} could not be written: {error}.") from error
        self._size += len(self._waiting)
        self._waiting = b""

    def require_on_disk(self) -> None:
        self.require_written()
        try:
            sync(self._path)
        except OSError as error:
            raise NotSavedError(f"{self._path} could not be written: {error}.") from error

    def read(self, kind: str | None = None) -> list[dict[str, Any]]:
        return _read_lines(self._path, kind)

    def close(self) -> None:
        self._file.close()


class _NoLines(_JsonLines):
    """A file that is not there."""

    def __init__(self) -> None:
        pass

    def write(self, line: dict[str, Any]) -> None:
        pass

    def require_on_disk(self) -> None:
        pass

    def read(self, kind: str | None = None) -> list[dict[str, Any]]:
        return []

    def close(self) -> None:
        pass


def _read_lines(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Every line, or those of one kind; an evaluation has its results."""
    if not path.exists():
        return []
    # The last piece is empty, or half a line of a process that was killed.
    try:
        complete = read_bytes(path, most_bytes=_LARGEST_FILE).split(b"\n")[:-1]
        lines = [_parse_line(line) for line in complete]
        return [line for line in lines if kind in (None, line.get("kind"))]
    except (UnreadableError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}). Restore it, or use another --workdir.") from error


def _parse_line(text: bytes) -> dict[str, Any]:
    line = parse_json(text)
    if not isinstance(line, dict) or type(line.get("step")) is not int:
        raise ValueError(f"a line is {text[:100]!r}, which is of no step")
    wrong = [name for name, value in line.items() if name not in _WORDS and not isinstance(value, int | float)]
    if wrong or line.get("kind", "train") not in ("train", "evaluation"):
        raise ValueError(f"a line is {text[:100]!r}; numbers of a step, and its kind, are needed")
    if line.get("kind") == "evaluation":
        try:
            line["results"] = from_records(line["results"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"the results of step {line['step']} are damaged") from error
    return line


def _open_tensorboard(folder: Path, purge_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise InputError(
            "logging.tensorboard needs an extra: pip install 'icre_jax[tensorboard]' (or set it to False)."
        ) from error
    return SummaryWriter(str(folder), purge_step=purge_step)


def steps_between_lines(most: int, num_steps: int) -> int:
    """Steps from one line of the log to the next: `most`, or fewer where a run has fewer than `FEWEST_LINES` then."""
    return min(most, max(1, num_steps // FEWEST_LINES))


def reaches_screen(step: int, *, every: int, most: int, num_steps: int) -> bool:
    """Whether a step with a line of the log, every `every`-th, has one on the screen: the first from each `most` on."""
    return step // most > (step - every) // most or step == num_steps


def peak_memory_bytes() -> int:
    """Most memory ever held: of the first device where it counts, else of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Stopwatch:
    """Speed of training between two looks at it; compiling, scoring and saving do not count."""

    def __init__(self, images_per_step: int):
        """Start at once.

        Args:
          images_per_step: B.
        """
        self._images_per_step = images_per_step
        self.restart()

    def restart(self) -> None:
        """Forget everything so far."""
        self._began, self._waited, self._steps = time.perf_counter(), 0.0, 0

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Around the wait for one batch."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no part of training."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def count_step(self) -> None:
        """One step is done."""
        self._steps += 1

    def read(self) -> dict[str, float] | None:
        """Speed since the last look, or None if no step was counted; starts anew.

        Returns:
          "images_per_second", "seconds" (measured), "seconds_per_step", "data_wait" (share of the time) and
          "peak_memory_bytes".
        """
        if not self._steps:
            return None
        seconds = time.perf_counter() - self._began
        speed = {
            "images_per_second": self._images_per_step * self._steps / seconds,
            "seconds": seconds,
            "seconds_per_step": seconds / self._steps,
            "data_wait": self._waited / seconds,
            "peak_memory_bytes": peak_memory_bytes(),
        }
        self.restart()
        return speed


def describe_step(metrics: dict[str, Any], speed: dict[str, float], *, num_epochs: int, num_steps: int) -> str:
    """One line on the progress of training, for people."""
    parts = "  ".join(f"{key.removeprefix('loss/')} {metrics[key]:.3f}" for key in metrics if key.startswith("loss/"))
    rates = "  ".join(
        f"{key.removeprefix('learning_rate/')} {metrics[key]:.2g}"
        for key in metrics
        if key.startswith("learning_rate/")
    )
    minutes, seconds = divmod(round(speed["seconds_per_step"] * (num_steps - metrics["step"])), 60)
    return (
        f"epoch {metrics['epoch']:.1f}/{num_epochs}  step {metrics['step']}/{num_steps} | loss {metrics['loss']:.3f} "
        f"({parts})  accuracy {metrics['accuracy']:.0%} | lr {rates} | {speed['images_per_second']:.0f} images/s  "
        f"data wait {speed['data_wait']:.0%} | ETA {minutes}:{seconds:02d} | "
        f"peak memory {speed['peak_memory_bytes'] / 2**30:.2f} GiB"
    )
