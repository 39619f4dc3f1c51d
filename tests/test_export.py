"""`python -m icre_jax.export` as a user starts it, the lines of its docs page, and bad input."""

import json
import re

import numpy as np
import pytest

from icre_jax.engine import export as module
from icre_jax.engine.export import export
from icre_jax.engine.steps import normalize_images
from icre_jax.engine.trained import open_trained
from icre_jax.errors import InputError
from icre_jax.machine.screen import Screen, open_console
from tests.conftest import ROOT, flags_of, run_command
from tests.test_commands import refused


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


@pytest.mark.versions
def test_the_lines_of_the_docs_give_the_embeddings_of_the_run(workdir, made, monkeypatch):
    process = run_command("icre_jax.export", "--workdir", str(workdir), "--out", str(made / "exported"))
    assert process.returncode == 0, process.stderr
    assert "embeds 32 test images to the same bits" in process.stdout
    assert {path.name for path in (made / "exported").iterdir()} == {"config.json", "classes.json", "variables"}

    trained = open_trained(workdir, step=None, screen=Screen(open_console()))
    images = module.first_images(trained.prepared, trained.settings.data.image_size)["visible"]
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(made)
    names = {"images": images}
    exec(compile(code, "docs/export.md", "exec"), names)
    outputs, _ = trained.network.apply(trained.variables, normalize_images(images), modality="visible", train=False)
    np.testing.assert_allclose(names["embeddings"], outputs["embeddings"], rtol=1e-4, atol=1e-5)
    assert names["class_pids"] == json.loads((made / "exported" / "classes.json").read_text())["class_pids"]
    assert len(names["class_pids"]) == 8


def test_bad_input(workdir, made, tmp_path):
    (tmp_path / "there").mkdir()
    there = run_command("icre_jax.export", "--workdir", str(workdir), "--out", str(tmp_path / "there"))
    refused(there, f"{tmp_path / 'there'} exists already")
    absent = run_command("icre_jax.export", "--workdir", str(tmp_path / "no"), "--out", str(tmp_path / "out"))
    refused(absent, "is not the workdir of a run")
    assert not (tmp_path / "out").exists()


def test_what_reads_back_differently_is_not_kept(workdir, tmp_path, monkeypatch):
    def damaged(folder):
        variables = dict(original(folder))
        variables["params"] = variables["params"] | {
            "head": {**variables["params"]["head"], "neck": {"scale": 2 * variables["params"]["head"]["neck"]["scale"]}}
        }
        return variables

    original = module.read_variables
    monkeypatch.setattr(module, "read_variables", damaged)
    with pytest.raises(InputError, match=r"embeds (visible|infrared) images differently"):
        export(workdir, tmp_path / "out", step=None, screen=Screen(open_console()))
    assert list(tmp_path.iterdir()) == []
