"""`python -m icre_jax.serve`: as a user starts it, what it refuses, and that it answers as `icre_jax.search` does."""

import contextlib
import http.client
import importlib
import json
import re
import signal
import socket
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest

import icre_jax
from icre_jax import rendering
from icre_jax.errors import InputError
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.serving.searcher import GoneError, Searcher, UnusableError
from icre_jax.serving.server import check_access
from icre_jax.sums import seal, unseal
from tests.conftest import ROOT, refused, run_command
from tests.page_server import COLOURS, SHORT, Colours, calibrated, image_bytes, make_gallery

# Not the seed of the network in the package: nobody here was in its training.
STRANGERS = rendering.SyntheticSettings(
    seed=77, difficulty="easy", num_train_ids=4, num_val_ids=2, num_test_ids=8, num_images_per_camera=1,
    image_size=(128, 64),
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A rendered tree with the index of its visible test images, and a calibration for it."""
    folder = tmp_path_factory.mktemp("made")
    rendering.write_tree("sysu_mm01", folder / "people", STRANGERS)
    tree = ("--images", str(folder / "people"), "--dataset", "sysu_mm01", "--network", "synthetic")
    assert importlib.import_module("icre_jax.index").main(
        ["--index", str(folder / "gallery"), "--modality", "visible", *tree]
    ) == 0  # fmt: skip
    index = GalleryIndex.open(folder / "gallery")
    facts = {"num_enrolled": index.num_persons, "num_images": float(len(index)), "threshold": 0.6}
    known = calibrated(**facts, model_hash=index.header.model_hash, origin="synthetic")
    (folder / "calibration.json").write_text(known.to_json())
    return folder


def infrared(made, part):
    """Infrared images of the people of a part of the tree, one each."""
    people = made / "people"
    pids = (people / "exp" / f"{part}_id.txt").read_text().split(",")
    return [next((people / "cam6" / f"{int(pid):04d}").glob("*.jpg")) for pid in pids]


def test_answers_are_those_of_the_search(made, tmp_path):
    images = [*infrared(made, "test"), *infrared(made, "train")]
    flags = ("--index", made / "gallery", "--calibration", made / "calibration.json")
    more = ("--modality", "infrared", "--json", tmp_path / "found.json", "--top", "100", "--images", *images)
    assert importlib.import_module("icre_jax.search").main([str(flag) for flag in (*flags, *more)]) == 0
    searches = json.loads((tmp_path / "found.json").read_text())["searches"]
    searcher = Searcher.load(made / "gallery", network=None, calibration=flags[3], top=50, limits=SHORT)
    verdicts = set()
    for image, search in zip(images, searches, strict=True):
        answer = searcher.find_image(image.read_bytes(), "infrared")
        verdicts.add(answer["verdict"])
        assert answer["verdict"] == search["answer"]
        assert answer["people"][0]["similarity"] == pytest.approx(search["best_similarity"], abs=1e-6)
        first = {}
        for candidate in search["candidates"]:
            first.setdefault(candidate["person"], candidate)
        candidates = [person for person in answer["people"] if person["candidate"]]
        assert [person["person"] for person in candidates] == list(first)
        assert [person["images"][0]["path"] for person in candidates] == [found["path"] for found in first.values()]
        assert len(answer["people"]) == 8
    assert verdicts == {"candidates", "not in the gallery"}


@pytest.mark.parametrize("num_images", [1, 40])
def test_people_stand_where_their_best_image_does(tmp_path, num_images):
    """In float64 by hand, also where the first images are all of one person."""
    index = make_gallery(tmp_path, num_images)
    searcher = Searcher(tmp_path / "gallery", Colours(), None, top=3, limits=SHORT)
    colour = (250, 40, 30)
    answer = searcher.find_image(image_bytes(colour), "infrared")
    query = np.array(colour, np.float64) + 1
    similarities = index.embeddings.astype(np.float64) @ (query / np.linalg.norm(query))
    best = {}
    for entry, similarity in zip(index.entries, similarities, strict=True):
        best[entry.person] = max(best.get(entry.person, -1), similarity)
    order = sorted(best, key=lambda person: -best[person])
    assert [person["person"] for person in answer["people"]] == order
    for person in answer["people"]:
        assert person["similarity"] == pytest.approx(best[person["person"]], abs=1e-5)
        assert len(person["images"]) == min(num_images, 4)
    assert answer["verdict"] is None
    assert "no calibration was given" in answer["no_verdict"]


def test_an_image_of_the_gallery_is_left_out_of_its_own_answer(tmp_path):
    index = make_gallery(tmp_path)
    calibration = calibrated(query_modality="visible")
    searcher = Searcher(tmp_path / "gallery", Colours(), calibration, top=3, limits=SHORT)
    state = searcher.gallery(0)["state"]
    for row, entry in enumerate(index.entries):
        answer = searcher.find_row(state, row)
        rows = [image["row"] for person in answer["people"] for image in person["images"]]
        assert row not in rows
        assert len(rows) == len(index) - 1
        assert answer["people"][0]["person"] == entry.person
        assert answer["verdict"] is None
    for wrong in (len(index), -1):
        with pytest.raises(GoneError):
            searcher.find_row(state, wrong)


def test_a_verdict_only_where_the_calibration_is_for_it(tmp_path):
    index = make_gallery(tmp_path)
    searcher = Searcher(tmp_path / "gallery", Colours(), calibrated(0.99), top=3, limits=SHORT)
    assert searcher.about()["calibrated"] == "infrared"
    red, grey = image_bytes(COLOURS["anna"]), image_bytes((100, 100, 100))
    assert searcher.find_image(red, "infrared")["verdict"] == "candidates"
    assert searcher.find_image(grey, "infrared")["verdict"] == "not in the gallery"
    answer = searcher.find_image(grey, "visible")
    assert (answer["verdict"], answer["threshold"]) == (None, None)
    assert "the calibration is for infrared images" in answer["no_verdict"]
    # The gallery outgrows what was calibrated, while the page is served.
    entries = [index.entries[0]._replace(path=f"more{number}.png", person=f"p{number}") for number in range(40)]
    index.add(np.repeat(index.embeddings[:1].astype(np.float32), 40, axis=0), entries)
    answer = searcher.find_image(grey, "infrared")
    assert answer["verdict"] is None
    assert "more than 10 times as many" in answer["no_verdict"]
    assert searcher.about()["calibrated"] is None


def test_heat_is_that_of_the_network(made):
    searcher = Searcher.load(made / "gallery", network=None, calibration=None, top=3, limits=SHORT)
    index = GalleryIndex.open(made / "gallery")
    state, image = searcher.gallery(0)["state"], infrared(made, "test")[0]
    net = icre_jax.load("synthetic")
    for seen, first, modality in (
        (searcher.explain_image(image.read_bytes(), "infrared", state, 1), image, "infrared"),
        (searcher.explain_row(state, 2, 1), index.entries[2].file, "visible"),
    ):
        expected = net.explain(first, index.entries[1].file, modalities=(modality, "visible"))
        assert seen["similarity"] == pytest.approx(expected.similarity, abs=1e-6)
        for heat, part in zip(seen["heat"], expected.heat, strict=True):
            np.testing.assert_allclose(heat, part / max(part.max(), 1e-12), atol=6e-4)
    json.dumps(seen, allow_nan=False)
    for now, row in (("0" * 16, 1), (state, len(index)), (state, -1)):
        with pytest.raises(GoneError):
            searcher.explain_image(image.read_bytes(), "infrared", now, row)
        with pytest.raises(GoneError):
            searcher.explain_row(now, 0, row)
    with pytest.raises(UnusableError):
        searcher.explain_image(b"no image", "infrared", searcher.gallery(0)["state"], 0)


def test_as_a_user_starts_it(made, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused(
            run_command("icre_jax.serve", "--index", str(made / "gallery"), "--port", port), f"port {port}: Address"
        )
    (tmp_path / "token").write_text("0123456789abcdef\n")
    flags = ("--index", made / "gallery", "--calibration", made / "calibration.json", "--port", "0")
    command = [sys.executable, "-m", "icre_jax.serve", *map(str, flags), "--token_file", str(tmp_path / "token")]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            lines = [process.stdout.readline() for _ in range(2)]
            port = int(re.search(r"Open http://127\.0\.0\.1:(\d+) in a browser", lines[1])[1])
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                body = infrared(made, "test")[0].read_bytes()
                for headers, status in (({}, 401), ({"Authorization": "Bearer 0123456789abcdef"}, 200)):
                    connection.request("POST", "/api/search?modality=infrared", body, headers)
                    answer = connection.getresponse()
                    assert answer.status == status
                    found = json.loads(answer.read())
                for address, content in (
                    (f"{found['state']}/0?modality=infrared", body),
                    (f"{found['state']}/0?asked=1", b""),
                ):
                    connection.request("POST", f"/api/explain/{address}", content, headers)
                    answer = connection.getresponse()
                    assert answer.status == 200
                    seen = json.loads(answer.read())
                    assert np.shape(seen["heat"]) == (2, 8, 4)
            assert found["verdict"] in ("candidates", "not in the gallery")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert "Stopped. Nothing of what was searched for is kept." in out
    assert err == ""
    assert "0123456789abcdef" not in "".join(lines) + out


@pytest.fixture
def wrong(made, tmp_path):
    """Name -> flags and what their refusal says."""
    (tmp_path / "short").write_text("hush")
    (tmp_path / "words").write_text("two words are no token")
    (tmp_path / "good").write_text("a" * 40)
    make_gallery(tmp_path)
    calibration = made / "calibration.json"
    known = unseal(json.loads(calibration.read_text()))
    changed = {
        "other.json": {"model_hash": "0" * 64}, "small.json": {"num_enrolled": 1, "num_images": 1.0},
        "flip.json": {"flip": True}, "infrared.json": {"gallery_modality": "infrared"},
    }  # fmt: skip
    for name, fields in changed.items():
        (tmp_path / name).write_text(json.dumps(seal(known | fields)))
    index = ("--index", made / "gallery", "--port", "0")
    return {
        "no index": (("--index", tmp_path / "none", "--port", "0"), "is not the index of a gallery"),
        "other network": (
            ("--index", tmp_path / "gallery", "--port", "0", "--network", "synthetic"), "with another network"
        ),
        "no network": (("--index", tmp_path / "gallery", "--port", "0"), "say where it is with --network"),
        "top": ((*index, "--top", "0"), "--top is 0; 1 to 50 people"),
        "no calibration": ((*index, "--calibration", tmp_path / "none.json"), "cannot be read as a calibration"),
        "other calibration": ((*index, "--calibration", tmp_path / "other.json"), "another network"),
        "small calibration": ((*index, "--calibration", tmp_path / "small.json"), "more than 10 times as many"),
        "flip": ((*index, "--calibration", tmp_path / "flip.json"), "with mirrored images"),
        "other gallery": ((*index, "--calibration", tmp_path / "infrared.json"), "and infrared galleries"),
        "port": ((*index[:2], "--port", "70000"), "--port is 70000; 0 (any that is free) to 65535"),
        "name for an address": ((*index, "--listen", "localhost"), "give an IP address of this machine"),
        "no token": ((*index, "--listen", "0.0.0.0"), "Say --token_file FILE too"),
        "no token, other address": ((*index, "--listen", "192.168.1.7"), "Say --token_file FILE too"),
        "no name": ((*index, "--listen", "0.0.0.0", "--token_file", tmp_path / "good"), "which names with --host_name"),
        "a name with a port": ((*index, "--host_name", "here:80"), "--host_name is 'here:80'"),
        "short token": ((*index, "--token_file", tmp_path / "short"), "one word of 16 to 1024"),
        "two words": ((*index, "--token_file", tmp_path / "words"), "one word of 16 to 1024"),
        "no token file": ((*index, "--token_file", tmp_path / "gone"), "cannot be read: there is no such file"),
        "not here": (
            (*index, "--listen", "192.0.2.1", "--token_file", tmp_path / "good"), "Cannot listen at 192.0.2.1"
        ),
    }  # fmt: skip


def test_bad_input(wrong):
    main = importlib.import_module("icre_jax.serve").main
    for name, (flags, words) in wrong.items():
        with pytest.raises(InputError) as refusal:
            main([str(flag) for flag in flags])
        assert words in str(refusal.value), name
        assert "hush" not in str(refusal.value)


def test_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "icre_jax.serving.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"pip install 'icre_jax\[serve\]'"):
        importlib.import_module("icre_jax.serve").main(["--index", str(tmp_path)])


def test_it_listens_to_this_machine_unless_told_otherwise(tmp_path):
    local = check_access("127.0.0.1", (), None)
    assert local.names == ("127.0.0.1", "localhost", "[::1]", "127.0.0.1")
    (tmp_path / "token").write_text("a" * 16)
    others = check_access("0.0.0.0", ("Lab.Example",), tmp_path / "token")
    assert "lab.example" in others.names
    assert others.token == "a" * 16


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ((), "http://127.0.0.1:8765 in"),
        (("--listen", "::1"), "http://[::1]:8765 in"),
        (("--listen", "0:0::1"), "http://[::1]:8765 in"),
        (("--listen", "::1", "--host_name", "Lab.example", "other"), "http://Lab.example:8765 in"),
        (("--host_name", "[fe80::2]"), "http://[fe80::2]:8765 in"),
    ],
)
def test_the_address_that_is_said_can_be_opened(flags, shown, tmp_path, monkeypatch, capsys):
    opened = contextlib.nullcontext(SimpleNamespace(listen=lambda: None, getsockname=lambda: ("", 8765)))
    monkeypatch.setattr("icre_jax.serving.server.bind", lambda access, port: opened)
    monkeypatch.setattr("icre_jax.serving.server.serve", lambda *_: None)
    monkeypatch.setattr(Searcher, "load", lambda *_, **__: SimpleNamespace(warm_up=lambda: None))
    importlib.import_module("icre_jax.serve").main(["--index", str(tmp_path), *flags])
    assert shown in capsys.readouterr().out


def test_the_page_travels_with_the_package():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folder = ROOT / "icre_jax" / "serving"
    files = {file.name for file in folder.iterdir() if file.is_file() and file.suffix != ".py"}
    assert files == {*data["icre_jax.serving"]}
