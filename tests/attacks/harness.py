"""What an attack on a reader is, and what must hold: an answer or an `InputError`, little memory, little time.

A `Reader` makes a folder of sound files and reads it as commands do. An attack changes one file of a copy of it.
"""

import contextlib
import dataclasses
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from icre_jax.errors import InputError
from icre_jax.sums import SEAL, SUMS, seal, write_sums
from tests.attacks.mutations import mutate

MOST_MEMORY = 4 * 2**30  # bytes that an attack may take, beside what the process had
SECONDS = 12  # of processor time that an attack may take
PATIENCE = 120  # seconds until whatever waits for something is ended
LONGEST_MESSAGE = 60_000  # characters


@dataclasses.dataclass(frozen=True)
class Reader:
    """A class of foreign files.

    Attributes:
      name: in the table.
      make: fills an empty folder with sound files, given places of sound things by name (`tests/attacks/conftest.py`).
      read: reads such a folder as commands do.
      attacked: how the names of those files end that are changed; those of all others stay as they are.
      writes: whether reading may write below the folder.
    """

    name: str
    make: Callable[[Path, Mapping[str, Path]], Any]
    read: Callable[[Path], Any]
    attacked: tuple[str, ...] = ("",)
    writes: bool = False

    def __str__(self) -> str:
        return self.name  # the same in every process, as the ids of tests have to be


class TooSlowError(BaseException):
    """Nothing that is attacked catches it."""


@dataclasses.dataclass
class Outcome:
    """What an attack came to.

    Attributes:
      said: message of the `InputError`; None if the file was read.
      wrong: what must not be; empty if all is well.
      megabytes: the most memory that the process had meanwhile, less what it had before.
    """

    said: str | None
    wrong: str
    megabytes: int


# Compiled programs, which the test suite keeps.
_KEPT = [Path(folder)] if (folder := os.environ.get("JAX_COMPILATION_CACHE_DIR")) else []
_written: list[str] = []
_watching: list[Path] = []


def _watch(event: str, arguments: tuple) -> None:
    """An audit hook, which cannot be taken away again: idle unless something is attacked."""
    if not _watching:
        return
    if event in ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn"):
        _written.append(f"{event} {arguments}")
    elif event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        _look(arguments[0])
    elif event in ("os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.rename"):
        _look(*(name for name in arguments[:2] if isinstance(name, str)))


def _look(*names: str) -> None:
    allowed = (*_watching, *_KEPT, Path("/dev"), Path("/proc"))
    for name in names:
        path = Path(os.path.abspath(name))  # noqa: PTH100 (links stay as they are)
        if not any(path.is_relative_to(folder) for folder in allowed):
            _written.append(f"written: {path}")


sys.addaudithook(_watch)


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise AssertionError(name)


