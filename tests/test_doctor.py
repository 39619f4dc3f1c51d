"""The doctor: well where all is well, and each thing that is broken is named with what to do."""

import dataclasses
from pathlib import Path

import jax
import pytest

from icre_jax.data.folders import write_manifest
from icre_jax.data.prepared import PreparedDataset
from icre_jax.engine.pretrained import write_backbone
from icre_jax.engine.program import build_program
from icre_jax.health import examination as doctor
from icre_jax.health import installed, places, trial_step
from icre_jax.health.findings import Finding
from icre_jax.settings import parse, resolve_paths
from tests.conftest import flags_of, run_command
from tests.test_own_pictures import make_folders


@pytest.mark.long
def test_the_command_says_that_all_is_well_and_leaves_nothing(config, tmp_path):
    workdir = tmp_path / "not" / "there" / "yet"
    process = run_command("icre_jax.doctor", *flags_of(config), "--workdir", str(workdir))
    assert process.returncode == 0, process.stdout + process.stderr
    for words in (
        "ok      python: 3.",
        "jax ",
        "devices: 1 x cpu",
        "GiB free",
        "images of SYSU-MM01",
        "one step: loss",
    ):
        assert words in process.stdout
    assert process.stdout.endswith("All is well.\n")
    assert not list(tmp_path.iterdir())


def test_the_command_names_what_is_broken(config, tmp_path, monkeypatch):
    config.data.data_dir = str(tmp_path / "absent")
    config.data.prepared_dir = "/proc/records"
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/proc/compiled")
    flags = [*flags_of(config, "configs/sysu_mm01.py"), "--workdir", "/proc/runs"]
    process = run_command("icre_jax.doctor", *flags)
    assert process.returncode == 5, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    broken = [line for line in process.stdout.splitlines() if line.startswith("broken  ")]
    found = {line.removeprefix("broken  ").split(":")[0]: line for line in broken}
    assert found.keys() == {"devices", "workdir", "disk", "records", "compile cache", "data", "one step"}
    assert "JAX_PLATFORMS is 'cuda'; unset it" in found["devices"]
    assert "Choose another --workdir" in found["workdir"]
    assert "JAX_COMPILATION_CACHE_DIR" in found["compile cache"]
    assert str(tmp_path / "absent") in found["data"]
    assert "Broken: devices, workdir, disk, records, compile cache, data, one step." in process.stdout


def test_bad_input():
    process = run_command("icre_jax.doctor", "--config", "configs/absent.py")
    assert process.returncode == 2
    assert "no config file configs/absent.py" in process.stderr


@pytest.fixture
def settings(config):
    return resolve_paths(parse(config))


def test_versions_are_compared_with_what_was_asked_for(monkeypatch):
    assert {finding.state for finding in installed.check_versions()} == {"ok"}
    real = installed._version
    monkeypatch.setattr(installed, "_version", lambda name: {"optax": "0.1.0", "rich": None}.get(name, real(name)))
    findings = {finding.what: finding for finding in installed.check_versions()}
    assert findings["rich"].detail.startswith("not installed: pip install 'rich")
    assert findings["optax"].state == "broken"
    assert findings["optax"].detail.startswith("0.1.0 is installed: pip install 'optax")


def test_extras_that_are_missing_stand_beside_the_line_that_installs_them(monkeypatch):
    real = installed._version
    monkeypatch.setattr(installed, "_version", lambda name: None if name == "tensorboardX" else real(name))
    line = "tensorboardX not installed; only if you want it: pip install 'icre_jax[tensorboard]'"
    findings = {finding.what: finding for finding in installed.check_extras(set())}
    assert (findings["extra tensorboard"].state, findings["extra tensorboard"].detail) == ("note", line)
    findings = {finding.what: finding for finding in installed.check_extras({"tensorboard"})}
    assert findings["extra tensorboard"].state == "broken"
    # An extra may ask for an extra of another package.
    monkeypatch.setattr(installed, "_version", lambda name: None if "cuda12" in name else real(name))
    findings = {finding.what: finding for finding in installed.check_extras(set())}
    assert "jax-cuda12-plugin not installed" in findings["extra cuda"].detail


def test_too_little_space(settings, tmp_path, monkeypatch):
    assert places.check_space(settings, tmp_path).state == "ok"
    usage = dataclasses.make_dataclass("Usage", ["free"])(1000)
    monkeypatch.setattr(places.shutil, "disk_usage", lambda path: usage)
    finding = places.check_space(settings, tmp_path)
    assert finding.state == "broken"
    assert "0.0 GiB free, 3 checkpoints of" in finding.detail


