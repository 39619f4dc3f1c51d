"""`index`, `search` and `calibrate`, on rendered people and the network that comes with the package.

Each is started once as a user would, with a bad-input twin; the rest calls the commands in this process, where what was
compiled is shared.
"""

import contextlib
import dataclasses
import functools
import html.parser
import importlib
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import icre_jax
from icre_jax import rendering
from icre_jax.data.labelled import Source, list_labelled
from icre_jax.engine.sources import Source as Learned
from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded
from icre_jax.identify import enrolment
from icre_jax.identify.calibrating import calibrate_on, require_unseen
from icre_jax.identify.searching import percent
from icre_jax.machine.screen import Screen
from icre_jax.retrieval.calibration import Calibration, calibrate
from icre_jax.retrieval.index import GalleryIndex
from icre_jax.retrieval.open_set import run_searches
from icre_jax.sums import seal, unseal
from tests.conftest import refused, run_command

# Not the seed of the network in the package: nobody here was in its training.
STRANGERS = rendering.SyntheticSettings(
    seed=77, difficulty="easy", num_train_ids=8, num_val_ids=12, num_test_ids=10, num_images_per_camera=1,
    image_size=(128, 64),
)  # fmt: skip


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A rendered SYSU-MM01 tree of people whom the network has not seen."""
    folder = tmp_path_factory.mktemp("people") / "tree"
    rendering.write_tree("sysu_mm01", folder, STRANGERS)
    return folder


@pytest.fixture(scope="module")
def own(people, tmp_path_factory):
    """The test people of that tree in folders of one's own: {visible,infrared}/<name>/camN/."""
    folder = tmp_path_factory.mktemp("own") / "images"
    for image in sorted(people.glob("cam*/*/*.jpg")):
        camera, person, file = image.relative_to(people).parts
        if person in test_folders(people):
            target = folder / ("infrared" if camera in ("cam3", "cam6") else "visible") / f"p [{person}] <b>"
            (target / camera).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, target / camera / file)
    return folder


def test_folders(tree):
    return [f"{int(pid):04d}" for pid in (tree / "exp" / "test_id.txt").read_text().split(",")]


test_folders.__test__ = False  # a helper whose name begins like a test


@pytest.fixture(scope="module")
def made(people, tmp_path_factory):
    """An index of the visible test images and a calibration on the validation people, by the commands."""
    folder = tmp_path_factory.mktemp("made")
    tree = ("--images", str(people), "--dataset", "sysu_mm01", "--network", "synthetic")
    (folder / "calibration.json").symlink_to(folder / "linked.json")
    processes = [
        run_command("icre_jax.index", "--index", str(folder / "gallery"), "--modality", "visible", *tree),
        run_command(
            "icre_jax.calibrate", "--out", str(folder / "calibration.json"), "--split", "val", "--fpir", "0.2", *tree
        ),
    ]
    for process in processes:
        assert process.returncode == 0, process.stderr
    return folder, *processes


@pytest.fixture
def call(capsys):
    """Runs a command in this process; what it printed."""

    def run(name, *flags):
        capsys.readouterr()
        assert importlib.import_module(f"icre_jax.{name}").main([str(flag) for flag in flags]) == 0
        return " ".join(capsys.readouterr().out.split())

    return run


@pytest.fixture
def find(call, made):
    """Searches the index of `made` for infrared images."""
    return functools.partial(call, "search", "--index", made[0] / "gallery", "--modality", "infrared")


def test_a_gallery_is_indexed_as_the_network_embeds_it(made, people):
    index = GalleryIndex.open(made[0] / "gallery")
    net = icre_jax.load("synthetic")
    assert index.header.model_hash == net.model_hash
    assert index.header.preprocessing == {"image_size": [128, 64], "flip": False}
    assert {entry.person for entry in index.entries} == {str(int(folder)) for folder in test_folders(people)}
    assert {entry.camid for entry in index.entries} == {1, 2, 4, 5}
    assert all(entry.file.is_file() for entry in index.entries)
    some = [entry.file for entry in index.entries[:3]]
    np.testing.assert_allclose(index.embeddings[:3], net.embed(some, modality="visible"), atol=1e-3)
    assert re.search(rf"{len(index)} images of 10 persons, 128 numbers each, by synthetic", made[1].stdout)


