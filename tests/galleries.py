"""Images and indexes to search, and the commands that do, for several test files."""

import importlib

import numpy as np

from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.storage import Entry
from tests.conftest import run_command


def list_images(tree, folder):
    """A list of all infrared images of an LLCM tree."""
    file = folder / "images.txt"
    file.write_text("\n".join(str(path) for path in sorted((tree / "nir").rglob("*.jpg"))))
    return file


def index_images(tree, folder):
    """An index of all visible images of an LLCM tree."""
    flags = ["--images", tree / "vis", "--modality", "visible", "--network", "synthetic"]
    assert importlib.import_module("icre_jax.index").main(["--index", str(folder / "gallery"), *map(str, flags)]) == 0
    return folder / "gallery"


def make_index(folder, num_rows=3000, size=40):
    rows = np.random.default_rng(0).standard_normal((num_rows, size))
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
