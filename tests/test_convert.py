"""`python -m icre_jax.convert`, started as a user would, and each way of bad input."""

import contextlib
import hashlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from icre_jax import convert
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.state import create_state
from icre_jax.engine.stored import BOX, read_stored
from icre_jax.errors import InputError
from icre_jax.models.head import Head
from icre_jax.models.network import ReIDNetwork
from icre_jax.models.resnet import DualStreamResNet
from tests.conftest import refused, run_command
from tests.test_pretrained import WIDTH, filled, published, write

NETWORK = ["--depth", "18", "--width", str(WIDTH)]


def convert_command(*arguments):
    return run_command("icre_jax.convert", *map(str, arguments))


@pytest.fixture
def half(tmp_path):
    """A published file as it is often stored."""
    state = {name: value.astype(np.float16) for name, value in published().items() if "tracked" not in name}
    return write(tmp_path / "resnet18.safetensors", state)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A work folder with checkpoints as training leaves them, and the state of step 4."""
    workdir = tmp_path_factory.mktemp("run")
    network = ReIDNetwork(DualStreamResNet(depth=18, width=WIDTH), Head(num_classes=3))
    shapes = jax.eval_shape(lambda: create_state(0, network=network, tx=optax.adam(0.1), image_size=(32, 16)))
    with contextlib.closing(Checkpoints(workdir, keep_latest=2)) as checkpoints:
        for step in (2, 4):
            state = filled(shapes, seed=step).replace(step=jnp.int32(step))
            checkpoints.save(state, {"settings": {}})
    return workdir, state


def test_there_and_back(half, tmp_path):
    process = convert_command("--from_safetensors", half, "--out", tmp_path / "backbone", *NETWORK)
    assert process.returncode == 0, process.stderr
    assert f"{tmp_path / 'backbone'} (read back, equal)" in process.stdout
    with contextlib.closing(Checkpoints(tmp_path / "backbone", read_only=True)) as checkpoints:
        assert checkpoints.read_facts(0) == {
            "depth": 18,
            "width": WIDTH,
            "specific_until": "stem",
            "source": "resnet18.safetensors",
            "source_sha256": hashlib.sha256(half.read_bytes()).hexdigest(),
        }
    back = tmp_path / "back.safetensors"
    process = convert_command("--workdir", tmp_path / "backbone", "--to_safetensors", back)
    assert process.returncode == 0, process.stderr
    before, after = load_file(half), load_file(back)
    assert f"step 0 of {tmp_path / 'backbone'}: {back}, {len(after)} arrays (read back, equal)" in process.stdout
    assert before.keys() - after.keys() == {"fc.weight", "fc.bias"}
    for name, value in after.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, before[name].astype(np.float32), err_msg=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.safetensors", "backbone", "resnet18.safetensors"]


def test_the_backbone_of_a_run(run, tmp_path):
    workdir, state = run
    out = tmp_path / "visible.safetensors"
    process = convert_command("--workdir", workdir, "--to_safetensors", out, "--stem", "visible")
    assert process.returncode == 0, process.stderr
    assert f"step 4 of {workdir}" in process.stdout
    written = load_file(out)
    params = state.params["backbone"]
    np.testing.assert_array_equal(
        written["conv1.weight"], np.einsum("hwio->oihw", params["visible_stem"]["conv1"]["kernel"])
    )
    np.testing.assert_array_equal(
        written["layer4.0.downsample.0.weight"],
        np.einsum("hwio->oihw", params["layer4"]["0"]["downsample"]["0"]["kernel"]),
    )
    assert convert.export_weights(workdir, tmp_path / "2.safetensors", step=2, stem="visible")[0] == 2
    assert (load_file(tmp_path / "2.safetensors")["conv1.weight"] != written["conv1.weight"]).any()


def test_the_backbone_of_a_network_in_the_box(tmp_path):
    step, num_arrays = convert.export_weights("instrument", tmp_path / "box.safetensors", stem="infrared")
    assert step > 0
    stored = read_stored("instrument")
    written = load_file(tmp_path / "box.safetensors")
    assert len(written) == num_arrays
    kernel = stored.variables["params"]["backbone"]["infrared_stem"]["conv1"]["kernel"]
    np.testing.assert_array_equal(written["conv1.weight"], np.transpose(kernel, (3, 2, 0, 1)))
    export = shutil.copytree(BOX / "instrument", tmp_path / "export")
    assert convert.export_weights(export, tmp_path / "again.safetensors", stem="infrared") == (step, num_arrays)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "box.safetensors").read_bytes()


def test_a_run_whose_stems_differ_needs_a_choice(run, tmp_path):
    out = tmp_path / "out.safetensors"
    process = convert_command("--workdir", run[0], "--to_safetensors", out)
    refused(process, "conv1.weight", "--stem visible or --stem infrared")
    assert not out.exists()


def test_a_pickle_is_refused(tmp_path):
    (tmp_path / "resnet50.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    process = convert_command("--from_safetensors", tmp_path / "resnet50.pth", "--out", tmp_path / "backbone")
    refused(process, "resnet50.pth is no safetensors file", "execute code", "timm/resnet50.tv_in1k")
    assert not (tmp_path / "backbone").exists()


def test_another_depth_is_refused(half, tmp_path):
    process = convert_command("--from_safetensors", half, "--out", tmp_path / "backbone", "--width", WIDTH)
    refused(process, "model.depth is 50, but this looks like a ResNet-18", "--depth 18")
    assert sorted(tmp_path.iterdir()) == [half]


def test_what_exists_is_not_overwritten(half, run, tmp_path):
    with pytest.raises(InputError, match=r"resnet18.safetensors exists already"):
        convert.export_weights(run[0], half, stem="visible")
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match=r"taken exists already. Choose another --out"):
        convert.import_weights(half, tmp_path / "taken", depth=18, width=WIDTH)
    with pytest.raises(InputError, match="Cannot write"):
        convert.import_weights(half, half / "under_a_file", depth=18, width=WIDTH)


def test_a_checkpoint_that_is_not_there(run, tmp_path):
    out = tmp_path / "out.safetensors"
    with pytest.raises(InputError, match="mistyped holds no checkpoints"):
        convert.export_weights(tmp_path / "mistyped", out)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no finished checkpoint yet"):
        convert.export_weights(tmp_path / "empty", out)
    with pytest.raises(InputError, match=r"no checkpoint of step 3; there are \[2, 4\]"):
        convert.export_weights(run[0], out, step=3)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--from_safetensors --to_safetensors is required"),
        (("--from_safetensors", "a", "--to_safetensors", "b"), "not allowed with"),
        (("--from_safetensors", "a"), "--from_safetensors needs --out"),
        (("--to_safetensors", "a"), "--to_safetensors needs --workdir"),
        (("--from_safetensors", "a", "--out", "b", "--stem", "visible"), "--stem does not go with --from_safetensors"),
        (("--to_safetensors", "a", "--workdir", "b", "--depth", "50"), "--depth does not go with --to_safetensors"),
        (
            ("--from_safetensors", "a", "--out", "b", "--width", "0"),
            "'0' is not allowed; give a whole number from 1 to 256",
        ),
        (("--from_safetensors", "a", "--out", "b", "--depth", "51"), "invalid choice: 51"),
        (("--to_safetensors", "a", "--workdir", "b", "--stem", "thermal"), "invalid choice: 'thermal'"),
    ],
)
def test_flags_that_cannot_be_used(flags, words, capsys):
    with pytest.raises(SystemExit) as caught:
        convert.main(flags)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_help_says_what_the_command_is_for():
    process = convert_command("--help")
    assert process.returncode == 0
    assert "python -m icre_jax.convert" in process.stdout
    assert "Convert weights between published files" in process.stdout


def test_layer1_of_each_modality(half, tmp_path):
    convert.import_weights(half, tmp_path / "backbone", depth=18, width=WIDTH, specific_until="layer1")
    with contextlib.closing(Checkpoints(tmp_path / "backbone", read_only=True)) as checkpoints:
        assert {"visible_layer1", "infrared_layer1"} <= checkpoints.read_variables(0)["params"]["backbone"].keys()