def test_search_finds_the_person_and_says_what_it_rests_on(made, people, tmp_path):
    persons = test_folders(people)
    images = [str(people / "cam6" / person / "0001.jpg") for person in persons]
    flags = ("--images", *images, "--top", "3", "--json", str(tmp_path / "found.json"))
    process = run_command("icre_jax.search", "--index", str(made[0] / "gallery"), "--modality", "infrared", *flags)
    assert process.returncode == 0, process.stderr
    assert "Candidates, not identifications" in process.stdout
    assert "No calibration" in process.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert [search["image"] for search in found["searches"]] == images
    first = [search["candidates"][0]["person"] for search in found["searches"]]
    right = sum(said == str(int(person)) for said, person in zip(first, persons, strict=True))
    assert right >= 6, first  # rank 1 in most of ten tries; chance is one
    for search in found["searches"]:
        assert search["answer"] == "candidates"
        similarities = [candidate["similarity"] for candidate in search["candidates"]]
        assert len(similarities) == 3
        assert similarities == sorted(similarities, reverse=True)
        assert search["best_similarity"] == similarities[0]
    assert found["calibration"] is None


def test_who_is_not_there_is_said_not_to_be(made, find, people, tmp_path):
    assert (made[0] / "calibration.json").is_symlink()
    known = Calibration.read(made[0] / "linked.json")
    assert (known.num_enrolled, known.num_strangers, known.num_held_out, known.target) == (6, 6, 12, 0.2)
    assert "FNIR at rank 1" in made[2].stdout
    folders = [people / "cam6" / person for person in test_folders(people)]
    flags = ("--calibration", made[0] / "calibration.json", "--json", tmp_path / "found.json")
    printed = find("--images", *folders, *flags)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["calibration"]["fpir"]["how"] == "rescaled"  # from 6 persons to 10
    assert found["calibration"]["fpir"]["value"] == pytest.approx(1 - (1 - known.fpir.value) ** (10 / 6), rel=0.3)
    for search in found["searches"]:
        there = search["best_similarity"] >= known.threshold
        assert search["answer"] == ("candidates" if there else "not in the gallery")
        assert all(candidate["similarity"] >= known.threshold for candidate in search["candidates"])
    assert sum(search["answer"] == "candidates" for search in found["searches"]) > len(found["searches"]) / 2
    for words in ("Candidates, not identifications", "rescaled from a gallery of 6 persons, ",
                  "Intervals of 95 %, over the 6 strangers and the 6 enrolled persons of one draw."):  # fmt: skip
        assert words in printed

    trained_on = [f"{int(pid):04d}" for pid in (people / "exp" / "train_id.txt").read_text().split(",")]
    printed = find("--images", *[people / "cam6" / person for person in trained_on], *flags)
    assert "NOT IN THE GALLERY" in printed
    strangers = [search["answer"] for search in json.loads((tmp_path / "found.json").read_text())["searches"]]
    alarms = strangers.count("candidates") / len(strangers)
    assert alarms <= found["calibration"]["fpir"]["high"]
    assert strangers.count("not in the gallery") > len(strangers) / 2


def test_all_images_that_cannot_be_indexed_are_named(people, tmp_path, monkeypatch):
    """Of a gallery that is embedded in several blocks."""
    folder = tmp_path / "gallery" / "p"
    folder.mkdir(parents=True)
    for number, image in enumerate(sorted((people / "cam1").rglob("*.jpg"))[:5]):
        shutil.copy(image, folder / f"{number}.jpg")
    for number in (0, 3):
        (folder / f"{number}.jpg").write_bytes(b"no image")
    monkeypatch.setattr(enrolment, "_TOGETHER", 2)
    source = Source(folder.parent)
    with pytest.raises(InputError, match=r"2 of 5 images cannot be used:(?s:.*)p/0\.jpg(?s:.*)p/3\.jpg"):
        enrolment.make_index(tmp_path / "index", source, "visible", network="synthetic", listener=Screen())
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0"), (1e-7, "0.00001"), (0.000123, "0.012"), (0.0499, "5"), (0.0523, "5.2"), (0.0999, "10"),
     (0.123, "12"), (0.9949, "99"), (0.995, "100"), (0.996, "100"), (1.0, "100")],
)  # fmt: skip
def test_rates_are_said_without_exponents(share, words):
    assert percent(share) == words


