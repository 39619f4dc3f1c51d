"""A step that is not finite: what is said, what is kept, and running it again."""

import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from icre_jax.data.pipeline import RecordSource, training_batches
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.numerics import DETERMINISTIC, from_plain, numerics_here
from icre_jax.engine.state import find_not_finite
from icre_jax.errors import DivergenceError, InputError
from icre_jax.machine.screen import Screen
from icre_jax.machine.stop import StopRequest
from icre_jax.settings import parse, resolve_paths, to_json
from icre_jax.training import replay as replay_module
from icre_jax.training.divergence import FiniteWatch
from icre_jax.training.failure import Failure, read_failure
from icre_jax.training.replay import replay
from tests.small_runs import arrays_of, run


@pytest.fixture
def small(small, compiled, monkeypatch):
    """For replays as well."""
    monkeypatch.setattr(replay_module, "assemble", compiled)
    return small


def run_again(workdir, file) -> tuple[bool, str]:
    text = io.StringIO()
    with contextlib.closing(Screen(Console(file=text, width=160))) as screen:
        return replay(workdir, file, screen), text.getvalue()


def batch_of(compiled, prepared, settings, step):
    """The batch of a step (the first is 1), and the files of its images, asked of the data alone."""
    source = RecordSource(prepared, settings.data.train_splits)
    plan = compiled(settings, None, prepared).plan
    batches = training_batches(
        source, plan, data=settings.data, settings=settings.augment, seed=settings.seed, start=step - 1
    )
    with contextlib.closing(batches):
        batch = next(batches)
    return batch, [source.index.path[slot.record] for slot in plan.batch(step - 1)]


def test_the_step_the_part_and_the_images_are_named_and_the_step_runs_again(small, compiled, prepared, tmp_path):
    small.optimizer.name = "sgd"
    small.optimizer.backbone_learning_rate = small.optimizer.head_learning_rate = 1e30
    with pytest.raises(DivergenceError, match=r"(loss/\w+|gradient_norm) is (nan|inf) at step \d+") as caught:
        run(small, tmp_path)
    message = str(caught.value)
    step = int(re.search(r"step (\d+)", message).group(1))
    assert 2 <= step <= 3
    # Kept: the last good checkpoint, and a log without a number that is none.
    with contextlib.closing(Checkpoints(tmp_path, read_only=True)) as checkpoints:
        latest = checkpoints.latest_step
    assert latest < step
    assert all(np.isfinite(value).all() for value in arrays_of(tmp_path, latest).values())
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()

    file = tmp_path / f"replay_step_{step}.npz"
    assert f"--workdir {tmp_path} --replay {file}" in message
    settings = resolve_paths(parse(small))
    batch, paths = batch_of(compiled, prepared, settings, step)
    for path in paths[:20]:
        assert path in message
    with np.load(file, allow_pickle=False) as saved:  # nothing of ours is needed to read it
        assert saved["image"].dtype == np.uint8
        for name in ("image", "label", "modality"):
            np.testing.assert_array_equal(saved[name], batch[name])
        assert saved["path"].tolist() == paths
        assert (saved["step"], saved["checkpoint_step"]) == (step, latest)

    finite, text = run_again(tmp_path, file)
    assert not finite
    assert f"from the checkpoint of step {latest}" in text
    part = message.split()[0]
    assert re.search(rf"{part} .*│ +NO │ +yes │", text), text
    assert "not finite after the step" in text
    for path in paths:
        assert path in text
    # Starting it again ends in the same place.
    with pytest.raises(DivergenceError, match=f"at step {step}"):
        run(small, tmp_path)


@pytest.fixture
def stopped(small, compiled, tmp_path, prepared):
    """A workdir stopped after step 1, and a replay file of its step 3 with the numbers of a run that went on."""
    whole = tmp_path / "whole"
    run(small, whole)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    line = next(line for line in lines if line["kind"] == "train" and line["step"] == 3)
    asked = iter([False, True])
    workdir = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        stop = property(lambda self: next(asked), lambda *_: None)
        patch.setattr(StopRequest, "requested", stop, raising=False)
        assert run(small, workdir)[0] is None
    settings = resolve_paths(parse(small))
    batch, paths = batch_of(compiled, prepared, settings, 3)
    names = ("loss", "loss/identity", "loss/icg", "accuracy", "gradient_norm")
    failure = Failure(
        step=3,
        checkpoint_step=1,
        finding="loss is nan",
        path=np.array(paths),
        metrics={name: line[name] for name in names},
        settings=to_json(settings),
        data_fingerprint=prepared.fingerprint,
        **batch,
    )
    return workdir, failure


