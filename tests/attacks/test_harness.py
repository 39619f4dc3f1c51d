"""The harness notices what must not be: a test of the tests."""

import os
import pickle
import shutil
import time

import numpy as np
import pytest

from icre_jax.errors import InputError
from tests.attacks import harness
from tests.attacks.harness import Attacks, Reader
from tests.attacks.mutations import mutate


def speak(folder):
    raise InputError("A message.")


def unpickle(folder):
    pickle.loads(b"cos\ngetcwd\n.")


def fill(folder):
    np.ones(200 * 2**17)  # 200 MiB


def write_elsewhere(folder):
    (folder.parent / "elsewhere").write_text("x")


def leave(folder):
    (folder / "left").write_text("x")


def wait(folder):
    time.sleep(10)


def work(folder):
    began = time.process_time()
    while time.process_time() < began + 0.15:
        pass


CASES = {
    "nothing": (lambda folder: None, ""),
    "an error of the program": (lambda folder: [][0], "IndexError"),
    "a short message": (speak, "a message of 10 characters"),
    "a pickle": (unpickle, "pickle.find_class"),
    "a file elsewhere": (write_elsewhere, "written: "),
    "a program": (lambda folder: os.system("true"), "os.system"),
    "waiting": (wait, "TooSlowError"),
    "working": (work, "seconds"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_notices(name, tmp_path, monkeypatch):
    read, wrong = CASES[name]
    monkeypatch.setattr(harness, "PATIENCE", 0.5 if name == "waiting" else 60)
    monkeypatch.setattr(harness, "SECONDS", 0.1)
    (tmp_path / "folder").mkdir()
    outcome = harness.look(Reader(name, lambda *_: None, read), tmp_path / "folder", tmp_path / "tmp")
    assert wrong in outcome.wrong
    assert bool(wrong) == bool(outcome.wrong)


def test_it_measures_memory(tmp_path, monkeypatch):
    outcome = harness.look(Reader("memory", lambda *_: None, fill), tmp_path, tmp_path)
    assert 190 <= outcome.megabytes < 400
    monkeypatch.setattr(harness, "MOST_MEMORY", 100 * 2**20)
    assert "Memory" in harness.look(Reader("memory", lambda *_: None, fill), tmp_path, tmp_path).wrong


def test_what_is_left_in_the_folder_is_noticed_and_files_are_as_they_were(tmp_path):
    def make(folder):
        folder.mkdir()
        (folder / "a").write_text("sound")

    make(tmp_path / "sound")
    attacks = Attacks(Reader("x", lambda *_: None, lambda folder: None), tmp_path / "sound", tmp_path / "copy")
    attacks.places()
    assert attacks.failures == {}
    assert len(attacks.outcomes) == 6
    assert (tmp_path / "copy" / "a").read_text() == "sound"
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(AssertionError, match="was left by reading"):
        Attacks(Reader("x", lambda *_: None, leave), tmp_path / "sound", tmp_path / "copy")


def test_mutants_are_a_function_of_their_number():
    data = bytes(range(256)) * 20 + b'{"a": 12, "b": "text"}'
    mutants = [mutate(data, number) for number in range(300)]
    assert mutants == [mutate(data, number) for number in range(300)]
    assert len({content for _, content in mutants}) > 290
    assert sum(content == data for _, content in mutants) < 15
