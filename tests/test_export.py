"""`python -m icre_jax.export` as a user starts it, the lines of its docs page, and what is refused when it is read."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

import icre_jax
from icre_jax.engine import export as module
from icre_jax.engine.export import export
from icre_jax.engine.forward import normalize_images
from icre_jax.engine.trained import open_trained
from icre_jax.errors import InputError
from icre_jax.evals.results import read_results
from icre_jax.machine.screen import Screen, open_console
from icre_jax.sums import write_sums
from tests.conftest import ROOT, flags_of, refused, run_command
from tests.damage import flip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture
def workdir(config, made):
    """One short run, made once for this file."""
    if not (made / "run").exists():
        config.schedule.num_epochs = 1
        process = run_command("icre_jax.train", *flags_of(config), "--workdir", str(made / "run"))
        assert process.returncode == 0, process.stderr
    return made / "run"


@pytest.fixture
def exported(workdir, made):
    """That run in both formats, kernels in float16 where that can be, made once for this file; read only."""
    if not (made / "both").exists():
        both = ("--format", "orbax,safetensors", "--half")
        process = run_command("icre_jax.export", "--workdir", str(workdir), "--out", str(made / "both"), *both)
        assert process.returncode == 0, process.stderr
        (made / "said").write_text(process.stdout)
    return made / "both"


@pytest.fixture
def copy(exported, tmp_path):
    """To be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def quiet():
    return Screen(open_console())


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 40, 20, 3), dtype=np.uint8)


@pytest.mark.versions
def test_the_lines_of_the_docs_give_the_embeddings_of_the_run(workdir, made, monkeypatch):
    process = run_command("icre_jax.export", "--workdir", str(workdir), "--out", str(made / "exported"))
    assert process.returncode == 0, process.stderr
    assert "embeds 32 test images to the same bits" in process.stdout
    names = {"config.json", "classes.json", "provenance.json", "README.md", "SHA256SUMS", "variables"}
    assert {path.name for path in (made / "exported").iterdir()} == names

    trained = open_trained(workdir, step=None, listener=quiet())
    images = module.first_images(trained.prepared, trained.settings.data.image_size)["visible"]
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(made)
    names = {"images": images}
    exec(compile(code, "docs/export.md", "exec"), names)
    outputs, _ = trained.network.apply(trained.variables, normalize_images(images), modality="visible", train=False)
    np.testing.assert_allclose(names["embeddings"], outputs["embeddings"], rtol=1e-4, atol=1e-5)
    assert names["class_pids"] == json.loads((made / "exported" / "classes.json").read_text())["class_pids"]
    assert len(names["class_pids"]) == 8


