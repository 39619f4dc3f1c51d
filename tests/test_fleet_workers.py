"""`--engine ray` with Ray: two local workers, and a cluster of two, against one machine.

Needs `icre_jax[ray]` (`make slow` installs it).
"""

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT, free_port, refused
from tests.galleries import embed, find, index_images, list_images, make_index

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not here: pip install 'icre_jax[ray]'"),
]


@pytest.fixture(scope="module")
def images(strangers, tmp_path_factory):
    return list_images(strangers, tmp_path_factory.mktemp("list"))


@pytest.fixture(scope="module")
def gallery(strangers, tmp_path_factory):
    return index_images(strangers, tmp_path_factory.mktemp("index"))


def test_search_is_that_of_one_machine(gallery, images, tmp_path, monkeypatch):
    # What others have set is not for this.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    before = leftovers()
    one = find(gallery, images, tmp_path / "one")
    two = find(gallery, images, tmp_path / "two", "--engine", "ray", "--num_workers", "2")
    assert two.returncode == 0, two.stderr
    assert two.stderr == ""
    assert two.stdout == one.stdout.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert leftovers() == before


def test_embeddings_are_those_of_one_machine(images, tmp_path):
    one = embed(images, tmp_path / "one.npz")
    two = embed(images, tmp_path / "two.npz", "--engine", "ray", "--num_workers", "2")
    assert one.returncode == two.returncode == 0, two.stderr
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_all_images_that_cannot_be_used_are_named(images, tmp_path):
    Image.new("RGB", (20, 40)).save(tmp_path / "good.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "empty.png").touch()
    names = images.read_text().splitlines()
    names[3:3], names[14:14] = [str(tmp_path / "broken.jpg")], [str(tmp_path / "empty.png")]
    (tmp_path / "list.txt").write_text("\n".join(names))
    one, two = (embed(tmp_path / "list.txt", tmp_path / "out.npz", *flags) for flags in ((), ("--engine", "ray")))
    refused(one, "broken.jpg", "empty.png")
    refused(two, one.stderr)
    assert not (tmp_path / "out.npz").exists()


def test_shards_are_the_whole_for_any_number_of_queries(tmp_path):
    make_index(tmp_path / "index")
    assert run_python(SHARDS, tmp_path / "index") == "same\nsame\n"


def test_another_program_cannot_join():
    """Ray listens at all addresses, and whoever joins may run programs."""
    assert run_python(INTRUDER) == "refused\nrefused\n"


def test_a_cluster_of_two_is_joined_and_left(gallery, images, tmp_path, monkeypatch):
    """Two of Ray's machines on this one, started by Ray's own command, as docs/fleet.md says."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ab" * 32)
    one = find(gallery, images, tmp_path / "one"), embed(images, tmp_path / "one.npz")
    assert [process.returncode for process in one] == [0, 0]
    address = f"127.0.0.1:{free_port()}"
    flags = "--engine", "ray", "--ray_address", address
    with two_machines(address):
        for process in (
            find(gallery, images, tmp_path / "two", *flags),
            embed(images, tmp_path / "two.npz", *flags),
            find(gallery, images, tmp_path / "again", *flags),  # it is still there
        ):
            assert process.returncode == 0, process.stderr
        refused(find(gallery, images, tmp_path / "no", *flags, "--num_workers", "9"), "this cluster has 2 CPUs")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "cd" * 32)
        refused(find(gallery, images, tmp_path / "no", *flags), "could not be joined", "uthentication")
    for name in ("two", "again"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "one").read_bytes()
    assert (tmp_path / "two.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()


def test_a_lost_worker_is_said(tmp_path):
    make_index(tmp_path / "index")
    assert "A worker of Ray was lost" in run_python(LOST, tmp_path / "index")


def test_reading_a_share_may_take_longer_than_a_place(tmp_path):
    make_index(tmp_path / "index")
    assert run_python(PATIENCE, tmp_path / "index") == "5\n"


@contextlib.contextmanager
def two_machines(address):
    """A cluster of two with a CPU each."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus", "1", "--block"]
    with (
        tempfile.TemporaryDirectory(prefix="ray_", ignore_cleanup_errors=True) as folder,
        contextlib.ExitStack() as stack,
    ):
        head = ["--head", "--port", address.split(":")[1], "--include-dashboard=false", "--temp-dir", folder]
        for role in (head, ["--address", address]):
            log = stack.enter_context((Path(folder) / f"{len(role)}.log").open("w+"))
            started = subprocess.Popen([*ray, *role], stdout=log, stderr=subprocess.STDOUT)
            stack.callback(started.wait, 60)
            stack.callback(started.terminate)
            until = time.monotonic() + 120
            while "--block" not in (Path(folder) / f"{len(role)}.log").read_text():  # "... will now block"
                assert started.poll() is None, (Path(folder) / f"{len(role)}.log").read_text()
                assert time.monotonic() < until
                time.sleep(0.5)
        yield


