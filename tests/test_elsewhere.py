"""A trained network before other data: scored and labelled so, and never on people whom it has learned from."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import icre_jax
from icre_jax.data.layouts import llcm
from icre_jax.data.overlap import equal_images
from icre_jax.data.prepared import PreparedDataset, open_or_prepare
from icre_jax.data.rendered import rendered_seed
from icre_jax.engine import elsewhere, unseen
from icre_jax.engine.elsewhere import OtherData, open_elsewhere
from icre_jax.engine.evaluator import evaluate_checkpoint
from icre_jax.engine.export import export
from icre_jax.engine.provenance import RENDERED
from icre_jax.engine.sources import Source, sources_of
from icre_jax.engine.stored import read_stored
from icre_jax.errors import InputError
from icre_jax.evals import PROTOCOLS
from icre_jax.evals.protocol import evaluate
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import read_results
from icre_jax.settings import parse
from icre_jax.training.run import assemble
from tests.conftest import refused, run_command
from tests.small_runs import run


class Listener:
    """Keeps what it is told."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    def advance(self, title, done, total):
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture
def workdir(small, made):
    """One short run on rendered people of seed 3, made once for this file."""
    if not (made / "run").exists():
        small.schedule.num_epochs = 1
        run(small, made / "run")
    return made / "run"


@pytest.mark.parametrize("place", [".", "..", "here", "/"])
def test_records_lie_beside_the_data_wherever_one_stands(config, tmp_path, monkeypatch, place):
    (tmp_path / "data" / "llcm" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "data" / "llcm")
    prepared = Path(
        elsewhere._settings(parse(config), OtherData("llcm", Path(place), prepared_dir=None)).data.prepared_dir
    )
    data = Path(place).resolve()
    assert prepared == data.parent / f"{data.name or 'root'}_prepared"


def write_list(folder: Path, rows) -> Path:
    """A manifest of (path, pid, camid, modality, split)."""
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "pid", "camid", "modality", "split"), *rows])
    return folder


@pytest.fixture
def own_images(tmp_path):
    """Two people, to be tested only."""
    rows = []
    for number, (split, modality) in enumerate((("query", "infrared"), ("gallery", "visible"))):
        for pid in (1, 2):
            path = f"{modality}_{pid}.png"
            pixels = np.random.default_rng(10 * number + pid).integers(0, 256, (32, 16, 3), np.uint8)
            (tmp_path / "own").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "own" / path)
            rows.append((path, pid, number + 1, modality, split))
    write_list(tmp_path / "own", rows)
    return tmp_path / "own", rows


def other(dataset, data_dir, tmp_path, **more):
    return OtherData(dataset, Path(data_dir), prepared_dir=tmp_path / "records", **more)


@pytest.mark.long
def test_the_command_scores_on_other_data_and_says_so(workdir, strangers):
    before = (workdir / "results.json").read_bytes()
    process = run_command(
        "icre_jax.evaluate", "--workdir", str(workdir), "--data_dir", str(strangers), "--dataset", "llcm"
    )
    assert process.returncode == 0, process.stderr
    results, provenance = read_results(workdir / "on_llcm")
    assert (workdir / "results.json").read_bytes() == before
    label = "synthetic people, by a network trained on synthetic people (seed 3)"
    assert {result.dataset for result in results} == {label}
    assert "by a network trained on" in " ".join(process.stdout.split())
    assert provenance["trained_on"] == "synthetic people (seed 3)"
    assert provenance["training_images_compared"] > 50
    assert provenance["sources"][0]["data_fingerprint"] != provenance["data_fingerprint"]
    assert (strangers.parent / "strangers_prepared" / "llcm").is_dir()

    # The same numbers by another way: files through `icre_jax.load`, then the protocol.
    net, sides = icre_jax.load(workdir), {}
    splits = llcm.scan(strangers)
    for split, modality in (("query", "infrared"), ("gallery", "visible")):
        records = splits[split]
        vectors = net.embed([strangers / record.path for record in records], modality=modality)
        columns = {name: np.array([getattr(record, name) for record in records]) for name in ("pid", "camid", "path")}
        sides[modality] = Embedded(vectors, **columns, split=np.full(len(records), split))
    expected = evaluate(PROTOCOLS["llcm"], sides, dataset=label, num_trials=2)
    assert [result.setting for result in results] == [result.setting for result in expected]
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.mean == pytest.approx(theirs.mean, abs=1e-6)