@contextlib.contextmanager
def limited(allowed: Path, temporary: Path) -> Iterator[Callable[[], int]]:
    """Limits of time and memory; a function that tells how many bytes more than before the process has had."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = _memory("VmData") + MOST_MEMORY

    def late(*_: object) -> None:
        raise TooSlowError

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the highest value begins anew
    before, handler = _memory("VmRSS"), signal.signal(signal.SIGALRM, late)
    _written.clear()
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    _watching[:] = [allowed, temporary]
    try:
        yield lambda: max(0, _memory("VmHWM") - before)
    finally:
        _watching.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def look(reader: Reader, folder: Path, temporary: Path) -> Outcome:
    """Read `folder` and say whether all that must hold did."""
    said, wrong, began = None, "", time.process_time()
    with limited(folder, temporary) as most:
        try:
            reader.read(folder)
        except InputError as error:
            said = str(error)
        except (Exception, TooSlowError) as error:
            lines = traceback.extract_tb(error.__traceback__)
            place = next((f"{f.filename}:{f.lineno}" for f in reversed(lines) if "/icre_jax/" in f.filename), "?")
            wrong = f"{type(error).__name__}: {error} ({place})"[:500]
        bytes_more = most()
    if time.process_time() - began > SECONDS:
        wrong = wrong or f"{time.process_time() - began:.0f} seconds"
    if bytes_more > MOST_MEMORY:
        wrong = wrong or f"{bytes_more:,} bytes of memory"
    if _written:
        wrong = wrong or "; ".join(_written[:3])
    if said is not None:
        wrong = wrong or _wrong_words(said)
    return Outcome(said, wrong, bytes_more // 2**20)


def _wrong_words(said: str) -> str:
    if len(said) < 20 or len(said) > LONGEST_MESSAGE:
        return f"a message of {len(said)} characters"
    raw = [c for c in said if c != "\n" and not c.isprintable()]
    return f"a message with {raw[:5]!r}" if raw else ""


@dataclasses.dataclass
class Attacks:
    """A copy of sound files whose files are changed one after the other.

    Attributes:
      reader: what is attacked.
      sound: its folder of sound files.
      folder: of the copy.
      outcomes: of all attacks so far, by their names.
    """

    reader: Reader
    sound: Path
    folder: Path
    outcomes: dict[str, Outcome] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        shutil.copytree(self.sound, self.folder, symlinks=True)
        self.temporary = self.folder.with_name(f"{self.folder.name}_tmp")
        self.temporary.mkdir(exist_ok=True)
        # There is nothing to change in an empty one, such as a lock.
        found = (path for path in self.sound.rglob("*") if path.is_file() and path.stat().st_size)
        files = sorted(path.relative_to(self.sound) for path in found)
        self.files = [str(name) for name in files if str(name).endswith(self.reader.attacked)]
        assert self.files, self.reader.name
        outcome = look(self.reader, self.folder, self.temporary)
        assert (outcome.said, outcome.wrong) == (None, ""), f"{self.reader.name}: {outcome}"
        self._restore()

    def by_hand(self, name: str, file: str, content: bytes | Callable[[Path], Any], *, sealed: bool = False) -> Outcome:
        """One attack: the file has this content, or what a function leaves in its place.

        Args:
          name: of the attack.
          file: in the folder.
          content: of it; or a function that is given its path, where nothing is.
          sealed: sums are made for it, as whoever writes such a file can do.
        """
        target, kept = self.folder / file, (self.sound / file).read_bytes()
        try:
            target.unlink()
            target.write_bytes(content) if isinstance(content, bytes) else content(target)
            if sealed:
                self._seal(target)
            outcome = look(self.reader, self.folder, self.temporary)
        finally:
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            target.unlink(missing_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(kept)
            for sums in self.sound.rglob(SUMS) if sealed else ():
                (self.folder / sums.relative_to(self.sound)).write_bytes(sums.read_bytes())
        self._restore()
        self.outcomes[f"{file}: {name}"] = outcome
        return outcome

    def mutant(self, number: int) -> Outcome:
        """Mutant `number` over all files; every other one has sums that were made for it."""
        file = self.files[number % len(self.files)]
        others = [(self.sound / name).read_bytes() for name in self.files[:8]]
        words, content = mutate((self.sound / file).read_bytes(), number, others)
        return self.by_hand(f"mutant {number}, {words}", file, content, sealed=number // len(self.files) % 2 == 1)

    def places(self) -> None:
        """What may lie where a file should be: nothing, an empty file, a folder, a pipe, a link in circles."""
        for file in self.files[:6]:
            self.by_hand("missing", file, lambda path: None)
            self.by_hand("empty", file, b"")
            self.by_hand("a folder", file, Path.mkdir)
            self.by_hand("a pipe", file, os.mkfifo)
            self.by_hand("a device without end", file, lambda path: path.symlink_to("/dev/zero"))
            self.by_hand("a link in circles", file, lambda path: path.symlink_to(path.name))

    def _seal(self, target: Path) -> None:
        """Make the sums of a JSON object, and of the folder that it is in."""
        with contextlib.suppress(ValueError, RecursionError):
            content = json.loads(target.read_bytes())
            if isinstance(content, dict) and SEAL in content:
                target.write_text(json.dumps(seal({name: content[name] for name in content if name != SEAL})))
        for parent in target.parents:
            if parent.is_relative_to(self.folder) and (parent / SUMS).is_file() and target.name != SUMS:
                write_sums(parent)

    @property
    def failures(self) -> dict[str, str]:
        """What must not be, by the name of the attack."""
        return {name: outcome.wrong for name, outcome in self.outcomes.items() if outcome.wrong}

    @property
    def most_megabytes(self) -> int:
        """Of all attacks."""
        return max(outcome.megabytes for outcome in self.outcomes.values())

    def _restore(self) -> None:
        """Take away what reading has left; it may write only where the reader says so."""
        there = {path.relative_to(self.folder) for path in self.folder.rglob("*")}
        new = there - {path.relative_to(self.sound) for path in self.sound.rglob("*")}
        for path in sorted(new, reverse=True):
            assert self.reader.writes, f"{path} was left by reading"
            place = self.folder / path
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink(missing_ok=True)