def test_a_replay_repeats_the_numbers_of_the_run_to_the_last_bit(stopped, tmp_path):
    workdir, failure = stopped
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    failure.write(tmp_path / "r.npz")
    finite, text = run_again(workdir, tmp_path / "r.npz")
    assert finite
    for name in failure.metrics:
        assert re.search(rf"{name} .*│ +yes │ +yes │", text), text
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before
    # Other numbers, another batch: said.
    other = dataclasses.replace(failure, metrics=failure.metrics | {"loss": 1.0}, image=failure.image[::-1])
    other.write(tmp_path / "other.npz")
    _, text = run_again(workdir, tmp_path / "other.npz")
    assert re.search(r"loss .*│ +yes │ +no │", text)
    assert "another batch" in text


def test_a_replay_file_that_does_not_fit_is_refused(stopped, tmp_path):
    workdir, failure = stopped
    file = tmp_path / "r.npz"
    with pytest.raises(InputError, match=r"r\.npz is not a replay file"):
        run_again(workdir, file)
    np.savez(file, image=np.zeros(3))
    with pytest.raises(InputError, match="is not a replay file"):
        run_again(workdir, file)
    file.write_bytes(b"PK\x03\x04 and nothing after it")
    with pytest.raises(InputError, match="is not a replay file"):
        run_again(workdir, file)
    failure.write(file)
    with pytest.raises(InputError, match=r"absent is not the workdir of a run"):
        run_again(tmp_path / "absent", file)
    dataclasses.replace(failure, data_fingerprint="0" * 64).write(file)
    with pytest.raises(InputError, match="fingerprint 000000000000"):
        run_again(workdir, file)
    dataclasses.replace(failure, settings=failure.settings.replace('"seed": 0', '"seed": 5')).write(file)
    with pytest.raises(InputError, match=r"of another run.*(?s:.*)seed: 5 -> 0"):
        run_again(workdir, file)
    size = list(failure.image.shape)
    for changes, words in (
        ({"settings": "[]"}, r"r\.npz is not a replay file \(settings: "),
        ({"settings": "{"}, r"r\.npz is not a replay file \(settings: "),
        ({"settings": '{"seed": 0}'}, r"r\.npz is not a replay file \(settings: .*cannot be used"),
        ({"step": 10**6}, r"of another run.*(?s:.*)step is 1000000; the run has \d+"),
        ({"image": failure.image[:, 1:]}, rf"of another run.*(?s:.*)a batch of the run is {re.escape(str(size))}"),
        ({"label": failure.label + 10**6}, r"of another run.*(?s:.*)label holds \d+; the run has the classes 0 to \d+"),
    ):
        dataclasses.replace(failure, **changes).write(file)
        with pytest.raises(InputError, match=words):
            run_again(workdir, file)
    half = {name: getattr(failure, name)[1:] for name in ("image", "label", "modality", "path")}
    dataclasses.replace(failure, **half).write(file)
    with pytest.raises(InputError, match=rf"image is of shape \[{size[0] - 1}, "):
        run_again(workdir, file)
    dataclasses.replace(failure, checkpoint_step=2).write(file)
    with pytest.raises(InputError, match="no checkpoint of step 2"):
        run_again(workdir, file)


def test_nothing_in_a_replay_file_is_unpickled(stopped, tmp_path):
    workdir, failure = stopped
    bad = {name: getattr(failure, name) for name in ("image", "label", "modality", "step", "checkpoint_step")}
    np.savez(tmp_path / "r.npz", path=np.array([{"an": "object"}], dtype=object), **bad)
    with pytest.raises(InputError, match="is not a replay file"):
        run_again(workdir, tmp_path / "r.npz")


