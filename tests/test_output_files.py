"""Where --json and its like write to: files, whatever a link points to, and devices as they are."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from icre_jax.errors import InputError
from icre_jax.files import whole_file
from icre_jax.machine import command
from tests.conftest import ROOT, refused, run_command


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path):
    (tmp_path / "kept").mkdir()
    target, link = tmp_path / "kept" / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    command.require_writable(link, "--json")
    command.write_output(link, "new", "--json")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["target.json"]


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    command.require_writable(pipe, "--json")
    command.write_output(pipe, "numbers\n", "--json")
    reader.join(60)
    assert heard == ["numbers\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_no_file_takes_the_place_of_a_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError), whole_file(tmp_path / "pipe") as partial:
        partial.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("into_a_file", [False, True])
def test_numbers_on_the_standard_output_as_a_user_wants_them(tree, tmp_path, into_a_file):
    flags = ("--dataset", "sysu_mm01", "--data_dir", str(tree), "--json", "/dev/stdout")
    if into_a_file:
        out = tmp_path / "out.txt"
        with out.open("w") as stream:
            done = subprocess.run(
                [sys.executable, "-W", "error", "-m", "icre_jax.verify", *flags],
                cwd=ROOT, stdout=stream, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        said = out.read_text()
    else:
        done = run_command("icre_jax.verify", *flags)
        said = done.stdout
    assert done.returncode == 0, done.stderr
    table, numbers, end = (said.index(words) for words in ("identities", '"dataset": "sysu_mm01"', "Sound: 0 errors"))
    assert table < numbers
    assert end > 0
    assert Path("/dev/stdout").is_symlink()


def test_a_bad_input_leaves_it_empty():
    flags = ("--dataset", "llcm", "--data_dir", "/dev/null", "--json", "/dev/stdout")
    refused(run_command("icre_jax.verify", *flags), "/dev/null")


def test_a_full_device_is_said():
    with pytest.raises(InputError, match=r"--json /dev/full cannot be written: .*No space left"):
        command.write_output(Path("/dev/full"), "x" * 2**20, "--json")


@pytest.mark.parametrize(
    ("statement", "out", "error", "code"),
    [
        ("return 0", "/dev/null", "/dev/null", 0),
        ("print('lost'); return 0", "/dev/full", "/dev/null", command.EXIT_BAD_INPUT),
        ("print('lost'); return 0", "/dev/full", "/dev/full", command.EXIT_BAD_INPUT),
        ("raise NotSavedError('No room.')", "/dev/null", "/dev/full", command.EXIT_NOT_SAVED),
        (
            "Screen(may_fail=True).say('lost'); raise NotSavedError('No room.')",
            "/dev/full",
            "/dev/full",
            command.EXIT_NOT_SAVED,
        ),
        ("Screen(may_fail=True).say('lost'); return command.EXIT_STOPPED", "/dev/full", "/dev/full", 75),
        ("Screen().say('lost'); return 0", "/dev/full", "/dev/null", command.EXIT_BAD_INPUT),
    ],
)
def test_the_exit_code_is_the_same_where_nothing_can_be_written(statement, out, error, code):
    """As in a job whose log lies on the disk that is full."""
    program = (
        "from icre_jax.errors import NotSavedError\nfrom icre_jax.machine import command\n"
        f"from icre_jax.machine.screen import Screen\ndef main(_):\n    {statement}\ncommand.run(main)\n"
    )
    with Path(out).open("w") as stdout, Path(error).open("w") as stderr:
        process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=stdout, stderr=stderr, timeout=120)
    assert process.returncode == code
