"""`--engine ray`: what can be known without Ray, and, where it is installed, two local workers against one machine.

The second part needs `icre_jax[ray]` (`make slow` installs it).
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import icre_jax
from icre_jax import rendering
from icre_jax.errors import InputError, UnusableImagesError
from icre_jax.fleet.cluster import Cluster, Place, _find_place
from icre_jax.fleet.embedding import _Embedder, embed_on_workers
from icre_jax.fleet.searching import _Shard
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.search import search
from icre_jax.retrieval.storage import Entry
from tests.conftest import OTHER_PEOPLE, ROOT, free_port, run_command
from tests.test_commands import refused

HERE = importlib.util.find_spec("ray") is not None
needs_ray = [
    pytest.mark.slow,
    pytest.mark.skipif(not HERE, reason="ray is not here: pip install 'icre_jax[ray]'"),
]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A rendered LLCM tree of people whom the network in the package does not know."""
    folder = tmp_path_factory.mktemp("people") / "tree"
    rendering.write_tree("llcm", folder, dataclasses.replace(OTHER_PEOPLE, seed=9))
    return folder


@pytest.fixture(scope="module")
def images(people, tmp_path_factory):
    """A list of all infrared images."""
    file = tmp_path_factory.mktemp("list") / "images.txt"
    file.write_text("\n".join(str(path) for path in sorted((people / "nir").rglob("*.jpg"))))
    return file


@pytest.fixture(scope="module")
def gallery(people, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "gallery"
    flags = ["--index", folder, "--images", people / "vis", "--modality", "visible", "--network", "synthetic"]
    assert importlib.import_module("icre_jax.index").main([str(flag) for flag in flags]) == 0
    return folder


def make_index(folder, num_rows=3000, size=40):
    rows = np.random.default_rng(0).standard_normal((num_rows, size)).astype(np.float16)
    rows[100:140] = rows[2000]  # ties within shares and across them
    entries = [Entry(f"{i}.jpg", "", None, "visible", "/r") for i in range(num_rows)]
    return GalleryIndex.create(folder, rows, entries, model_hash="h")


def find(gallery, images, out, *flags, **how):
    return run_command(
        "icre_jax.search", "--index", str(gallery), "--images", str(images), "--modality", "infrared",
        "--json", str(out), "--top", "4", *flags, **how,
    )  # fmt: skip


def embed(images, out, *flags):
    return run_command(
        "icre_jax.embed", "--network", "synthetic", "--images", str(images), "--modality", "infrared",
        "--out", str(out), "--batch_size", "8", *flags,
    )  # fmt: skip


def test_devices_answer_as_numpy_does(gallery, images, tmp_path):
    for name, devices in (("numpy", 1), ("devices", 4)):
        process = find(gallery, images, tmp_path / name, "--engine", name, num_devices=devices)
        assert process.returncode == 0, process.stderr
        assert process.stderr == ""
    assert (tmp_path / "numpy").read_bytes() == (tmp_path / "devices").read_bytes()
    assert len(json.loads((tmp_path / "numpy").read_text())["searches"]) > 10


def test_the_code_of_the_page_makes_the_index_that_the_command_makes(gallery, people, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, net = GalleryIndex.open(gallery), icre_jax.load("synthetic")
    (tmp_path / "parts").mkdir()
    for start in range(0, len(one), 20):
        files = [entry.file for entry in one.entries[start : start + 20]]
        np.savez(
            f"parts/{start:03d}.npz",
            features=net.embed(files, modality="visible"),
            path=np.array([str(file) for file in files]),
            network_sha256=net.model_hash,
        )
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "fleet.md").read_text(), re.DOTALL)[1]
    exec(compile(code, "docs/fleet.md", "exec"), {})
    made = GalleryIndex.open(tmp_path / "gallery")
    np.testing.assert_allclose(made.embeddings, one.embeddings, atol=1e-3)
    assert [entry.file for entry in made.entries] == [entry.file for entry in one.entries]
    assert [entry.person for entry in made.entries] == [entry.file.parent.name for entry in one.entries]
    assert (made.header.model_hash, made.header.preprocessing) == (one.header.model_hash, one.header.preprocessing)


