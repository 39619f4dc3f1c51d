"""What `python -m icre_jax.export --push` does with a stand-in for the hub: nothing here reaches a network.

`tests/test_export.py` has the whole command.
"""

import sys
import types

import pytest

from icre_jax.engine.hub import push, require_hub
from icre_jax.errors import InputError
from tests.conftest import refused, run_command


class Hub:
    """Stands in for huggingface_hub in this process."""

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