class Page(html.parser.HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_own_folders_a_page_and_what_is_deleted(call, own, tmp_path, monkeypatch):
    gallery = tmp_path / "gallery"
    (tmp_path / "synthetic").mkdir()  # a folder that is called like the network in the box
    monkeypatch.chdir(tmp_path)
    call("index", "--index", gallery, "--images", own, "--modality", "visible", "--network", "synthetic", "--flip")
    first = GalleryIndex.open(gallery)
    assert first.header.preprocessing["flip"]
    assert first.header.origin == "synthetic"
    assert all(re.fullmatch(r"p \[\d{4}\] <b>", entry.person) for entry in first.entries)
    assert {entry.camid for entry in first.entries} == {1, 2, 4, 5}
    person = first.entries[0].person

    stranger = tmp_path / "<img src=x onerror=alert(1)>.png"
    Image.fromarray(np.full((64, 32, 3), 90, np.uint8)).save(stranger)
    gone = first.entries[-1].file
    gone.rename(tmp_path / "moved.jpg")
    images = ("--images", own / "infrared" / person, stranger, "--html", tmp_path / "found.html", "--top", "40")
    printed = call("search", "--index", gallery, "--modality", "infrared", *images)
    (tmp_path / "moved.jpg").rename(gone)
    assert person in printed  # square brackets are no markup
    page = Page((tmp_path / "found.html").read_text())
    assert "<img src=x onerror=alert(1)>.png" in "".join(page.texts)
    assert person in page.texts
    assert "The image is not there any more." in page.texts
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) > len(first)
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not {"href", "srcset", "onerror"} & {name for _, attributes in page.tags for name in attributes}
    assert "script" not in {tag for tag, _ in page.tags}

    printed = call("index", "--index", gallery, "--delete", person)
    number = sum(entry.person == person for entry in first.entries)
    assert f"{number} images deleted; {len(first) - number} of 9 persons are left" in printed
    assert person not in "".join(path.read_text() for path in gallery.glob("*.csv"))
    assert len(list(gallery.glob("*.npy"))) == 1

    shutil.copytree(own / "visible" / person, tmp_path / "more" / "somebody")
    printed = call("index", "--index", gallery, "--images", tmp_path / "more", "--modality", "visible", "--add")
    assert f"{len(first)} images of 10 persons" in printed
    assert {entry.person for entry in GalleryIndex.open(gallery).entries[-number:]} == {"somebody"}


def test_what_is_searched_for_in_folders_of_both_modalities_and_in_manifests(find, own, tmp_path):
    def searched(*images):
        find("--images", *images, "--json", tmp_path / "found.json")
        return [search["image"] for search in json.loads((tmp_path / "found.json").read_text())["searches"]]

    infrared = sorted(map(str, (own / "infrared").rglob("*.jpg")))
    assert searched(own) == infrared
    lines = [f"{number}.jpg,{number},3,infrared,{split}" for number, split in enumerate(("train", "query", "gallery"))]
    lines.append("3.jpg,3,1,visible,query")
    for number, file in enumerate([*infrared[:3], next((own / "visible").rglob("*.jpg"))]):
        shutil.copy(file, tmp_path / f"{number}.jpg")
    (tmp_path / "manifest.csv").write_text("\n".join(["path,pid,camid,modality,split", *lines]))
    assert searched(tmp_path) == [str(tmp_path / "1.jpg"), str(tmp_path / "2.jpg")]