@pytest.mark.skipif(HERE, reason="ray is here")
def test_the_extra_is_named(gallery, images, tmp_path):
    for process in (
        find(gallery, images, tmp_path / "out", "--engine", "ray"),
        embed(images, tmp_path / "out.npz", "--engine", "ray"),
    ):
        refused(process, "--engine ray", "pip install 'icre_jax[ray]'", "one machine gives the same answers")
    assert not list(tmp_path.iterdir())


def test_flags_of_ray_go_with_ray(gallery, images, tmp_path):
    refused(find(gallery, images, tmp_path / "out", "--num_workers", "2"), "go with --engine ray")


@pytest.mark.parametrize("door", ["search", "embed"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num_workers", "0"], "--num_workers is 0; it must be 1 or more"),
        (["--ray_address", "ray://head:10001"], "give HOST:PORT"),
        (["--ray_address", "head:99999"], "give HOST:PORT"),
        (["--ray_address", "auto"], "give HOST:PORT"),
        (["--ray_address", "127.0.0.1:{free}"], "Nothing answers at --ray_address 127.0.0.1"),
    ],
)
def test_bad_flags(door, flags, words, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ray")
    with socket.socket() as probe:  # bound, and nobody listens
        probe.bind(("127.0.0.1", 0))
        flags = [flag.format(free=probe.getsockname()[1]) for flag in flags]
        needed = {
            "search": ["--index", str(tmp_path), "--images", str(tmp_path)],
            "embed": ["--network", "synthetic", "--images", str(tmp_path), "--out", str(tmp_path / "out.npz")],
        }[door]
        with pytest.raises(InputError, match=words):
            importlib.import_module(f"icre_jax.{door}").main(
                [*needed, "--modality", "visible", "--engine", "ray", *flags]
            )


def nodes(*machines):
    """What Ray says of machines with (CPUs, GPUs)."""
    listed = [{"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}} for cpus, gpus in machines]
    return SimpleNamespace(nodes=lambda: [*listed, {"Alive": False, "Resources": {"CPU": 64.0}}])


@pytest.mark.parametrize(
    ("machines", "number", "use_gpus", "place"),
    [
        ([(16, 0), (16, 0)], None, False, Place(2, 16, 0)),
        ([(16, 4), (16, 4)], None, True, Place(8, 4, 1)),
        ([(16, 4), (16, 4)], None, False, Place(2, 16, 0)),
        ([(16, 0), (4, 0), (0, 0)], None, True, Place(2, 4, 0)),  # a head that takes no work
        ([(2, 0)], 2, True, Place(2, 1, 0)),
        ([(2, 0), (8, 0)], 9, False, Place(9, 1, 0)),
    ],
)
def test_workers_fit_where_they_are_put(machines, number, use_gpus, place):
    assert _find_place(Cluster(None, number), nodes(*machines), use_gpus=use_gpus) == place


@pytest.mark.parametrize(
    ("machines", "number", "words"),
    [([(2, 0)], 3, "has 2 CPUs"), ([(8, 2)], 3, "has 2 GPUs"), ([(0, 0)], None, "0 CPUs")],
)
def test_more_workers_than_places(machines, number, words):
    with pytest.raises(InputError, match=words):
        _find_place(Cluster(None, number), nodes(*machines), use_gpus=True)


def test_a_shard_searches_its_rows_and_says_what_is_wrong(tmp_path):
    index, queries = make_index(tmp_path / "index"), np.ones((1, 40), np.float32)
    shard = _Shard()
    assert shard.open(index.folder, index.header, range(1000, 2500)) == ""
    found, expected = shard.search(queries, 5), search(queries, index.embeddings[1000:2500], top=5)
    np.testing.assert_array_equal(found.indices, expected.indices + 1000)
    assert "is missing: every machine has to see" in _Shard().open(tmp_path, index.header, range(3))
    (index.folder / index.header.embeddings_name).write_bytes(b"no array")
    assert "damaged" in _Shard().open(index.folder, index.header, range(3))


def test_an_embedder_says_what_is_wrong(images, tmp_path):
    net = icre_jax.load("synthetic")
    flags = {"modality": "infrared", "batch_size": 8, "flip": False}
    files = images.read_text().splitlines()[:3]
    answer = _Embedder("synthetic", None, net.model_hash, flags)({"first": 5, "files": files})
    vectors = np.frombuffer(answer["vectors"], np.float32).reshape(3, net.size)
    np.testing.assert_array_equal(vectors, net.embed(files, modality="infrared", batch_size=8))
    assert (answer["first"], answer["number"], answer["unusable"], answer["refused"]) == (5, 3, [], "")
    missing = str(tmp_path / "none.jpg")
    answer = _Embedder("synthetic", None, net.model_hash, flags)({"first": 0, "files": [*files, missing]})
    assert answer["unusable"] == [f"{missing}: no such file"]
    assert "another network" in _Embedder("synthetic", None, "f" * 64, flags)({"first": 0, "files": files})["refused"]
    assert "no-such" in _Embedder(str(tmp_path / "no-such"), None, "f", flags)({"first": 0, "files": files})["refused"]


class TestTwoWorkers:
    """With Ray."""

    pytestmark = needs_ray

    def test_search_is_that_of_one_machine(self, gallery, images, tmp_path, monkeypatch):
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

    def test_embeddings_are_those_of_one_machine(self, images, tmp_path):
        one = embed(images, tmp_path / "one.npz")
        two = embed(images, tmp_path / "two.npz", "--engine", "ray", "--num_workers", "2")
        assert one.returncode == two.returncode == 0, two.stderr
        assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()

    def test_all_images_that_cannot_be_used_are_named(self, images, tmp_path):
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

    def test_shards_are_the_whole_for_any_number_of_queries(self, tmp_path):
        make_index(tmp_path / "index")
        assert run_python(SHARDS, tmp_path / "index") == "same\nsame\n"

    def test_another_program_cannot_join(self):
        """Ray listens at all addresses, and whoever joins may run programs."""
        assert run_python(INTRUDER) == "refused\nrefused\n"

    def test_a_cluster_of_two_is_joined_and_left(self, gallery, images, tmp_path, monkeypatch):
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

    def test_a_lost_worker_is_said(self, tmp_path):
        make_index(tmp_path / "index")
        assert "A worker of Ray was lost" in run_python(LOST, tmp_path / "index")


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


def test_embedding_in_order_needs_no_order_of_answers(images, monkeypatch):
    """Answers come as workers finish."""
    net = icre_jax.load("synthetic")
    files = [Path(name) for name in images.read_text().splitlines()]

    class Reversed:
        def __init__(self, items):
            self.items = items

        def map(self, worker, *, fn_constructor_args, **_):
            self.worker = worker(*fn_constructor_args)
            return self

        def iter_rows(self):
            return map(self.worker, reversed(self.items))

    data = SimpleNamespace(
        from_items=Reversed,
        DataContext=SimpleNamespace(get_current=SimpleNamespace),
        ActorPoolStrategy=lambda **_: None,
    )
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(data=data))
    monkeypatch.setitem(sys.modules, "ray.data", data)
    monkeypatch.setattr("icre_jax.fleet.embedding.open_cluster", functools.partial(fake_cluster, Place(2, 1, 0)))
    seen = []
    how = {"modality": "infrared", "batch_size": 6, "flip": True, "cluster": Cluster()}
    vectors = embed_on_workers(net, files, progress=lambda *done: seen.append(done), **how)
    np.testing.assert_array_equal(vectors, net.embed(files, modality="infrared", batch_size=6, flip=True))
    assert seen[-1] == (len(files), len(files))
    broken = [*files[:2], Path("a"), *files[2:9], Path("b")]
    with pytest.raises(UnusableImagesError) as error:
        embed_on_workers(net, broken, progress=lambda *_: None, **how)
    assert [Path(finding.split(":")[0]).name for finding in error.value.findings] == ["a", "b"]


class fake_cluster:  # noqa: N801  it stands in for a function
    def __init__(self, place, *_, **__):
        self.place = place

    def __enter__(self):
        return self.place

    def __exit__(self, *_):
        return None
