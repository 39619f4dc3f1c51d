"""Lists: manifests, lists of images, those of data sets, and the token of the page."""

import shutil
from pathlib import Path

import pytest

from icre_jax.data.collection import collect
from icre_jax.data.labelled import Source, list_labelled
from icre_jax.data.layouts import llcm, manifest, regdb, sysu_mm01
from icre_jax.serving.server import check_access
from icre_jax.sums import SUMS, find_damage, write_sums
from tests.attacks.harness import Reader
from tests.page_server import image_bytes

PERSONS = 3


def make_manifest(folder: Path, _) -> None:
    lines = [",".join(manifest.COLUMNS)]
    for number, (split, modality) in enumerate(
        (split, modality) for split in manifest.SPLITS for modality in ("visible", "infrared") for _ in range(PERSONS)
    ):
        name = f"images/{split}_{number}.png"
        (folder / "images").mkdir(exist_ok=True)
        (folder / name).write_bytes(image_bytes((number, 0, 0), (4, 2)))
        pid = number % PERSONS + (10 if split != "train" else 0)
        lines.append(f"{name},{pid},{1 if modality == 'visible' else 2},{modality},{split}")
    (folder / manifest.NAME).write_text("\n".join(lines) + "\n")


def read_manifest(folder: Path) -> None:
    collect(folder / manifest.NAME, "visible")
    list_labelled(Source(folder / manifest.NAME), "infrared")
    manifest.scan(folder)


def make_list(folder: Path, _) -> None:
    for name in ("a.png", "b.png", "name with spaces.png"):
        (folder / name).write_bytes(image_bytes((0, 0, 0), (4, 2)))
    (folder / "images.txt").write_text("a.png\nb.png\n\nname with spaces.png\n")


def make_sums(folder: Path, _) -> None:
    for name in ("a", "b", "folder/c"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    write_sums(folder)


def read_sums(folder: Path) -> None:
    assert all(isinstance(finding, str) for finding in find_damage(folder))


def make_tree(name: str, *only: str):
    def make(folder: Path, sound) -> None:
        shutil.copytree(sound[name], folder, dirs_exist_ok=True)

    return make


READERS = (
    Reader("manifest (csv)", make_manifest, read_manifest, attacked=(manifest.NAME,)),
    Reader(
        "list of images (txt)", make_list, lambda folder: collect(folder / "images.txt", "visible"), attacked=(".txt",)
    ),
    Reader("lists of SYSU-MM01 (txt)", make_tree("sysu_mm01"), sysu_mm01.scan, attacked=(".txt",)),
    Reader("lists of LLCM (txt)", make_tree("llcm"), llcm.scan, attacked=(".txt",)),
    Reader("lists of RegDB (txt)", make_tree("regdb"), lambda folder: regdb.scan(folder, 1), attacked=("_1.txt",)),
    Reader("list of sums (txt)", make_sums, read_sums, attacked=(SUMS,)),
    Reader(
        "token of the page (txt)",
        lambda folder, _: (folder / "token").write_text("a-token-of-thirty-two-characters"),
        lambda folder: check_access("127.0.0.1", (), folder / "token"),
    ),
)

HEAD = b"path,pid,camid,modality,split\n"
LINE = b"images/train_0.png,1,1,visible,train\n"
BY_HAND = {
    "a number of 5,000 digits": HEAD + LINE.replace(b",1,", b"," + b"9" * 5000 + b",", 1) + b"a.png " + b"9" * 5000,
    "digits of another alphabet": HEAD + "images/train_0.png,\u0663,1,visible,train\na.png \u0663\n".encode(),
    "a name of 5,000 characters": HEAD + b"a" * 5000 + b".png,1,1,visible,train\n" + b"a" * 5000 + b".png 1\n",
    "a line of 20 MB": b"a" * 20_000_000, "a field of 20 MB": HEAD + b'"' + b"a" * 20_000_000,
    "a quotation without end": HEAD + b'"' + LINE * 50, "a hundred thousand lines": HEAD + b"x\n" * 10**5,
    "lines of commas": b"," * 100_000 + b"\n" + b"\n" * 1000,
    "names that lead out": HEAD + b"../../etc/passwd,1,1,visible,train\n/etc/passwd,1,1,visible,train\n/etc/passwd 1\n",
    "orders to a terminal": HEAD + b"\x1b[2J\x1b]0;x\x07.png,1,1,visible,train\n\x1b[31m.png 1\n",
    "a name with zero": HEAD + b"a\0b.png,1,1,visible,train\na\0b.png 1\n", "nothing but zeros": b"\0" * 1000,
    "half a character": HEAD + b"\xff.png,1,1,visible,train\n", "UTF-16": HEAD.decode().encode("utf-16"),
    "lines that go back": HEAD + LINE.replace(b"\n", b"\r") * 3,
    "a separator of lines": "a.png\u2028b.png\x85\x0b1".encode(),
    "a formula": HEAD + b"=cmd|' /C calc'!A0,1,1,visible,train\n", "right to left": "\u202egnp.a 1\n".encode(),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files(reader, attack):
    attacks = attack(reader)
    attacks.places()
    for number in range(20 if "lists of" in reader.name else 40):
        attacks.mutant(number)
    for name, content in BY_HAND.items():
        attacks.by_hand(name, attacks.files[0], content)
    assert attacks.failures == {}
