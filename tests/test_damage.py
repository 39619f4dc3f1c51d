"""Whatever happens to a file of a checkpoint, an export, an index or a prepared set: it is refused, or has no effect.

Every file is damaged, and bits are sampled; tests/damage.py says how.
"""

import contextlib
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import icre_jax
from icre_jax.data.permutations import STORED, read_permutations
from icre_jax.data.pipeline import RecordSource, evaluation_batches
from icre_jax.data.prepared import open_or_prepare
from icre_jax.engine import export as exporting
from icre_jax.engine import stablehlo_reader
from icre_jax.engine.checkpoint.damage import NOTES
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.provenance import describe_run
from icre_jax.engine.stored import BOX, hash_network, read_stored
from icre_jax.errors import InputError
from icre_jax.machine.screen import Screen, open_console
from icre_jax.retrieval import rows
from icre_jax.retrieval.calibration import Calibration
from icre_jax.retrieval.index import Entry, GalleryIndex
from icre_jax.retrieval.search import search
from icre_jax.settings import parse
from icre_jax.sums import list_anew
from tests.conftest import flags_of, refused, run_command
from tests.damage import check_damages, files_of, flip
from tests.test_open_set import make_calibration
from tests.test_stablehlo import images_of, stored_of
from tests.test_sums import METRIC, make_state, read_all

SIZES = [pytest.param(1, id="few"), pytest.param(60, id="many", marks=pytest.mark.long)]


@pytest.mark.long  # a bit of each file: tests/test_sums.py
@pytest.mark.parametrize("num_flips", SIZES)
def test_a_checkpoint(tmp_path, num_flips):
    with contextlib.closing(Checkpoints(tmp_path, keep_latest=2, best_metric=METRIC)) as opened:
        for step, score in ((3, 0.9), (6, 0.5)):
            opened.save(make_state(step), {"step": step}, {METRIC: score})
    folder, read_only = tmp_path / "checkpoints" / "6", itertools.cycle((True, False))
    without_effect = check_damages(
        folder, lambda: read_all(tmp_path, 6, read_only=next(read_only)), num_flips=num_flips
    )
    assert {*without_effect} <= {*NOTES}


@pytest.fixture
def exported(config, tmp_path, monkeypatch):
    """An export of a network that nobody has trained, in formats that are asked for."""
    stored = stored_of(config)
    facts = {"data_fingerprint": "0" * 64, "class_pids": stored.class_pids, "data": "synthetic people"}
    about = describe_run(stored.settings, facts, workdir=tmp_path, step=stored.step)
    stored = stored.__class__(**{**vars(stored), "about": about})
    monkeypatch.setattr(exporting, "read_run", lambda *_, **__: stored)
    monkeypatch.setattr(exporting, "images_to_compare", lambda *_: (images_of(config), "random images"))

    def make(*formats: str) -> Path:
        out = tmp_path / "exported"
        exporting.export(tmp_path, out, step=None, listener=Screen(open_console()), formats=formats)
        return out

    return make


@pytest.mark.long
@pytest.mark.parametrize("num_flips", SIZES)
def test_an_export(exported, num_flips):
    folder = exported("orbax", "safetensors")

    def read(form: str):
        stored = read_stored(folder / form)
        return stored.step, stored.class_pids, stored.about, hash_network(stored.settings, stored.variables)

    for form, other in (("variables", "network.safetensors"), ("network.safetensors", "variables")):
        names = [name for name in files_of(folder) if name != "README.md" and not name.startswith(other)]
        assert check_damages(folder, lambda form=form: read(form), num_flips=num_flips, names=names) == {}
    listed = (folder / "SHA256SUMS").read_text().splitlines()[:-2]
    assert [*sorted(["README.md", "SHA256SUMS", *(line.split("  ")[1] for line in listed)])] == files_of(folder)
    # Who reads one form needs nothing of the other, and the card is its owner's to edit.
    expected = read("network.safetensors")
    shutil.rmtree(folder / "variables")
    (folder / "README.md").write_text("another")
    assert read("network.safetensors") == expected


@pytest.mark.long
def test_stablehlo_files(exported, tmp_path, monkeypatch):
    folder = exported("stablehlo")
    names = ["infrared.stablehlo", "stablehlo.json", "visible.stablehlo"]
    assert {*names} < {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()[:-2]}
    asked, answered = tmp_path / "asked.npz", tmp_path / "answered.npz"
    size = json.loads((folder / "config.json").read_text())["data"]["image_size"]
    np.savez(asked, **dict.fromkeys(("visible", "infrared"), np.zeros((2, *size, 3), np.uint8)))
    monkeypatch.setattr(stablehlo_reader, "FORBIDDEN", ())  # in this process

    def read():
        stablehlo_reader.main(folder, asked, answered)
        with np.load(answered) as found:
            return [found[name].tobytes() for name in found.files]

    # Whatever it raises ends its process, which `embed_elsewhere` says.
    found = check_damages(folder, read, num_flips=20, names=names, refused=(SystemExit, Exception))
    assert {*found} <= {"stablehlo.json"}


def make_index(folder: Path) -> GalleryIndex:
    """Of 40 rows, in blocks of 16."""
    draws = np.random.default_rng(0)
    entries = [
        Entry(f"{i % 7}/{i}.jpg", str(i % 7), i if i % 3 else None, "visible", "/a" if i % 2 else "/b")
        for i in range(40)
    ]
    return GalleryIndex.create(
        folder,
        draws.normal(size=(40, 8)).astype(np.float32),
        entries,
        model_hash="a" * 64,
        origin="synthetic",
        preprocessing={"image_size": [96, 48], "flip": False},
    )