LOST = """
import os, sys
from pathlib import Path
import numpy as np
from icre_jax.errors import HostError
from icre_jax.fleet import searching
from icre_jax.fleet.cluster import Cluster
from icre_jax.retrieval.index import GalleryIndex

class Dying(searching._Shard):
    def search(self, queries, top):
        os._exit(1)

searching._Shard = Dying
try:
    searching.search_shards(
        np.ones((1, 40)), GalleryIndex.open(Path(sys.argv[1])), 5, cluster=Cluster(None, 2)
    )
except HostError as error:
    print(error)
"""


PATIENCE = """
import sys, time
from pathlib import Path
import numpy as np
from icre_jax.fleet import cluster, searching
from icre_jax.retrieval.index import GalleryIndex

class Slow(searching._Shard):
    def open(self, *index):
        time.sleep(25)
        return super().open(*index)

cluster._PLACE_SECONDS, searching._Shard = 20, Slow
index = GalleryIndex.open(Path(sys.argv[1]))
found = searching.search_shards(np.ones((1, 40)), index, 5, cluster=cluster.Cluster(None, 1))
print(found.indices.size)
"""


SHARDS = """
import sys
from pathlib import Path
import numpy as np
from icre_jax.fleet.cluster import Cluster
from icre_jax.fleet.searching import search_shards
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.search import search

index = GalleryIndex.open(Path(sys.argv[1]))
queries = np.random.default_rng(1).standard_normal((200, 40)).astype(np.float32)
queries[:3] = index.embeddings[2000]
for number, workers in ((50, 2), (200, 3)):
    whole = search(queries[:number], index.embeddings, top=60)
    found = search_shards(queries[:number], index, 60, cluster=Cluster(None, workers))
    np.testing.assert_array_equal(found.indices, whole.indices)
    assert found.similarities.tobytes() == whole.similarities.tobytes()
    print("same")
"""

INTRUDER = """
import os, subprocess, sys
from icre_jax.fleet.cluster import Cluster, open_cluster
join = "import logging, sys, ray; ray.init(address=sys.argv[1], logging_level=logging.ERROR, log_to_driver=False);"
join += "print('joined', ray.get(ray.remote(lambda: 7).remote()))"
with open_cluster(Cluster(None, 1), use_gpus=False):
    import ray
    address = ray.get_runtime_context().gcs_address
    for mode in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        process = subprocess.run(
            [sys.executable, "-c", join, address], env=os.environ | mode, capture_output=True, text=True, timeout=120
        )
        assert process.returncode != 0 and "joined" not in process.stdout
        assert "uthentication" in process.stdout + process.stderr, process.stderr
        print("refused")
"""


def run_python(code, *arguments):
    """What a program prints."""
    process = subprocess.run(
        [sys.executable, "-u", "-c", code, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def leftovers():
    return sorted(path.name for path in Path(tempfile.gettempdir()).glob("icre_ray_*"))
