"""Indexes of galleries and prepared records: folders of several files, each of them damaged."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from icre_jax.data.prepared import open_or_prepare
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.search import search
from icre_jax.retrieval.storage import HEADER, Entry
from icre_jax.sums import SEAL, seal
from tests.attacks.harness import Reader


def make_index(folder: Path, _) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    entries = [Entry(f"p{i % 5}/{i}.jpg", f"p{i % 5}", i % 3 or None, "visible", "/images") for i in range(40)]
    GalleryIndex.create(folder / "gallery", rows, entries, model_hash="a" * 64, origin="somewhere")


def read_index(folder: Path) -> None:
    index = GalleryIndex.open(folder / "gallery")
    queries = np.ones((2, index.header.dimensions), np.float32)
    found = search(queries, index.embeddings, top=3)
    assert all(index.entries[row].file is not None for row in found.indices.ravel())


def make_records(folder: Path, sound) -> None:
    for path in sound["prepared"].rglob("*"):
        target = folder / path.relative_to(sound["prepared"])
        target.mkdir(parents=True, exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())


def read_records(folder: Path) -> None:
    """As training does where the images are gone."""
    data = open_or_prepare("sysu_mm01", folder / "no such tree", folder)
    for split, index in data.index.items():
        source = data.source(split)
        for number in (0, len(index) - 1):
            assert isinstance(source[number]["image"], bytes)


READERS = (
    Reader("index of a gallery", make_index, read_index),
    Reader("prepared records", make_records, read_records),
)


def written(folder: Path, text: str, **changes: object) -> bytes:
    """A header that agrees with other entries."""
    header = json.loads((folder / "gallery" / HEADER).read_text())
    header["entries_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(seal({name: value for name, value in (header | changes).items() if name != SEAL})).encode()


@pytest.mark.parametrize(
    "line",
    [
        "p0/0.jpg,p0,9,visible,9", "p0/0.jpg,p0,9,visible,-1", "p0/0.jpg,p0,x,visible,0", "p0/0.jpg,p0,9,thermal,0",
        "p0/0.jpg,p0", "p0/0.jpg,p0,9,visible,0,more", '"p0', "p0/0.jpg,p0," + "9" * 5000 + ",visible,0",
        "\x1b[2J,\x1b]0;x\x07,1,visible,0", "",
    ],
)  # fmt: skip
def test_entries_whose_sum_was_made_for_them(line, attack):
    """Whoever writes an index writes its sums too."""
    attacks = attack(READERS[0])
    folder = attacks.folder / "gallery"
    entries = next(folder.glob("entries-*.csv"))
    lines = entries.read_text().splitlines()
    text = "\n".join([lines[0], line, *lines[2:]]) + "\n"
    entries.write_text(text)
    outcome = attacks.by_hand(line[:20], f"gallery/{HEADER}", written(attacks.sound, text))
    assert outcome.wrong == ""
    assert outcome.said is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"num_images": 2**31 - 1}, {"num_images": 10**30}, {"dimensions": 2**20 - 1}, {"dimensions": -1},
        {"version": 2}, {"version": 10**400}, {"roots": []}, {"roots": ["\x1b[2J"] * 3}, {"format": 2},
        {"preprocessing": {"a": [[[[]]]] * 1000}}, {"model_hash": "x" * 10**6}, {"more": 1},
    ],
)  # fmt: skip
def test_headers_that_say_something_else(changes, attack):
    attacks = attack(READERS[0])
    entries = next((attacks.sound / "gallery").glob("entries-*.csv")).read_text()
    changes = {name: int("9" * 4000) if value == 10**400 else value for name, value in changes.items()}
    outcome = attacks.by_hand(str(changes)[:40], f"gallery/{HEADER}", written(attacks.sound, entries, **changes))
    assert outcome.wrong == ""


@pytest.mark.parametrize(("reader", "number"), [*zip(READERS, (60, 30), strict=True)], ids=lambda x: str(x))
def test_damaged_files(reader, number, attack):
    attacks = attack(reader)
    attacks.places()
    for i in range(number):
        attacks.mutant(i)
    assert attacks.failures == {}