@pytest.fixture
def wrong(made, own, people, tmp_path):
    """Name -> command and what its refusal says."""
    gallery, calibration = made[0] / "gallery", made[0] / "calibration.json"
    other = tmp_path / "other.json"
    known = unseal(json.loads(calibration.read_text()))
    other.write_text(json.dumps(seal(known | {"model_hash": "0" * 64})))
    small = tmp_path / "small.json"
    small.write_text(json.dumps(seal(known | {"num_enrolled": 1, "num_images": 1})))
    image = next(iter((people / "cam6").rglob("*.jpg")))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    nameless = tmp_path / "nameless"
    for modality in ("visible", "infrared"):
        (nameless / modality).mkdir(parents=True)
        shutil.copy(image, nameless / modality)
    search = ("search", "--index", gallery, "--modality", "infrared", "--images", image)
    calibrate = ("calibrate", "--network", "synthetic", "--out", tmp_path / "new.json", "--images")
    index = ("index", "--index", tmp_path / "new", "--modality", "visible", "--network", "synthetic", "--images")
    return {
        "no index": ((*search[:2], tmp_path, *search[3:]), "is not the index of a gallery"),
        "top": ((*search, "--top", "0"), "--top is 0; it must be 1 or more"),
        "broken image": ((*search, tmp_path / "broken.jpg"), "broken.jpg: not readable"),
        "no image": ((*search, tmp_path / "none.jpg"), "There is no"),
        "other calibration": ((*search, "--calibration", other), "another network"),
        "other modality": (
            ("search", "--index", gallery, "--modality", "visible", "--images", image, "--calibration", calibration),
            "is for infrared queries and visible galleries",
        ),
        "far larger": ((*search, "--calibration", small), "more than 10 times as many"),
        "no calibration": ((*search, "--calibration", tmp_path / "none.json"), "cannot be read as a calibration"),
        "unwritable": ((*search, "--json", tmp_path / "no" / "x.json"), "Cannot write --json"),
        "one file for two": (
            (*search, "--json", tmp_path / "x", "--html", tmp_path / ".." / tmp_path.name / "x"), "Name two files"
        ),
        "no network": ((*search, "--network", tmp_path), str(tmp_path)),
        "there already": (
            ("index", "--index", gallery, "--modality", "visible", "--network", "synthetic", "--images", own),
            "exists already",
        ),
        "both": (("index", "--index", gallery, "--delete", "1", "--add"), "go with --index alone"),
        "nothing": (("index", "--index", gallery), "--images and --modality are needed"),
        "flip later": (
            ("index", "--index", gallery, "--add", "--images", own, "--modality", "visible", "--flip"),
            "--flip is decided when"
        ),
        "no such person": (("index", "--index", gallery, "--delete", "1234"), "person '1234'"),
        "no such dataset folder": ((*index, own, "--dataset", "sysu_mm01"), "is not a whole SYSU-MM01 tree"),
        "trial": ((*index, people, "--dataset", "sysu_mm01", "--trial", "1"), "--trial is 1; allowed for SYSU-MM01"),
        "tree as folder": ((*index, people), "test_id.txt is none of .jpg"),
        "cameras as folder": ((*index, people / "cam1" / ".."), "test_id.txt is none of .jpg"),
        "split": ((*index, own, "--split", "val"), "--split val needs a manifest or --dataset"),
        "too few": ((*calibrate, own, "--fpir", "0.01"), "cannot be measured on 5 strangers"),
        # What labels alone decide is said before a network is read.
        "too few, any network": (
            ("calibrate", "--network", tmp_path, *calibrate[3:], own, "--fpir", "0.15"), "Ask for 0.2 or more"
        ),
        "enrolled, any network": (
            ("calibrate", "--network", tmp_path, *calibrate[3:], own, "--enrolled", "9"), "9 enrolled persons"
        ),
        "seed": ((*calibrate, own, "--seed", "-1"), "--seed: '-1' is not allowed"),
        "trial of nothing": ((*index, own, "--trial", "1"), "--trial 1 needs a --dataset"),
        "rate": ((*calibrate, own, "--fpir", "2"), "between 0 and 1"),
        "enrolled": ((*calibrate, own, "--enrolled", "9"), "9 enrolled persons and 1 strangers"),
        "nobody named": ((*calibrate, nameless), "2 images of"),
        "nobody there": ((*calibrate, own / "visible" / "p"), "There is no"),
    }  # fmt: skip


def test_bad_input(wrong, capsys):
    for name, ((command, *flags), words) in wrong.items():
        capsys.readouterr()
        with pytest.raises((InputError, SystemExit)) as refusal:
            importlib.import_module(f"icre_jax.{command}").main([str(flag) for flag in flags])
        assert words in str(refusal.value) + capsys.readouterr().err, name


@pytest.mark.parametrize(("command", "name"), [("index", "no such person"), ("search", "top"), ("calibrate", "rate")])
def test_bad_input_as_a_user_meets_it(command, name, wrong):
    (module, *flags), words = wrong[name]
    assert module == command
    refused(run_command(f"icre_jax.{command}", *map(str, flags)), words)


def test_people_of_the_training_are_refused(tmp_path):
    """The network in the package was trained on rendered people of seed 0."""
    trained = rendering.SyntheticSettings(
        seed=0, difficulty="easy", num_train_ids=2, num_val_ids=4, num_test_ids=4, num_images_per_camera=1,
        image_size=(64, 32),
    )  # fmt: skip
    rendering.write_tree("sysu_mm01", tmp_path / "people", trained)
    source = Source(tmp_path / "people", "sysu_mm01")
    with pytest.raises(InputError, match=r"rendered with the same seed \(0\)(.|\n)*among its training identities"):
        calibrate_on(source, "infrared", network="synthetic", fpir=0.5, listener=Screen())


SYSU = {"dataset": "sysu_mm01", "trial": None, "data": "SYSU-MM01", "data_fingerprint": "a" * 64}
REGDB = SYSU | {"dataset": "regdb", "trial": 1, "data": "RegDB"}
RENDERED = SYSU | {"data": "synthetic people", "rendered_seed": 5}
NOT_LEARNED = Learned("llcm", None, "LLCM", "b" * 64, None, ("train",))


