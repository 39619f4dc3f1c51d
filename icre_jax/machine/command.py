"""What every command shares: the config flag, and how an error reaches the user."""

import argparse
import contextlib
import errno
import gc
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from absl import flags
from ml_collections import ConfigDict, config_flags

from icre_jax.errors import DivergenceError, HostError, InputError, NotSavedError, UnreadableError, printable
from icre_jax.files import write_file
from icre_jax.files.images import MAX_PIXELS
from icre_jax.files.json_files import read_json_object
from icre_jax.files.regular import read_bytes
from icre_jax.machine import compiler
from icre_jax.settings import LARGEST_CONFIG, parse, to_config
from icre_jax.settings.fields import MOST_WIDTH, MOST_WORKERS, Settings

# What a disk, or a name that it cannot have, may answer: no fault of the program's, and the message names the file.
_OF_THE_USER = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR,
    errno.EISDIR, errno.EIO, errno.ENOMEM,
}  # fmt: skip
EXIT_BAD_INPUT = 2
EXIT_DIVERGED = 3
EXIT_NOT_SAVED = 4  # the last state of a run is not on disk
EXIT_BROKEN = 5  # the doctor found something that is needed and does not work
EXIT_INTERRUPTED = 130  # as a shell says it
EXIT_HOST_LOST = 69  # "service unavailable" of sysexits.h: start all processes again to continue
EXIT_STOPPED = 75  # "temporary failure" of sysexits.h: start the same command again to continue


def read_config(arguments: Sequence[str], default: Callable[[], ConfigDict] | None = None) -> Settings:
    """Settings from `--config FILE[:variant]` and any number of `--config.some.field=value`.

    FILE is a Python file with `get_config`, or the config.json of a run, which repeats it. The value "None" is Python's
    None: whether a field may have it is for `parse` to say.

    Args:
      arguments: the command line without the program and without flags of other kinds.
      default: the config of a command line that says nothing; None where one has to be given.

    Raises:
      InputError: the file, a field or a value cannot be used.
    """
    if default is not None and not arguments:
        return parse(default())
    named = [argument.split("=", 1)[1] for argument in arguments if argument.startswith("--config=")]
    if not named:
        raise InputError("No config given. Give for example --config configs/synthetic.py")
    file, _, variant = named[0].partition(":")
    if not Path(file).is_file():
        raise InputError(f"There is no config file {file}. Give for example --config configs/synthetic.py")
    arguments, nones = _without_nones(arguments)
    values = flags.FlagValues()
    if Path(file).suffix == ".json":
        if variant:
            raise InputError(f"{file} is the config of one run and has no variant {variant!r}. Give {file} alone.")
        program = ["icre_jax", *(argument for argument in arguments if not argument.startswith("--config="))]
        config = to_config(_read_json(Path(file)))
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=program)
    else:
        program = ["icre_jax", *arguments]
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=program)
    try:
        rest = values(program, known_only=False)
        config = values.config
        for name in nones:
            _set_none(config, name)
    except (KeyError, AttributeError) as error:
        raise InputError(f"The config has no such field: {error}. See configs/base.py for the known ones.") from error
    except SystemExit as error:
        raise InputError(
            f"The config {file} ended the program itself (exit code {error.code}); get_config must return a ConfigDict."
        ) from error
    except Exception as error:  # the file is a program: anything may go wrong in it
        # The library puts a whole traceback into its message; the first and the last line say what happened.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
        raise InputError(f"The config flags cannot be used: {reason}") from error
    if len(rest) > 1:
        raise InputError(f"Unknown arguments: {' '.join(rest[1:])}. See --help.")
    if not isinstance(config, ConfigDict):
        raise InputError(f"get_config of {file} must return an ml_collections.ConfigDict, not {config!r}.")
    return parse(config)


