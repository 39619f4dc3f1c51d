"""`python -m icre_jax.visualize`: figures of a run, a baseline, the network in the box; what is refused."""

import csv
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import icre_jax
from icre_jax.data.layouts import llcm
from icre_jax.engine.stored import first_variables, read_stored
from icre_jax.errors import InputError
from icre_jax.evals import PROTOCOLS
from icre_jax.evals.protocol import searched_columns
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import read_results
from icre_jax.figures import layout
from icre_jax.inspection.subjects import _labels
from icre_jax.inspection.visualize import FIGURES, choose_figures
from icre_jax.training.run import assemble
from tests.conftest import refused, run_command
from tests.small_runs import run

NOT_OF_A_BASELINE = {"masks", "attention", "enhancement"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("visualize")


@pytest.fixture
def runs(small, made):
    """A short run of the whole network and one of the baseline, made once for this file."""
    for name, enabled in (("icre", True), ("plain", False)):
        if not (made / name).exists():
            small.schedule.num_epochs = 1
            small.model.mpfr.enabled = small.model.sdce.enabled = enabled
            run(small, made / name)
    return made / "icre", made / "plain"


def visualize(*flags):
    return run_command("icre_jax.visualize", *map(str, flags))


def read(folder, name):
    with (folder / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_files(folder, names):
    expected = {f"{name}.{suffix}" for name in names for suffix in ("png", "pdf", "csv")} | {"about.json"}
    assert {file.name for file in folder.iterdir()} == expected
    for name in names:
        with Image.open(folder / f"{name}.png") as image:
            image.load()
            assert min(image.size) > 300
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.long
def test_all_figures_of_a_run_beside_its_baseline(runs, prepared, tmp_path):
    workdir, baseline = runs
    other = tmp_path / "third"
    shutil.copytree(baseline, other)
    flags = ("--workdir", workdir, "--baseline", baseline, "--compare", other, "--token", "0,0")
    for name in ("one", "two"):
        process = visualize(*flags, "--out", tmp_path / name)
        assert process.returncode == 0, process.stderr
        assert_files(tmp_path / name, FIGURES)
    for name in FIGURES:  # the same input, the same numbers and the same image
        for suffix in ("csv", "png"):
            first, second = (tmp_path / folder / f"{name}.{suffix}" for folder in ("one", "two"))
            assert first.read_bytes() == second.read_bytes(), first
    out, tested = tmp_path / "one", [prepared.index[split] for split in ("query", "gallery")]

    results, _ = read_results(workdir)  # the run's own evaluation
    curve = [row for row in read(out, "cmc") if row["network"] == "icre" and row["setting"] == results[0].setting]
    assert [float(row["share"]) for row in curve if row["what"] == "cmc"] == pytest.approx(results[0].cmc, abs=1e-5)
    assert {row["network"] for row in read(out, "cmc")} == {"icre", "plain", "third"}
    assert {row["network"] for row in read(out, "distances")} == {"untrained", "plain", "icre"}
    assert {row["network"] for row in read(out, "features")} == {"untrained", "plain", "icre"}
    assert {row["network"] for row in read(out, "grad_cam")} == {"plain", "icre"}
    sides = [np.concatenate([index.pid[index.modality == m] for index in tested]) for m in (0, 1)]
    same = int((sides[0][:, None] == sides[1]).sum())
    pairs = [row for row in read(out, "distances") if row["network"] == "icre" and row["what"] == "pairs"]
    for kind, number in (("intra", same), ("inter", len(sides[0]) * len(sides[1]) - same)):
        assert sum(int(row["value"]) for row in pairs if row["identities"] == kind) == number
    # Attention is a share of what one token asks.
    shares: dict = {}
    for row in read(out, "attention"):
        assert (row["token_row"], row["token_column"]) == ("0", "0")
        key = (row["path"], row["step"], row["head"])
        shares[key] = shares.get(key, 0.0) + float(row["attention"])
    assert len(shares) == 4 * 2 * 2
    np.testing.assert_allclose(list(shares.values()), 1, atol=1e-4)
    assert all(0 < float(row["mask"]) < 1 for row in read(out, "masks"))

    about = json.loads((out / "about.json").read_text())
    assert about["data"] == "synthetic people"
    assert [network["label"] for network in about["networks"]] == ["untrained", "plain", "icre", "third"]
    assert about["networks"][2]["network_sha256"] == icre_jax.load(workdir).model_hash
    assert about["networks"][0]["trained_on"] == []


@pytest.mark.long
def test_a_baseline_is_told_what_it_cannot_have(runs, strangers, tmp_path):
    _, baseline = runs
    data = ("--data_dir", strangers, "--dataset", "llcm", "--prepared_dir", tmp_path / "records")
    process = visualize("--network", baseline, *data, "--out", tmp_path / "out")
    assert process.returncode == 0, process.stderr
    assert_files(tmp_path / "out", [name for name in FIGURES if name not in NOT_OF_A_BASELINE])
    said = " ".join(process.stdout.split())
    assert "plain: no masks, as it has no MPFR; no attention, as it has no attention of SDCE; no enhancement" in said
    # The heat maps are those of `net.explain`.
    net = icre_jax.load(baseline)
    rows = read(tmp_path / "out", "grad_cam")
    paths = {row["modality"]: row["path"] for row in rows if row["pid"] == rows[0]["pid"]}
    seen = net.explain(*(strangers / paths[modality] for modality in ("infrared", "visible")))
    heat = [float(row["heat"]) for row in rows if row["path"] == paths["visible"]]
    np.testing.assert_allclose(heat, seen.heat[1].ravel(), atol=1e-5)
    assert float(rows[0]["similarity"]) == pytest.approx(seen.similarity, abs=1e-4)
    # The hardest queries in the first setting's first gallery, from files and pair by pair.
    sides = {}
    for split, modality in (("query", "infrared"), ("gallery", "visible")):
        records = llcm.scan(strangers)[split]
        vectors = net.embed([strangers / record.path for record in records], modality=modality)
        columns = {name: np.array([getattr(record, name) for record in records]) for name in ("pid", "camid", "path")}
        sides[modality] = Embedded(vectors, **columns)
    setting, query, gallery = PROTOCOLS["llcm"].settings[0], sides["infrared"], sides["visible"]
    assert setting.query == "infrared"
    gallery = gallery.subset(searched_columns(setting, gallery))
    margins = []
    for row, similar in enumerate(query.features @ gallery.features.T):
        same = gallery.pid == query.pid[row]
        right = same & (gallery.camid != query.camid[row])
        if right.any():
            margins.append(similar[~same].max() - similar[right].max())
    hardest = sorted(margins, reverse=True)
    found = [float(row["margin"]) for row in read(tmp_path / "out", "errors")]
    np.testing.assert_allclose(found, hardest[: len(found)], atol=1e-4)

    process = visualize("--network", baseline, *data, "--out", tmp_path / "more", "--only", "cmc,masks")
    refused(process, "no masks, as it has no MPFR. Leave masks out of --only.")
    assert not (tmp_path / "more").exists()


@pytest.mark.long
def test_the_network_in_the_box_on_rendered_people(tmp_path):
    process = visualize("--network", "synthetic", "--only", "enhancement, masks", "--out", tmp_path / "out")
    assert process.returncode == 0, process.stderr
    assert_files(tmp_path / "out", ["masks", "enhancement"])
    moves = read(tmp_path / "out", "enhancement")
    assert {row["taken_out"] for row in moves} == {"enhancement", "gate"}
    assert len(moves) > 2 * 400
    assert all(0 < float(row["relative_move"]) < 1 for row in moves)
    assert json.loads((tmp_path / "out" / "about.json").read_text())["networks"][0]["step"] == 0


@pytest.mark.long
def test_bad_input(runs, strangers, llcm_tree, tmp_path):
    workdir, baseline = runs
    out = ("--out", tmp_path / "out")
    on_strangers = ("--data_dir", strangers, "--dataset", "llcm", "--prepared_dir", tmp_path / "records")
    refused(
        visualize("--workdir", workdir, "--only", "cmc,faces", *out), "--only is 'cmc,faces'; allowed are distances"
    )
    refused(visualize("--workdir", workdir, "--token", "first", *out), "--token is 'first'; two numbers are needed")
    refused(visualize("--workdir", workdir, "--only", "attention", "--token", "9,0", *out), "--token is 9,0", "0 to 1")
    refused(visualize(*out), "one of the arguments --workdir --network is required")
    refused(visualize("--network", tmp_path, *out), "holds no trained network")
    refused(visualize("--workdir", workdir, "--data_dir", strangers, *out), "Give both, or none")
    refused(visualize("--workdir", workdir, "--checkpoint", "77", *out), "77")
    refused(visualize("--workdir", workdir, "--baseline", workdir, *out), "cannot be told apart")
    known = ("--data_dir", llcm_tree, "--dataset", "llcm", "--prepared_dir", tmp_path / "known")
    refused(visualize("--network", "synthetic", "--baseline", baseline, *known, *out), "rendered people of seed 3")
    (tmp_path / "there").mkdir()
    refused(visualize("--network", baseline, *on_strangers, "--out", tmp_path / "there"), "exists already")
    assert not (tmp_path / "out").exists()


def test_what_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    assert choose_figures("errors, cmc", tmp_path / "new") == ["cmc", "errors"]
    for only in ("", "cmc,cmc", "faces"):
        with pytest.raises(InputError, match=f"--only is '{only}'; allowed are distances, features, .*errors"):
            choose_figures(only, tmp_path / "new")
    with pytest.raises(InputError, match="exists already"):
        choose_figures(None, tmp_path)
    monkeypatch.setattr(layout.importlib.util, "find_spec", lambda name: None)
    assert choose_figures("cmc", tmp_path / "new") == ["cmc"]
    with pytest.raises(InputError, match=r"features needs scikit-learn.*pip install 'icre_jax\[figures\]'"):
        choose_figures(None, tmp_path / "new")


def test_labels_tell_networks_apart():
    assert _labels(["runs/icre", "runs/plain"]) == ["icre", "plain"]
    assert _labels(["a/net", "b/net", "c"]) == ["a/net", "b/net", "c"]
    assert _labels(["runs/untrained"]) == ["runs/untrained"]
    assert _labels([".", "..", "synthetic"]) == [Path.cwd().name, Path.cwd().parent.name, "synthetic"]
    assert _labels(["synthetic", "runs/synthetic"]) == ["box/synthetic", "runs/synthetic"]
    for same in ("a/net", "x/../a/net"):
        with pytest.raises(InputError, match=r"^a/net.* cannot be told apart\. Give each"):
            _labels(["a/net", "c", same])


@pytest.mark.long
def test_the_untrained_network_is_the_one_that_the_run_started_from(runs, config, prepared):
    stored = read_stored(runs[0])
    start = assemble(stored.settings, runs[0], prepared).create_state().variables
    ours = first_variables(stored)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, start)
