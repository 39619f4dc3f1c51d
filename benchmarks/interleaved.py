"""Programs timed in turns, so that what else the machine does meets all of them alike: trust the ratios."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timed:
    """Seconds of every timed call of one program, by the clock and on all cores together."""

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the clock."""
        return statistics.median(self.seconds)


def run_in_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timed]:
    """Call each program once untimed, then all of them in order, `rounds` times.

    Args:
      calls: name -> program; it returns when its work is done.
      rounds: timed calls of each.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            call()
            seconds[name].append(time.perf_counter() - began)
            cpu_seconds[name].append(time.process_time() - cpu_began)
    return {name: Timed(tuple(seconds[name]), tuple(cpu_seconds[name])) for name in calls}


def ratios(ours: Timed, reference: Timed) -> tuple[float, float, float]:
    """Ours over the reference, round by round: median, smallest, largest."""
    values: Sequence[float] = [a / b for a, b in zip(ours.seconds, reference.seconds, strict=True)]
    return statistics.median(values), min(values), max(values)