def _without_nones(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags without those of fields that end as None, and these fields: the library reads "None" as a text."""
    last = {name: value for name, _, value in (a.partition("=") for a in arguments) if name.startswith("--config.")}
    nones = [name for name, value in last.items() if value == "None"]
    rest = [a for a in arguments if a.partition("=")[0] not in nones and not re.fullmatch(r"--config\.[^=]*=None", a)]
    return rest, [name.removeprefix("--config.") for name in nones]


def _set_none(config: ConfigDict, name: str) -> None:
    *parents, leaf = name.split(".")
    for parent in parents:
        config = config[parent]
        if not isinstance(config, ConfigDict):
            raise KeyError(name)
    if leaf not in config:
        raise KeyError(name)
    with config.ignore_type():
        config[leaf] = None


def _read_json(file: Path) -> Settings:
    try:
        return parse(read_json_object(file, most_bytes=LARGEST_CONFIG))
    except UnreadableError as error:
        raise InputError(
            f"{file} is no JSON of a config ({error.reason}). Give the config.json of a run, or a config file."
        ) from error


def make_parser(name: str, doc: str | None, **more: Any) -> argparse.ArgumentParser:
    """The parser of a command; its description is the first line of the module's documentation."""
    module = f"icre_jax.{name}"
    # As the user started it: by its module, or through `icre_jax.__main__`.
    program = f"python -m {module}" if module in sys.orig_argv else f"icre_jax {name}"
    return argparse.ArgumentParser(prog=program, description=(doc or "").split("\n")[0], **more)


def add_pixels_flag(parser: argparse.ArgumentParser) -> None:
    """Declare --max_pixels, of commands that read image files which are no prepared data set."""
    parser.add_argument(
        "--max_pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help=f"pixels of an image at most; default: {MAX_PIXELS:,}",
    )


def split_config_flags(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
    """The command's own flags, and the config flags for `read_config`; anything else is refused by `parser`.

    `--config FILE` is declared here so that it stands in --help; fields below it are open-ended (`--config.a.b=value`).
    """
    parser.add_argument("--config", metavar="FILE[:variant]", help="what to do; one field: --config.some.field=value")
    known, rest = parser.parse_known_args(arguments)
    foreign = [argument for argument in rest if not argument.startswith("--config.")]
    if foreign:
        parser.error(f"unknown arguments: {' '.join(foreign)} (write a field as --config.some.field=value)")
    return known, ([f"--config={known.config}"] if known.config else []) + rest


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """The `type` of a flag that takes a whole number from `lowest` to `highest`; another is refused by the parser."""

    def read(text: str) -> int:
        # In ASCII, and not longer than Python reads.
        if re.fullmatch(r"-?[0-9]{1,18}", text) and lowest <= int(text) <= highest:
            return int(text)
        shown = repr(_shortened(text, 60))
        raise argparse.ArgumentTypeError(f"{shown} is not allowed; give a whole number from {lowest} to {highest:,}")

    return read


workers = whole_number(1, MOST_WORKERS)
channels = whole_number(1, MOST_WIDTH)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def warn(words: str) -> None:
    """Say on standard error what is odd and no error."""
    print(f"warning: {printable(words)}", file=sys.stderr)


def path(text: str) -> Path:
    """The `type` of a flag that takes a path: shells expand ~ in `--flag ~/x` and not in `--flag=~/x`."""
    return Path(text).expanduser()


def require_writable(path: Path, flag: str) -> None:
    """Find out before minutes of work whether the file of `flag` can be written.

    Raises:
      InputError: it cannot.
    """
    if _in_place(path) is not None:
        return
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"Cannot write {flag} {path}: {error}. Name a file in a folder that is there.") from error


def read_input(path: Path, flag: str, *, most_bytes: int) -> bytes:
    """Read the small file that `flag` names.

    Raises:
      InputError: it cannot be read, or is larger.
    """
    try:
        return read_bytes(path, most_bytes=most_bytes)
    except UnreadableError as error:
        raise InputError(f"{flag} {error}") from error


def write_output(path: Path, text: str, flag: str) -> None:
    """Write the file that `flag` names, whole or not at all.

    What a link points to is written, and the link stays. A device or pipe is written as it is, and what this process
    prints into (/dev/stdout) is printed into.

    Raises:
      InputError: it cannot be written.
    """
    try:
        place = _in_place(path)
        if isinstance(place, Path):
            place.write_text(text, encoding="utf-8")
        elif place is not None:
            place.write(text)
        else:
            write_file(path.resolve(), text)
    except OSError as error:
        raise InputError(
            f"{flag} {path} cannot be written: {error}. Name a file in a folder you may write to."
        ) from error


def _in_place(path: Path) -> TextIO | Path | None:
    """What is written where no file may take the place of `path`; None where one may.

    A stream, if it is what this process prints into; the path, if a device, pipe or socket is there.
    """
    if not path.exists() or path.is_dir():
        return None
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # of a notebook, or closed
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                return stream
    return None if path.is_file() else path


def _require_names(arguments: Sequence[str]) -> None:
    """Names go into results, tables and pages, all of them UTF-8: others are refused before anything is done."""
    for name in (*arguments, str(Path.cwd())):
        if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise InputError(f"The name {os.fsencode(name)!r} is not valid UTF-8. Rename the file or folder.")
    for argument in arguments:
        place = argument.rpartition("=")[2]
        try:
            Path(place).expanduser()
        except RuntimeError as error:
            raise InputError(f"{place} is in a home folder that is not known. Write the path in full.") from error


def _collect_less() -> None:
    """Look for circular garbage less often: imports and tracing make so many objects that it took a tenth of a start.

    What has been imported stays to the end and is not looked at any more.
    """
    gc.freeze()
    gc.set_threshold(50_000)


def _complain(text: str) -> None:
    """Say what went wrong; where that cannot be written, the exit code still says it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _let_go(stream: TextIO) -> bool:
    """Write what a stream still holds; if that fails, False, and Python finds nothing left to fail at when it ends."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True


def run(main: Callable[[Sequence[str]], int], *, leave: Callable[[int], Any] = sys.exit) -> None:
    """Run a command and leave the process with its exit code: 0 done, or one of the EXIT_ codes above.

    Args:
      main: arguments -> exit code.
      leave: how to end the process.
    """
    _collect_less()
    try:
        _require_names(sys.argv[1:])
        code = main(sys.argv[1:])
    except InputError as error:
        _complain(f"error: {error}")
        code = EXIT_BAD_INPUT
    except OSError as error:
        if error.errno not in _OF_THE_USER:
            raise
        shown = _shortened(printable(str(error.filename or "")), 200)
        advice = "Free space or choose another folder, and start the same command again."
        if error.errno == errno.ENAMETOOLONG:
            advice = "Choose a shorter name: a path has at most 4,095 bytes, and a part of it 255."
        _complain(f"error: {error.strerror}{': ' if shown else ''}{shown}. {advice}")
        code = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        _complain("Interrupted. What was finished is kept; start the same command again.")
        code = EXIT_INTERRUPTED
    except DivergenceError as error:
        _complain(f"error: {error}")
        code = EXIT_DIVERGED
    except NotSavedError as error:
        _complain(f"error: {error} Free space and start the same command again.")
        code = EXIT_NOT_SAVED
    except HostError as error:
        _complain(f"error: {error}")
        code = EXIT_HOST_LOST
    if not _let_go(sys.stdout) and code == 0:
        _complain("error: Not all of the output could be written. Free space, or choose another place for it.")
        code = EXIT_BAD_INPUT
    _let_go(sys.stderr)
    if compiler.is_busy():  # nothing can interrupt it, and Python would wait for it
        os._exit(code)
    leave(code)