def test_an_update_out_of_the_finite_numbers_is_found_before_it_is_saved(small, compiled, prepared, tmp_path):
    settings = resolve_paths(parse(small))
    made = compiled(settings, tmp_path, prepared)
    state = made.create_state()
    assert find_not_finite(state) == []
    leaves, tree = jax.tree.flatten(state.params)
    leaves[3] = leaves[3].at[..., 0].set(jnp.inf)
    broken = state.replace(params=jax.tree.unflatten(tree, leaves))
    names = find_not_finite(broken)
    assert len(names) == 1
    assert names[0].startswith("params[")
    batch, _ = batch_of(compiled, prepared, settings, 1)
    with contextlib.closing(Checkpoints(tmp_path, best_metric="all/single/mAP")) as checkpoints:
        checkpoints.save(state, made.facts)
        watch = FiniteWatch(made, checkpoints)
        watch.follow(1, batch, {"loss": jnp.float32(1.0)})
        watch.check_state(state)
        with pytest.raises(DivergenceError, match=re.escape(f"{names[0]} is not finite at step 1")):
            watch.check_state(broken)
    assert read_failure(tmp_path / "replay_step_1.npz").metrics == {"loss": 1.0}


def test_a_replay_file_that_cannot_be_written_does_not_hide_the_reason(
    small, compiled, prepared, tmp_path, monkeypatch
):
    made = compiled(resolve_paths(parse(small)), tmp_path, prepared)
    batch, _ = batch_of(compiled, prepared, made.settings, 1)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with contextlib.closing(Checkpoints(tmp_path, best_metric="all/single/mAP")) as checkpoints:
        checkpoints.save(made.create_state(), made.facts)
        watch = FiniteWatch(made, checkpoints)
        watch.follow(1, batch, {"loss/icg": jnp.float32("nan")})
        monkeypatch.setattr(np, "savez", full)
        with pytest.raises(DivergenceError, match=r"loss/icg is nan at step 1(?s:.*)could not be written.*No space"):
            watch.check()
    assert not list(tmp_path.glob("*.npz*"))
    assert not list(tmp_path.glob(".replay*"))


def elsewhere(**changes) -> str:
    """Where a run was, as its replay file says it."""
    return json.dumps(dataclasses.replace(numerics_here(), **changes).plain())


@pytest.mark.long
def test_a_replay_says_what_to_expect_of_the_bits_and_refuses_another_platform(stopped, tmp_path):
    workdir, failure = stopped
    file = tmp_path / "r.npz"
    dataclasses.replace(failure, numerics=elsewhere(platform="gpu", device_kind="NVIDIA H100")).write(file)
    words = r"r\.npz is of a run on 1 x NVIDIA H100 \(gpu\), and this is 1 x cpu \(cpu\).*JAX_PLATFORMS=cuda chooses"
    with pytest.raises(InputError, match=words):
        run_again(workdir, file)
    for numerics in ("{}", "[1]", "{", elsewhere(platform=3), elsewhere(flags=(None,))):
        dataclasses.replace(failure, numerics=numerics).write(file)
        with pytest.raises(InputError, match=r"is not a replay file \(numerics: "):
            run_again(workdir, file)
    for numerics, words in (
        ("", "does not say on which device"),
        (elsewhere(), "the same bits are expected"),
        (elsewhere(jax="0.7.2", flags=("--xla_cpu_enable_fast_math=true",)), "jax: 0.7.2 -> "),
    ):
        dataclasses.replace(failure, numerics=numerics).write(file)
        assert words in " ".join(run_again(workdir, file)[1].split())


def test_flags_that_change_numbers_are_kept_without_paths(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true --xla_dump_to=/x --xla_gpu_load_a=/home/me/a.txt")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    here = numerics_here()
    assert here.flags == ("--xla_gpu_deterministic_ops=true", "--xla_gpu_load_a=(a file)", "NVIDIA_TF32_OVERRIDE=0")
    gpu = dataclasses.replace(here, platform="gpu")
    assert gpu.deterministic
    assert not dataclasses.replace(gpu, flags=()).deterministic
    assert dataclasses.replace(gpu, platform="tpu", flags=()).deterministic
    assert from_plain(json.loads(json.dumps(gpu.plain()))) == gpu


def test_the_flag_that_the_docs_name_is_known_to_this_xla():
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"XLA_FLAGS": DETERMINISTIC},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