def test_own_images_with_a_list_without_one_and_with_a_broken_one(config, tmp_path):
    config.data.dataset, config.data.train_splits, config.data.synthetic = "manifest", ("train",), None
    config.data.data_dir, config.data.prepared_dir = str(tmp_path / "own"), str(tmp_path / "prepared")
    config.evaluation.exclude_same_camera = True
    settings = resolve_paths(parse(config))
    assert places.check_space(settings, tmp_path).state == "ok"
    assert "No own images at" in places.check_data(settings).detail
    make_folders(tmp_path / "own")
    write_manifest(tmp_path / "own")
    assert places.check_space(settings, tmp_path).state == "ok"
    assert (places.check_data(settings).state, places.check_data(settings).detail[:9]) == ("ok", "32 images")
    (tmp_path / "own" / "manifest.csv").write_text("file,pid\n")
    # One thing is wrong, and one finding says so.
    assert places.check_space(settings, tmp_path).state == "ok"
    finding = places.check_data(settings)
    assert finding.state == "broken"
    assert "manifest.csv cannot be used" in finding.detail


def test_the_trial_step_is_that_of_the_config(config, monkeypatch):
    """Micro-batches, running averages and the way to run a step as well."""
    config.model.mpfr.enabled = config.model.sdce.enabled = False  # compiled sooner
    config.optimizer.accumulate_steps, config.optimizer.ema_decay, config.parallel = 2, 0.9, "pmap"
    real, after = trial_step.make_train_step, []

    def make_train_step(mesh, program, *, parallel):
        assert (program.accumulate_steps, program.ema_decay, parallel) == (2, 0.9, "pmap")
        step = real(mesh, program, parallel=parallel)

        def stepped(state, batch):
            state, metrics = step(state, batch)
            after.append(state)
            return state, metrics

        return stepped

    monkeypatch.setattr(trial_step, "make_train_step", make_train_step)
    finding = trial_step.check_step(parse(config))
    assert finding.state == "ok"
    assert " of 16 random images" in finding.detail  # 8 for each micro-batch
    kernel, average = (tree["head"]["classifier"]["kernel"] for tree in (after[0].params, after[0].ema["params"]))
    assert kernel.shape == average.shape
    assert (kernel != average).any()


def test_data_that_changed_under_the_records(settings, prepared: PreparedDataset, tree, tmp_path):
    assert f"images of SYSU-MM01, prepared in {prepared.folder}" in places.check_data(settings).detail
    data = settings.data.model_copy(update={"data_dir": str(tmp_path)})
    assert places.check_data(settings.model_copy(update={"data": data})).state == "broken"
    unprepared = settings.data.model_copy(update={"prepared_dir": str(tmp_path / "none"), "synthetic": None})
    finding = places.check_data(settings.model_copy(update={"data": unprepared}))
    num_images = sum(len(index) for index in prepared.index.values())
    assert (finding.state, finding.detail.split()[0]) == ("ok", str(num_images))


def test_a_device_that_computes_wrong_and_a_step_that_fails(settings, monkeypatch):
    def wrong(*args, **kwargs):
        return lambda state, batch: (state, {"loss": jax.numpy.float32("nan")})

    monkeypatch.setattr(trial_step, "make_train_step", wrong)
    monkeypatch.setattr(trial_step, "make_any_state", lambda *args, **kwargs: None)
    assert trial_step.check_step(settings).state == "broken"

    def fails(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(trial_step, "make_train_step", fails)
    monkeypatch.setattr(doctor, "check_step", trial_step.check_step)
    last = list(doctor.examine(settings, Path("/proc/x")))[-1]
    assert (last.what, last.state, last.detail) == ("one step", "broken", "RuntimeError: out of memory")


@pytest.mark.long
def test_the_weights_to_start_from(settings, tmp_path):
    """A missing file is found before a training is started for it, and one of another network too."""
    found = places.check_weights(settings.model_copy(update={"pretrained": str(tmp_path / "absent.safetensors")}))
    assert found.state == "broken"
    assert str(tmp_path / "absent.safetensors") in found.detail
    program = build_program(settings, num_classes=3, steps_per_epoch=1)
    state = jax.jit(program.create_state)(0)
    file = tmp_path / "own.safetensors"
    backbone = {"params": state.params["backbone"], "batch_stats": state.batch_stats["backbone"]}
    write_backbone(file, backbone, stem="visible")
    named = settings.model_copy(update={"pretrained": str(file)})
    assert places.check_weights(named) == Finding("weights", "ok", f"{file} fits the backbone")
    assert "weights" in {finding.what for finding in doctor.examine(named, tmp_path / "run")}
    wider = named.model_copy(update={"model": named.model.model_copy(update={"width": 2 * named.model.width})})
    assert "shape" in places.check_weights(wider).detail