@pytest.mark.long
def test_bad_input(workdir, strangers, llcm_tree, tree, tmp_path):
    def evaluate_on(*flags, place=workdir):
        return run_command("icre_jax.evaluate", "--workdir", str(place), *flags)

    known = evaluate_on("--data_dir", str(llcm_tree), "--dataset", "llcm", "--prepared_dir", str(tmp_path / "llcm"))
    refused(known, "learned from synthetic people (seed 3)", "of seed 3 are the same in every data set", "other people")
    assert not (workdir / "on_llcm_prepared").exists()
    refused(evaluate_on("--data_dir", str(strangers)), "--data_dir is of other data", "--dataset")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"dataset": "regdb"}, "data.trial is None; regdb needs the trial"),
        ({"dataset": "llcm", "trial": 3}, "llcm has no trials"),
        ({"dataset": "llcm", "exclude_same_camera": True}, "has a rule of its own"),
        ({"dataset": "sysu_mm01"}, "cam1"),
    ],
)
def test_data_that_does_not_fit_its_name(workdir, strangers, tmp_path, flags, words):
    with pytest.raises(InputError, match=words):
        open_elsewhere(
            str(workdir), other(data_dir=strangers, tmp_path=tmp_path, **flags), step=None, listener=Listener()
        )


def test_the_networks_own_data_is_scored_as_always_wherever_it_lies(workdir, tree, tmp_path):
    exported, moved = tmp_path / "exported", tmp_path / "moved"
    export(workdir, exported, step=None, listener=Listener())
    shutil.copytree(tree, moved)
    expected = [dataclasses.asdict(result) for result in read_results(workdir)[0]]
    for place in (workdir, exported):
        given = other("sysu_mm01", moved, tmp_path)
        found = open_elsewhere(str(place), given, step=None, listener=Listener())
        assert found.elsewhere is None
        assert found.settings.data.train_splits == ("train", "val")
        evaluate_checkpoint(place, step=None, out=tmp_path / place.name, listener=Listener(), other=given)
        results, provenance = read_results(tmp_path / place.name)
        assert [dataclasses.asdict(result) for result in results] == expected
        assert "trained_on" not in provenance


def test_what_is_said_of_the_protocol_holds_for_the_own_images_of_a_run(config):
    own = parse(config)
    own = own.model_copy(update={"evaluation": own.evaluation.model_copy(update={"exclude_same_camera": False})})
    for said, expected in ((None, False), (True, True)):
        there = elsewhere._at_another_place(own, own.data, said)
        assert there.evaluation.exclude_same_camera is expected


def test_an_export_knows_no_place(workdir, own_images, tmp_path, monkeypatch):
    """A folder of the same name is nothing to it."""
    folder, _ = own_images
    export(workdir, tmp_path / "exported", step=None, listener=Listener())
    stored = read_stored(tmp_path / "exported")
    assert stored.is_export
    data = stored.settings.data.model_copy(update={"dataset": "manifest", "data_dir": folder.name})
    stored = dataclasses.replace(
        stored, settings=stored.settings.model_copy(update={"data": data}), class_pids=[2, *stored.class_pids]
    )
    monkeypatch.chdir(folder.parent)
    prepared = open_or_prepare("manifest", folder, tmp_path / "records")
    listener = Listener()
    assert unseen.require_unseen(stored, data, prepared, listener) is None
    assert listener.said == [
        "Not compared with the training images one by one: an export does not say where they are, the workdir of its "
        "run does."
    ]
    assert not (folder.parent / data.prepared_dir).exists()


def test_own_images_need_no_training_images(workdir, own_images, tmp_path):
    listener = Listener()
    found = open_elsewhere(str(workdir), other("manifest", own_images[0], tmp_path), step=None, listener=listener)
    assert set(found.prepared.index) == {"query", "gallery"}
    assert found.settings.evaluation.exclude_same_camera is True
    assert found.elsewhere["training_images_compared"] > 50
    assert listener.said == []


def test_nobody_trains_on_a_list_without_training_images(own_images, config, tmp_path):
    prepared = open_or_prepare("manifest", own_images[0], tmp_path / "records")
    config.data.train_splits = ("train",)
    with pytest.raises(InputError, match="no image for the split train; there is none to learn from"):
        assemble(parse(config), tmp_path, prepared)


def test_an_image_that_was_trained_on_is_found_under_any_name(workdir, own_images, tree, tmp_path):
    folder, _ = own_images
    trained = next(path for path in sorted((tree / "cam1").rglob("*.jpg")) if path.parent.name in train_folders(tree))
    with Image.open(trained) as image:
        image.save(folder / "visible_1.png")  # another name and format, the same pixels
    with pytest.raises(InputError, match=r"1 of the test images are images .* trained on:\n  - visible_1\.png"):
        open_elsewhere(str(workdir), other("manifest", folder, tmp_path), step=None, listener=Listener())


def train_folders(tree):
    ids = (tree / "exp" / "train_id.txt").read_text().strip().split(",")
    return {f"{int(pid):04d}" for pid in ids}


def test_equal_images_by_brute_force(prepared, tree, tmp_path):
    """Of a list that repeats some test and some training images, just the latter are found."""
    folder, rows, expected = tmp_path / "mixed", [], []
    folder.mkdir()
    for split in ("train", "query", "gallery"):
        index = prepared.index[split]
        for row in range(0, len(index), 5):
            path = f"{split}_{row}.jpg"
            shutil.copy(tree / index.path[row], folder / path)
            modality = ("visible", "infrared")[index.modality[row]]
            rows.append((path, 1, 1, modality, "query" if modality == "infrared" else "gallery"))
            if split == "train":
                expected.append(path)
    mixed = open_or_prepare("manifest", write_list(folder, rows), tmp_path / "records")
    looked_at = []
    found = equal_images(
        prepared, ("train",), mixed, ("query", "gallery"), image_size=(32, 16), progress=lambda *n: looked_at.append(n)
    )
    assert sorted(found) == sorted(expected)
    assert looked_at[-1] == (len(prepared.index["train"]) + len(rows),) * 2


