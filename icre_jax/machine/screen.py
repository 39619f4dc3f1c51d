"""What people see of a command: lines that stay, and a bar that moves where there is a terminal."""

import contextlib
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from icre_jax.errors import printable


def open_console() -> Console:
    """Standard output; in a file or pipe wide enough for a table of scores."""
    console = Console()
    return console if console.is_terminal else Console(width=132)


class Screen:
    """Progress for people: a live bar on a terminal, plain lines anywhere else."""

    def __init__(self, console: Console | None = None, *, may_fail: bool = False):
        """Take the console to write to.

        Args:
          console: standard output by default.
          may_fail: whether work goes on where a line cannot be written, as when the disk with the log is full.
        """
        console = open_console() if console is None else console
        self.console = console
        self._may_fail = may_fail
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._bar.start()

    def say(self, text: str) -> None:
        """One line (or a few) that stays."""
        with contextlib.suppress(*(OSError,) if self._may_fail else ()):
            self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def advance(self, title: str, done: int, total: int, note: str = "") -> None:
        """Move the bar of one activity; without a terminal, say so at every tenth of the way."""
        if not self.console.is_terminal:
            if not note and (done == total or done * 10 // total != (done - 1) * 10 // total):
                self.say(f"{title}: {done}/{total}")
            return
        if title not in self._tasks:
            self._tasks[title] = self._bar.add_task(title, total=total, note="")
        self._bar.update(self._tasks[title], completed=done, note=note)
        if done == total:
            self._bar.remove_task(self._tasks.pop(title))

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
