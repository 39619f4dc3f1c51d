"""`--engine ray` and `--engine devices`: what needs no Ray. With it: test_fleet_workers.py."""

import functools
import importlib
import importlib.util
import json
import re
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import icre_jax
from icre_jax.errors import InputError, UnusableImagesError
from icre_jax.fleet.cluster import Cluster, Place, _find_place
from icre_jax.fleet.embedding import _Embedder, embed_on_workers
from icre_jax.fleet.searching import _Shard
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.search import search
from tests.conftest import ROOT, refused
from tests.galleries import embed, find, index_images, list_images, make_index

HERE = importlib.util.find_spec("ray") is not None


@pytest.fixture(scope="module")
def images(strangers, tmp_path_factory):
    return list_images(strangers, tmp_path_factory.mktemp("list"))


@pytest.fixture(scope="module")
def gallery(strangers, tmp_path_factory):
    return index_images(strangers, tmp_path_factory.mktemp("index"))


@pytest.mark.long
def test_devices_answer_as_the_host_does(gallery, images, tmp_path):
    for name, devices in (("host", 1), ("devices", 4)):
        process = find(gallery, images, tmp_path / name, "--engine", name, num_devices=devices)
        assert process.returncode == 0, process.stderr
        assert process.stderr == ""
    assert (tmp_path / "host").read_bytes() == (tmp_path / "devices").read_bytes()
    assert len(json.loads((tmp_path / "host").read_text())["searches"]) > 10


def test_the_code_of_the_page_makes_the_index_that_the_command_makes(gallery, tmp_path, monkeypatch):
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
    answer = _Embedder("synthetic", {}, net.model_hash, flags)({"first": 5, "files": files})
    vectors = np.frombuffer(answer["vectors"], np.float32).reshape(3, net.size)
    np.testing.assert_array_equal(vectors, net.embed(files, modality="infrared", batch_size=8))
    assert (answer["first"], answer["number"], answer["unusable"], answer["refused"]) == (5, 3, [], "")
    missing = str(tmp_path / "none.jpg")
    answer = _Embedder("synthetic", {}, net.model_hash, flags)({"first": 0, "files": [*files, missing]})
    assert answer["unusable"] == [f"{missing}: there is no such file"]
    assert "another network" in _Embedder("synthetic", {}, "f" * 64, flags)({"first": 0, "files": files})["refused"]
    assert "no-such" in _Embedder(str(tmp_path / "no-such"), {}, "f", flags)({"first": 0, "files": files})["refused"]


def test_embedding_in_order_needs_no_order_of_answers(images, monkeypatch, tmp_path):
    """Answers come as workers finish; and a folder that is called like the network in the box is not taken for it."""
    (tmp_path / "synthetic").mkdir()
    monkeypatch.chdir(tmp_path)
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
