"""Steps that are not as they were saved: found before anything is read from them, and said with what to do instead."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from icre_jax.engine.checkpoint.quiet import NOT_DAMAGE, reason_of
from icre_jax.errors import InputError
from icre_jax.sums import SUMS, find_damage

# What orbax notes of a step after the sums were taken. No number is read from them.
NOTES = ("_CHECKPOINT_METADATA", "commit_success.txt")
_SCORES = "metrics"  # orbax's name of the item that holds them
# Among the facts of a step that was saved with sums: whose list is gone is damaged, and not of an older version.
SUMMED = "sha256sums"


class Damage:
    """What is compared in a folder of checkpoints, and what is said of a step that is damaged.

    A step is compared with its sums once, whole, before the first read of it. One of an older version, which has none,
    is taken, and a line on standard error says so.
    """

    def __init__(
        self, folder: Path, list_steps: Callable[[], list[int]], read_facts: Callable[[int], Any], *, read_only: bool
    ):
        """Nothing is compared yet.

        Args:
          folder: of the checkpoints.
          list_steps: the steps that are there.
          read_facts: what orbax reads as the facts of a step, with whatever error it has.
          read_only: whether those who are told may delete a step and go on.
        """
        self._folder, self._list_steps, self._read_facts, self._read_only = folder, list_steps, read_facts, read_only
        self._compared: set[int] = set()

    def forget(self, step: int) -> None:
        """This step is saved anew."""
        self._compared.discard(step)

    def require_whole(self, step: int) -> None:
        """Compare every file of a step with its sums, once.

        Raises:
          InputError: one of them is not as it was saved.
        """
        if step in self._compared:
            return
        if findings := self._find(step):
            raise self.error(step, findings[0] + (f", and {len(findings) - 1} more" if findings[1:] else ""))
        if not (self._folder / str(step) / SUMS).exists():
            _say_unsummed(self._folder / str(step))
        self._compared.add(step)

    def require_scores(self, step: int) -> None:
        """Refuse scores that are not as they were saved: by them the best step is chosen, and others are deleted.

        Raises:
          InputError: these are not.
        """
        folder = self._folder / str(step)
        if (folder / SUMS).exists() and (findings := find_damage(folder, leave_out=NOTES, only=(_SCORES,))):
            raise self.error(step, findings[0])

    @contextlib.contextmanager
    def explain(self, step: int) -> Iterator[None]:
        """What orbax says of a step that is damaged where no sums are, as a message for people."""
        try:
            yield
        except NOT_DAMAGE:
            raise
        except Exception as error:  # garbled compression raises nothing more special
            notes = self._folder / str(step) / NOTES[0]
            hint = f" (its arrays are as they were saved: try without {notes}, which nothing needs)"
            compared = step in self._compared and (notes.parent / SUMS).exists()
            raise self.error(step, reason_of(error) + (hint if compared else "")) from error

    def error(self, step: int, finding: str) -> InputError:
        """What is wrong with a step, and what to do: the next one that is whole is looked for."""
        folder = self._folder / str(step)
        other = self._next_whole(step)
        if other is None:
            way = "No other checkpoint there is whole. Take another copy of the run, or train again in another workdir."
        elif self._read_only:
            way = (
                f"The next one that is whole is of step {other}: take it with --checkpoint {other}, or delete {folder} "
                "where a command takes the latest."
            )
        else:
            way = f"Delete {folder} and start the same command again: it continues after step {other}, which is whole."
        return InputError(f"The checkpoint of step {step} in {self._folder} is damaged: {finding}. {way}")

    def _find(self, step: int) -> list[str]:
        """What is not as it was saved, in words; nothing of a step of an older version, of which nobody knows."""
        folder = self._folder / str(step)
        if (folder / SUMS).exists():
            return find_damage(folder, leave_out=NOTES)
        try:
            facts = self._read_facts(step)
        except NOT_DAMAGE:
            raise
        except Exception as error:
            return [f"its facts cannot be read ({reason_of(error)})"]
        return [f"{SUMS} is missing"] if SUMMED in facts else []

    def _next_whole(self, step: int) -> int | None:
        """The newest older step that is as it was saved; of newer ones if there is none."""
        steps = self._list_steps()
        older, newer = ([other for other in steps if sign * other > sign * step] for sign in (-1, 1))
        for other in (*reversed(older), *reversed(newer)):
            with contextlib.suppress(InputError, OSError):  # it may be damaged too, or be replaced right now
                if not self._find(other):
                    return other
        return None


@functools.cache  # once in a process
def _say_unsummed(folder: Path) -> None:
    if jax.process_index() == 0:
        print(
            f"{folder} is of an older version and has no {SUMS}: whether it is damaged is not known.", file=sys.stderr
        )