def test_a_run_and_its_exports_are_one_network(workdir, exported, made, images):
    run = icre_jax.load(workdir)
    # Without a form, orbax; a form may be named.
    for path in (exported, exported / "variables"):
        net = icre_jax.load(path)
        assert net.model_hash == run.model_hash
        assert (net.step, net.class_pids) == (run.step, run.class_pids)
        for modality in ("visible", "infrared"):
            assert net.embed(images, modality=modality).tobytes() == run.embed(images, modality=modality).tobytes()
    half = icre_jax.load(exported / "network.safetensors")
    assert half.model_hash != run.model_hash
    cosine = np.sum(half.embed(images, modality="visible") * run.embed(images, modality="visible"), axis=1)
    assert cosine.min() > 0.999
    # As NumPy rounds: kernels and nothing else.
    stored = load_file(exported / "network.safetensors")
    ours = {
        ".".join(entry.key for entry in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(run.variables)
    }
    assert stored.keys() == ours.keys()
    for name, array in ours.items():
        expected = array.astype(np.float16) if array.ndim > 1 else array
        np.testing.assert_array_equal(stored[name], expected)
        assert stored[name].dtype == expected.dtype
    said = (made / "said").read_text()
    assert "as orbax, safetensors, read back; it embeds 32 test images equally" in said
    assert "float16 moved these embeddings by a cosine distance of at most" in said


def test_float32_safetensors_have_the_bits_of_the_run_also_where_its_data_is_gone(workdir, tmp_path, images, capsys):
    away = Path(shutil.copytree(workdir, tmp_path / "run"))
    settings = json.loads((away / "config.json").read_text())
    settings["data"] |= {"data_dir": str(tmp_path / "gone"), "prepared_dir": str(tmp_path / "gone_too")}
    (away / "config.json").write_text(json.dumps(settings))
    done = export(away, tmp_path / "out", step=None, listener=quiet(), formats=("safetensors",))
    assert done.compared == "rendered images"
    assert "rendered people, as its data is not here" in capsys.readouterr().out
    assert not (tmp_path / "gone").exists()
    net, run = icre_jax.load(tmp_path / "out"), icre_jax.load(workdir)
    assert net.model_hash == run.model_hash
    assert net.embed(images, modality="visible").tobytes() == run.embed(images, modality="visible").tobytes()


@pytest.mark.long
def test_stablehlo_as_a_user_exports_and_uses_it(workdir, made, tmp_path, monkeypatch):
    out = tmp_path / "exported"
    command = ("icre_jax.export", "--workdir", str(workdir), "--out", str(out), "--format")
    process = run_command(*command, "safetensors,stablehlo")
    assert process.returncode == 0, process.stderr
    said = " ".join(process.stdout.split())
    assert "embeds 32 test images equally" in said
    assert f"until {json.loads((out / 'stablehlo.json').read_text())['readable_until']} at the latest" in said
    assert "`visible.stablehlo`, `infrared.stablehlo`, programs that JAX runs by itself: within 1e-05" in (
        (out / "README.md").read_text()
    )
    docs = (ROOT / "docs" / "export.md").read_text()
    code = next(code for code in re.findall(r"```python\n(.*?)```", docs, re.DOTALL) if "deserialize" in code)
    net = icre_jax.load(out)
    images = np.random.default_rng(0).integers(0, 256, (3, *net.image_size, 3), dtype=np.uint8)
    monkeypatch.chdir(tmp_path)
    names = {"images": images}
    exec(compile(code, "docs/export.md", "exec"), names)
    np.testing.assert_allclose(names["embeddings"], net.embed(images, modality="visible"), atol=1e-6)
    (out / "network.safetensors").unlink()
    with pytest.raises(InputError, match="holds StableHLO files only, which embed images without this package"):
        icre_jax.load(out)


HUB = '''
"""Stands in for huggingface_hub: writes down what it is asked."""
import json, os, pathlib


class HfApi:
    def _note(self, what, **words):
        with open(os.environ["STAND_IN_NOTES"], "a") as file:
            file.write(json.dumps({"what": what, **words}) + "\\n")

    def create_repo(self, repository, *, private, exist_ok):
        self._note("create", repository=repository, private=private, exist_ok=exist_ok)
        return f"https://hub.test/{repository}"

    def repo_info(self, repository):
        import types
        return types.SimpleNamespace(private=True)

    def list_repo_files(self, repository):
        return [".gitattributes"]

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self._note("upload", repository=repo_id, files=sorted(os.listdir(folder_path)))
'''


def test_what_is_pushed_goes_to_a_private_repository(workdir, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "huggingface_hub.py").write_text(HUB)
    notes = tmp_path / "notes.jsonl"
    command = [sys.executable, "-m", "icre_jax.export", "--workdir", str(workdir), "--format", "safetensors"]
    process = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--push", "lab/icre-test"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "lib"), "STAND_IN_NOTES": str(notes), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "Uploaded to https://hub.test/lab/icre-test, private." in process.stdout
    created, uploaded = (json.loads(line) for line in notes.read_text().splitlines())
    assert created == {"what": "create", "repository": "lab/icre-test", "private": True, "exist_ok": True}
    assert uploaded["files"] == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert "README.md" in uploaded["files"]


def test_data_of_another_kind_is_not_what_it_is_compared_on(workdir, tmp_path, llcm_tree, capsys):
    away = Path(shutil.copytree(workdir, tmp_path / "run"))
    settings = json.loads((away / "config.json").read_text())
    settings["data"] |= {"data_dir": str(llcm_tree), "prepared_dir": str(tmp_path / "prepared")}
    (away / "config.json").write_text(json.dumps(settings))
    assert export(away, tmp_path / "out", step=None, listener=quiet()).compared == "rendered images"
    assert "as its data cannot be used: " in capsys.readouterr().out


def test_nothing_of_the_machine_travels(exported, workdir):
    for name in ("config.json", "classes.json", "provenance.json", "README.md"):
        text = (exported / name).read_text()
        assert str(workdir.parent) not in text
        assert "/tmp" not in text


def test_the_card_says_what_is_known(exported, workdir):
    text = (exported / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert (facts["license"], facts["library_name"]) == ("apache-2.0", "icre_jax")
    results, _ = read_results(workdir)
    index = facts["model-index"][0]["results"]
    assert [entry["dataset"]["name"] for entry in index] == [f"synthetic people, {r.setting}" for r in results]
    for entry, result in zip(index, results, strict=True):
        values = {metric["type"]: metric["value"] for metric in entry["metrics"]}
        assert values == {name: round(100 * result.mean[name], 2) for name in ("rank1", "mAP", "mINP")}
        assert f"| {result.setting} | {100 * result.mean['rank1']:.2f} ±{100 * result.std['rank1']:.2f} |" in body
    net = icre_jax.load(exported)
    for words in (
        net.model_hash,
        icre_jax.load(exported / "network.safetensors").model_hash,
        "synthetic people (SYSU-MM01 protocol), infrared->visible, gallery: python-random, 2 trials",
        "They say nothing about images of real people",
        "## Intended use",
        "## Not intended",
        "stored in float16",
        "8 training identities",
    ):
        assert words in " ".join(body.split()), words
    assert max(map(len, body.splitlines())) < 200


def test_the_card_of_real_data_grants_nothing(exported):
    """With the provenance such a run would have."""
    from icre_jax.engine.card import write_card
    from icre_jax.engine.stored import read_stored

    stored = read_stored(exported)
    stored.about.update(data="SYSU-MM01", pretrained="resnet50.safetensors")
    del stored.about["results"]
    text = write_card(stored)
    assert yaml.safe_load(text.split("---\n", 2)[1])["license"] == "other"
    for words in (
        "on request, for academic research",
        "`resnet50.safetensors` that the backbone started from: under their own licence",
        "nothing is granted by this card alone",
        "This step was not scored",
    ):
        assert words in " ".join(text.split()), words
    assert "rendered" not in text.replace("rendered images", "").lower()


def test_bad_input(workdir, made, tmp_path):
    (tmp_path / "there").mkdir()
    there = run_command("icre_jax.export", "--workdir", str(workdir), "--out", str(tmp_path / "there"))
    refused(there, f"{tmp_path / 'there'} exists already")
    with pytest.raises(InputError, match="is not the workdir of a run"):
        export(tmp_path / "no", tmp_path / "out", step=None, listener=quiet())
    out = ("--workdir", str(workdir), "--out", str(tmp_path / "out"))
    refused(run_command("icre_jax.export", *out, "--format", "onnx"), "'onnx'; allowed are orbax, safetensors")
    with pytest.raises(InputError, match=r"--half is of network.safetensors, and --format is 'orbax'"):
        export(workdir, tmp_path / "out", step=None, listener=quiet(), half=True)
    for formats in ((), ("orbax", "orbax")):
        with pytest.raises(InputError, match="each at most once"):
            export(workdir, tmp_path / "out", step=None, listener=quiet(), formats=formats)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", module.FORMATS)
def test_what_reads_back_differently_is_not_kept(workdir, tmp_path, monkeypatch, name):
    def damaged(path):
        stored = original(path)
        params = dict(stored.variables["params"])
        scale = np.asarray(params["head"]["neck"]["scale"])
        params["head"] = {**params["head"], "neck": {"scale": scale * np.linspace(1, 2, len(scale), dtype=np.float32)}}
        return dataclasses.replace(stored, variables=stored.variables | {"params": params})

    original = module.read_stored
    monkeypatch.setattr(module, "read_stored", damaged)
    # StableHLO files are read by another process.
    monkeypatch.setattr(module, "embed_elsewhere", lambda folder, images, modality, tolerance: np.eye(len(images), 32))
    with pytest.raises(InputError, match=rf"written as {name} embeds (visible|infrared) images differently"):
        export(workdir, tmp_path / "out", step=None, listener=quiet(), formats=(name,))
    assert list(tmp_path.iterdir()) == []


def list_again(copy: Path) -> None:
    """As whoever changes files on purpose may do: what is looked at after the sums is looked at."""
    write_sums(copy, leave_out=("README.md",))


def test_what_was_changed_is_refused(copy):
    """tests/test_damage.py has the sums of the files; the hash of the network is in another file than they are."""
    tensors = copy / "network.safetensors"
    flip(tensors, tensors.stat().st_size - 1, 0)
    list_again(copy)
    with pytest.raises(InputError, match=r"network.safetensors is of another network than .* export the run again"):
        icre_jax.load(tensors)
    # Settings that decide an embedding are part of the hash, also where every array still fits.
    settings = json.loads((copy / "config.json").read_text())
    settings["data"]["image_size"] = [64, 32]
    (copy / "config.json").write_text(json.dumps(settings))
    list_again(copy)
    with pytest.raises(InputError, match=r"variables is of another network than"):
        icre_jax.load(copy)


def test_damage_in_an_orbax_checkpoint_is_found(copy):
    largest = max((copy / "variables").rglob("*"), key=lambda file: file.stat().st_size if file.is_file() else 0)
    flip(largest, largest.stat().st_size // 2, 0)
    list_again(copy)
    with pytest.raises(InputError, match=r"variables (is of another network|is no network, or a damaged one)"):
        icre_jax.load(copy)
    shutil.rmtree(copy / "variables")
    (copy / "variables").mkdir()
    list_again(copy)
    with pytest.raises(InputError, match="variables is no network, or a damaged one"):
        icre_jax.load(copy)


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_a_truncated_file_is_refused(copy, keep):
    file = copy / "network.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    list_again(copy)
    with pytest.raises(InputError, match="no safetensors file, or a damaged one"):
        icre_jax.load(file)


def test_foreign_arrays_are_named_before_they_are_read(copy):
    file = copy / "network.safetensors"
    arrays = load_file(file)
    del arrays["params.head.neck.scale"]
    arrays["fc.weight"] = np.zeros((3, 2), np.float32)
    arrays["params.head.classifier.kernel"] = arrays["params.head.classifier.kernel"][:, :5].copy()
    save_file(arrays, file)
    list_again(copy)
    with pytest.raises(InputError) as caught:
        icre_jax.load(file)
    for words in ("fc.weight: [3, 2] in the file, absent", "params.head.neck.scale: absent in the file", ", 5] in"):
        assert words in str(caught.value)
    arrays = {name: array.astype(np.float64) for name, array in load_file(file).items()}
    save_file(arrays, file)
    list_again(copy)
    with pytest.raises(InputError, match=r"stored as F64; float32 or float16 is read"):
        icre_jax.load(file)
    with file.open("ab") as stream:
        stream.truncate(2**26)  # sparse: it takes no room
    list_again(copy)
    with pytest.raises(InputError, match=r"has 67,108,864 bytes, and this network at most"):
        icre_jax.load(file)
    with (copy / "variables" / "much").open("wb") as stream:
        stream.truncate(2**26)
    list_again(copy)
    with pytest.raises(InputError, match=r"variables holds 67,\d+,\d+ bytes, and this network has at most"):
        icre_jax.load(copy)


def test_an_orbax_checkpoint_of_another_network_is_refused(copy):
    settings = json.loads((copy / "config.json").read_text())
    settings["model"]["width"] = 8
    (copy / "config.json").write_text(json.dumps(settings))
    list_again(copy)
    with pytest.raises(InputError, match=r"variables is of another network; \d+ arrays differ"):
        icre_jax.load(copy)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.json", "{", "config.json cannot be read"),
        ("config.json", "[]", "config.json cannot be read .it must hold an object"),
        ("config.json", "[" * 10**5, "config.json cannot be read"),
        ("config.json", "{}", "The config cannot be used"),
        ("classes.json", '{"step": 1}', "must hold class_pids"),
        ("classes.json", '{"step": 1, "class_pids": [1, "2"]}', "must hold class_pids"),
        ("classes.json", '{"step": true, "class_pids": [1]}', "must hold class_pids"),
        ("classes.json", " " * (32 * 2**20 + 1), "33,554,433 bytes; at most 33,554,432 are read"),
        ("provenance.json", "{}", "has no network_sha256 of orbax"),
        ("provenance.json", None, "provenance.json cannot be read"),
    ],
)
def test_damaged_descriptions_are_refused(copy, name, text, words):
    (copy / name).unlink() if text is None else (copy / name).write_text(text)
    list_again(copy)
    with pytest.raises(InputError, match=words):
        icre_jax.load(copy)


def test_a_step_is_of_a_workdir(workdir, exported, tmp_path):
    step = icre_jax.load(workdir).step
    assert icre_jax.load(workdir, step=step).step == step
    with pytest.raises(InputError, match="no checkpoint of step 12345"):
        icre_jax.load(workdir, step=12345)
    with pytest.raises(InputError, match=r"is an export and holds one step; a step \(1\) can be chosen of a workdir"):
        icre_jax.load(exported, step=1)
    for path in (tmp_path, tmp_path / "no", "no such network"):
        with pytest.raises(InputError, match=r"holds no trained network.*that comes with the package: synthetic"):
            icre_jax.load(path)
