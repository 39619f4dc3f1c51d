"""`python -m icre_jax.export --push` with a stand-in for the hub: nothing here reaches a network."""

import json
import os
import subprocess
import sys
import types

import pytest

from icre_jax.engine.hub import push, require_hub
from icre_jax.errors import InputError
from tests.conftest import ROOT, run_command
from tests.small_runs import run
from tests.test_commands import refused

STAND_IN = '''
"""Stands in for huggingface_hub: writes down what it is asked."""
import json, os, pathlib


class HfApi:
    def _note(self, what, **words):
        with open(os.environ["STAND_IN_NOTES"], "a") as file:
            file.write(json.dumps({"what": what, **words}) + "\\n")

    def create_repo(self, repository, *, private, exist_ok):
        self._note("create", repository=repository, private=private, exist_ok=exist_ok)
        return f"https://hub.test/{repository}"

    def repo_info(self, repository):
        import types
        return types.SimpleNamespace(private=True)

    def list_repo_files(self, repository):
        return [".gitattributes"]

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self._note("upload", repository=repo_id, files=sorted(os.listdir(folder_path)))
'''


class Hub:
    """The same for this process."""

    def __init__(self, *, private=True, files=(".gitattributes",), fails=None):
        self.asked, self._private, self._files, self._fails = [], private, files, fails

    def create_repo(self, repository, *, private, exist_ok):
        if self._fails == "create":
            raise RuntimeError("401 Client Error\nmore of it")
        self.asked.append(("create", repository, private))
        return f"https://hub.test/{repository}"

    def repo_info(self, repository):
        return types.SimpleNamespace(private=self._private)

    def list_repo_files(self, repository):
        return list(self._files)

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        if self._fails == "upload":
            raise OSError("connection lost")
        self.asked.append(("upload", repo_id, folder_path))


@pytest.fixture
def use(monkeypatch):
    def use(hub):
        module = types.ModuleType("huggingface_hub")
        module.__spec__ = types.SimpleNamespace()
        module.HfApi = lambda: hub
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        return hub

    return use


def test_the_command_uploads_what_it_wrote_to_a_private_repository(small, tmp_path):
    small.schedule.num_epochs = 1
    run(small, tmp_path / "run")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "huggingface_hub.py").write_text(STAND_IN)
    notes = tmp_path / "notes.jsonl"
    command = [sys.executable, "-m", "icre_jax.export", "--workdir", str(tmp_path / "run"), "--format", "safetensors"]
    process = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--push", "lab/icre-test"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "lib"), "STAND_IN_NOTES": str(notes), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "Uploaded to https://hub.test/lab/icre-test, private." in process.stdout
    created, uploaded = (json.loads(line) for line in notes.read_text().splitlines())
    assert created == {"what": "create", "repository": "lab/icre-test", "private": True, "exist_ok": True}
    assert uploaded["files"] == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert "README.md" in uploaded["files"]


def test_bad_input(tmp_path):
    flags = ("--workdir", str(tmp_path / "run"), "--out", str(tmp_path / "out"))
    refused(run_command("icre_jax.export", *flags, "--push", "nobody"), "--push is 'nobody'", "OWNER/NAME")
    refused(run_command("icre_jax.export", *flags, "--public"), "give --push OWNER/NAME")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a b/c", "https://hub.test/a/b", "a/b\n"]
)
def test_a_repository_is_an_owner_and_a_name(name, use):
    use(Hub())
    with pytest.raises(InputError, match="must be OWNER/NAME"):
        require_hub(name)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'icre_jax\[hub\]'"):
        require_hub("lab/net")


@pytest.mark.parametrize("public", [False, True])
def test_only_what_is_asked_for_is_seen_by_everybody(public, use, tmp_path):
    hub = use(Hub(private=not public))
    assert push(tmp_path, "lab/net", public=public) == "https://hub.test/lab/net"
    assert hub.asked == [("create", "lab/net", not public), ("upload", "lab/net", str(tmp_path))]


@pytest.mark.parametrize(
    ("hub", "words"),
    [
        (Hub(private=False), "is on the hub already and is public: nothing was uploaded"),
        (Hub(files=(".gitattributes", "model.bin")), "holds model.bin: nothing was uploaded"),
        (Hub(fails="create"), "could not be uploaded to lab/net: 401 Client Error. Log in with `hf auth login`"),
        (Hub(fails="upload"), "could not be uploaded to lab/net: connection lost"),
    ],
)
def test_what_cannot_be_uploaded(hub, words, use, tmp_path):
    use(hub)
    with pytest.raises(InputError, match=words):
        push(tmp_path, "lab/net")
    assert not [call for call in hub.asked if call[0] == "upload"]