def test_without_the_training_images_it_says_that_it_has_not_compared(strangers, tmp_path):
    listener = Listener()
    found = open_elsewhere("synthetic", other("llcm", strangers, tmp_path), step=None, listener=listener)
    assert found.elsewhere["training_images_compared"] is None
    assert "Not compared with the training images one by one" in listener.said[-1]
    assert found.elsewhere["trained_on"] == "synthetic people (seed 0)"


def test_results_of_an_export_need_a_folder(strangers):
    flags = ("--workdir", "synthetic", "--data_dir", str(strangers), "--dataset", "llcm")
    refused(run_command("icre_jax.evaluate", *flags), "synthetic is not the workdir of a run", "--out")


def test_a_changed_list_of_the_same_folder(workdir, own_images, tmp_path, monkeypatch):
    folder, _ = own_images
    stored = unseen.Stored(
        *[getattr(icre_jax.load(workdir), name) for name in ("settings", "step", "network")], {}, [2, 9], {}, False
    )
    data = stored.settings.data.model_copy(update={"dataset": "manifest", "data_dir": str(folder)})
    stored = dataclasses.replace(stored, settings=stored.settings.model_copy(update={"data": data}))
    prepared = open_or_prepare("manifest", folder, tmp_path / "records")
    with pytest.raises(InputError, match=r"identities of .*own that are tested now: \[2\]"):
        unseen._require_other_identities(stored, data, prepared)


# What a network has learned from, other data, and whether its people are known.
REAL = Source("regdb", 1, "RegDB", "a" * 64, None, ("train",))
PEOPLE = Source("sysu_mm01", None, RENDERED, "a" * 64, 3, ("train",))


@pytest.mark.parametrize(
    ("source", "dataset", "trial", "synthetic", "seed", "words"),
    [
        (REAL, "regdb", 2, False, None, "tested in trial 2 of RegDB are trained on in other trials"),
        (REAL, "regdb", 1, False, None, "another copy of RegDB"),
        (REAL, "llcm", None, False, None, None),
        (REAL, "regdb", 2, True, 3, None),
        (REAL, "manifest", None, False, None, None),
        (PEOPLE, "regdb", 2, True, 3, "rendered people of seed 3 are the same"),
        (PEOPLE, "sysu_mm01", None, True, 4, None),
        (PEOPLE, "sysu_mm01", None, True, None, "whether they are others is not known"),
        (dataclasses.replace(PEOPLE, rendered_seed=None), "sysu_mm01", None, True, 3, "is not known"),
        (PEOPLE, "sysu_mm01", None, False, None, None),
        (Source("manifest", None, "own images", "a" * 64, None, ("train",)), "manifest", None, False, None, None),
    ],
)
def test_who_is_known(source, dataset, trial, synthetic, seed, words):
    prepared = PreparedDataset(dataset, trial, Path("records"), "b" * 64, synthetic, {}, {}, "tree")
    found = unseen._known_people(source, prepared, seed)
    assert (words in found) if words else found is None
    same = dataclasses.replace(prepared, fingerprint=source.data_fingerprint)
    assert unseen._known_people(source, same, seed) is None


def test_the_data_of_networks_it_started_from_counts_too(config):
    about = {"dataset": "sysu_mm01", "trial": None, "data": RENDERED, "data_fingerprint": "c" * 64}
    about["init_from"] = json.loads(json.dumps({"sources": [REAL.to_facts(), PEOPLE.to_facts()]}))
    stored = unseen.Stored(parse(config), 6, None, {}, [1], about, False)
    assert sources_of(stored.settings, stored.about)[1:] == [REAL, PEOPLE]
    prepared = PreparedDataset("regdb", 2, Path("records"), "b" * 64, False, {}, {}, "tree")
    data = stored.settings.data.model_copy(update={"synthetic": None, "dataset": "regdb", "trial": 2})
    with pytest.raises(InputError, match="learned from RegDB trial 1, and identities that are tested in trial 2"):
        unseen.require_unseen(stored, data, prepared, Listener())


def test_the_seed_of_a_tree_is_read_from_its_mark(config, tree, tmp_path):
    data = parse(config).data
    assert rendered_seed(data) == 3
    unnamed = data.model_copy(update={"synthetic": None})
    assert rendered_seed(unnamed) == 3
    for content in ("", "[]", '{"seed": "3"}', "{" * 99, " " * 2**21):
        (tmp_path / "synthetic.json").write_text(content)
        assert rendered_seed(unnamed.model_copy(update={"data_dir": str(tmp_path)})) is None