@pytest.mark.parametrize(
    "num_flips", [pytest.param(20, id="few"), pytest.param(500, id="many", marks=pytest.mark.long)]
)
def test_an_index(tmp_path, num_flips, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ROWS", 16)
    folder = make_index(tmp_path / "index").folder
    queries = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)

    def read():
        index = GalleryIndex.open(folder)
        found = search(queries, index.embeddings, top=5)
        return index.header, index.entries, found.indices.tolist(), found.similarities.tobytes()

    without_effect = check_damages(folder, read, num_flips=num_flips)
    assert {*without_effect} <= {"index.json"}  # blanks between its words


@pytest.mark.parametrize(
    "num_flips", [pytest.param(20, id="few"), pytest.param(500, id="many", marks=pytest.mark.long)]
)
def test_a_calibration(tmp_path, num_flips):
    known = make_calibration()
    (tmp_path / "calibration.json").write_text(known.to_json())
    assert Calibration.read(tmp_path / "calibration.json") == known
    check_damages(tmp_path, lambda: Calibration.read(tmp_path / "calibration.json"), num_flips=num_flips)


@pytest.fixture
def records(prepared, tmp_path) -> Path:
    """A prepared set with official draws, whose tree is gone."""
    folder = Path(shutil.copytree(prepared.folder, tmp_path / "sysu_mm01" / "1.0.0"))
    (folder / STORED).write_text(json.dumps({"pid_camid_trials": [[pid, 1, [[2, 1]] * 10] for pid in range(3)]}))
    list_anew(folder, STORED)
    return folder


@pytest.mark.parametrize("num_flips", SIZES)
def test_a_prepared_set(records, num_flips):
    def read():
        prepared = open_or_prepare("sysu_mm01", records / "nowhere", records.parent.parent)
        index = {
            name: [np.asarray(column).tolist() for column in vars(split).values()]
            for name, split in prepared.index.items()
        }
        source = RecordSource(prepared, tuple(prepared.index))
        images = [source.image_bytes(row) for row in range(len(source.index))]
        return prepared.fingerprint, prepared.synthetic, index, images, read_permutations(records)

    without_effect = check_damages(records, read, num_flips=num_flips)
    assert all(".array_record" in name for name in without_effect)  # what fills them up


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_damaged_image_ends_batches_with_its_name(records, config, num_workers):
    """Whatever process reads it."""
    file = next(records.glob("*train.array_record*"))
    flip(file, file.stat().st_size // 2, 2)
    prepared = open_or_prepare("sysu_mm01", records / "nowhere", records.parent.parent)
    config.data.num_workers = num_workers
    source, data = RecordSource(prepared, ("train",)), parse(config).data
    with (
        contextlib.closing(evaluation_batches(source, data=data, batch_size=8)) as batches,
        pytest.raises(InputError, match=r"records in .* are damaged: record \d+ of train, cam\d/.*delete that folder"),
    ):
        for _ in batches:
            pass


@pytest.mark.long
def test_commands_say_what_is_damaged(config, tree, prepared, tmp_path):
    """As a user starts them; each is fine before its files are damaged."""
    image = next((tree / "cam3").glob("*/*.jpg"))
    index, known, net = tmp_path / "index", tmp_path / "calibration.json", icre_jax.load("synthetic")
    entries = [Entry("a.jpg", "anna", None, "visible", "/a"), Entry("b.jpg", "bo", None, "visible", "/a")]
    vectors = np.random.default_rng(0).normal(size=(2, net.size))
    GalleryIndex.create(index, vectors, entries, model_hash=net.model_hash, origin="synthetic")
    known.write_text(make_calibration(model_hash=net.model_hash).to_json())
    network = Path(shutil.copytree(BOX / "synthetic", tmp_path / "network"))
    searching = ("--index", str(index), "--images", str(image), "--modality", "infrared")
    folder = Path(shutil.copytree(prepared.folder, tmp_path / "sysu_mm01" / "1.0.0"))
    config.data.prepared_dir = str(tmp_path)
    (tmp_path / "list.txt").write_text(f"{image}\n")
    embedding = ("--network", str(network), "--images", str(tmp_path / "list.txt"), "--modality", "infrared", "--out")
    for number, (command, flags, file, words) in enumerate(
        (
            ("search", searching, index / "embeddings-1.npy", "embeddings-1.npy: rows 0 to 1 are not what was written"),
            ("search", (*searching, "--calibration", str(known)), known, "cannot be read as a calibration"),
            (
                "embed",
                (*embedding, str(tmp_path / "x.npz")),
                network / "network.safetensors",
                "network.safetensors has",
            ),
            ("prepare", flags_of(config), next(folder.glob("*query.array_record*")), "query.array_record"),
        )
    ):
        content = file.read_bytes()
        if command != "prepare" and number != 1:  # this calibration is of another size of gallery
            process = run_command(f"icre_jax.{command}", *flags)
            assert process.returncode == 0, process.stderr
            (tmp_path / "x.npz").unlink(missing_ok=True)
        file.write_bytes(content[:-1]) if command == "prepare" else flip(file, len(content) - 3, 3)
        refused(run_command(f"icre_jax.{command}", *flags), words)
        file.write_bytes(content)