@pytest.mark.parametrize(
    ("learned", "before", "dataset", "trial", "split", "seed", "words"),
    [
        (RENDERED, [], "sysu_mm01", None, "test", 5, "2 of the 3 persons"),
        (RENDERED, [], "sysu_mm01", None, "test", 6, None),
        (RENDERED, [], "sysu_mm01", None, "test", None, None),
        (RENDERED, [], "llcm", None, "test", 5, "was trained on people rendered with the same seed (5), perhaps"),
        (RENDERED | {"rendered_seed": None}, [], "llcm", None, "test", 5, "an unknown seed"),
        (RENDERED, [{"rendered_seed": 6, "data": "synthetic people"}], "sysu_mm01", None, "test", 6, "started from"),
        (RENDERED, [{}], "sysu_mm01", None, "test", None, None),
        (SYSU, [], "sysu_mm01", None, "val", None, "2 of the 3 persons"),
        (SYSU, [{"dataset": "llcm"}], "llcm", None, "test", None, None),
        (SYSU | {"dataset": "llcm"}, [], "llcm", None, "test", None, None),
        (RENDERED | {"dataset": "llcm"}, [], "llcm", None, "test", 5, None),
        (REGDB, [{"train_splits": ("train", "val")}], "sysu_mm01", None, "val", None, "started from a network trained"),
        (REGDB, [{}], "sysu_mm01", None, "val", None, None),
        (REGDB, [], "regdb", 2, "test", None, "perhaps divided in another way"),
        (REGDB, [], "regdb", 1, "test", None, None),
        (SYSU, [], None, None, "test", None, None),
    ],
)
def test_people_of_the_training_are_refused_wherever_it_is_known(
    learned, before, dataset, trial, split, seed, words, tmp_path
):
    sources = [dataclasses.replace(NOT_LEARNED, **{"dataset": "sysu_mm01"} | fields).to_facts() for fields in before]
    net = icre_jax.load("synthetic")
    settings = net.settings.model_copy(update={"data": net.settings.data.model_copy(update={"synthetic": None})})
    net = dataclasses.replace(
        net, settings=settings, class_pids=[2, 3], provenance=learned | {"init_from": {"sources": sources}}
    )
    if seed is not None:
        (tmp_path / "synthetic.json").write_text(json.dumps({"seed": seed}))
    for path in (tmp_path, tmp_path / "manifest.csv"):
        with pytest.raises(InputError, match=re.escape(words)) if words else contextlib.nullcontext():
            require_unseen(net, Source(path, dataset, trial, split), {"1", "2", "3"})


@pytest.mark.slow
def test_the_rates_hold_on_unseen_people(tmp_path):
    """Ten times other people to calibrate on, and as many others who are searched for: within the stated intervals."""
    number = 160
    settings = dataclasses.replace(STRANGERS, seed=78, num_val_ids=2, num_test_ids=number, num_images_per_camera=2)
    rendering.write_tree("sysu_mm01", tmp_path / "people", settings)
    net = icre_jax.load("synthetic")
    sides = []
    for modality in ("infrared", "visible"):
        root, images = list_labelled(Source(tmp_path / "people", "sysu_mm01"), modality)
        vectors = net.embed([root / image.path for image in images], modality=modality)
        pid, camid = (np.array([int(getattr(image, name)) for image in images]) for name in ("person", "camid"))
        sides.append(Embedded(vectors, pid, camid, np.array([image.path for image in images])))
    persons = np.unique(sides[0].pid)
    assert len(persons) == number
    facts = {"query_modality": "infrared", "gallery_modality": "visible", "model_hash": net.model_hash}
    held = []
    for draw in range(10):
        chosen = np.random.default_rng(draw).permutation(persons)[: number // 2]
        halves = [
            [side.subset(np.flatnonzero(np.isin(side.pid, chosen) == inside)) for side in sides]
            for inside in (True, False)
        ]
        known = calibrate(*halves[0], fpir=0.1, **facts)
        unseen = run_searches(*halves[1])
        assert unseen.num_enrolled == known.num_enrolled
        rates = (
            (known.fpir, unseen.fpir(known.threshold)),
            (known.fnir, unseen.fnir(known.threshold)),
            (known.fnir_first, unseen.fnir(known.threshold, rank=1)),
        )
        print([(f"{s.value:.3f} [{s.low:.3f}, {s.high:.3f}]", f"{m.value:.3f}") for s, m in rates])
        held.append([stated.low <= measured.value <= stated.high for stated, measured in rates])
    assert np.all(held), held
