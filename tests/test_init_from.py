"""Training that starts from another run's network: what is taken over, what is said of it, what is refused.

And a run again from the config.json that it left.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import icre_jax
from icre_jax.data.prepared import open_or_prepare
from icre_jax.engine import card
from icre_jax.engine.export import export
from icre_jax.engine.inherit import _differences
from icre_jax.engine.stored import flatten, read_stored
from icre_jax.errors import InputError
from icre_jax.evals.results import read_results
from icre_jax.health.places import check_start
from icre_jax.machine.command import read_config
from icre_jax.machine.screen import Screen, open_console
from icre_jax.models.network import build_network
from icre_jax.settings import flatten as fields_of
from icre_jax.settings import parse, resolve_paths
from icre_jax.training.loop import train_and_evaluate
from icre_jax.training.run import _start, assemble, trace_start
from tests.conftest import flags_of, refused, run_command
from tests.small_runs import assert_same_run, run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("init_from")


@pytest.fixture
def source(small, made):
    """A finished run of one epoch; made once for this file."""
    if not (made / "source").exists():
        small.schedule.num_epochs = 1
        run(small, made / "source")
        small.schedule.num_epochs = 3
    return made / "source"


def evaluations(workdir: Path):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] != "train"]


def traced(config, tmp_path):
    """A run before its first step, which knows what it starts from."""
    settings = resolve_paths(parse(config))
    prepared = open_or_prepare(
        settings.data.dataset, Path(settings.data.data_dir), Path(settings.data.prepared_dir), trial=settings.data.trial
    )
    return trace_start(assemble(settings, tmp_path, prepared), None, None, Screen(open_console()))


def test_a_run_on_the_same_data_begins_where_the_other_ended(small, source, tmp_path):
    small.schedule.num_epochs = 1
    small.init_from = str(source)
    small.seed = 5
    _, screen = run(small, tmp_path / "next")
    steps = max(line["step"] for line in evaluations(source))
    words = " ".join(screen.split())
    assert f"starts from step {steps} of {source} (sha256" in words
    assert "BN neck, and classifier, as the identities are the same" in words
    first, last = evaluations(tmp_path / "next")[0], evaluations(source)[-1]
    assert (first["step"], last["step"]) == (0, steps)
    assert first["results"] == last["results"]
    origin = read_results(tmp_path / "next")[1]["init_from"]
    assert origin["path"] == str(source)
    assert origin["network_sha256"] == icre_jax.load(source).model_hash
    assert (origin["classifier"], origin["data"]) == (True, "synthetic people (seed 3)")

    # What is known of the start is kept with the run: the other one may be gone, and the next heir knows both.
    hidden = source.rename(source.with_name("hidden"))
    try:
        (tmp_path / "next" / "results.json").unlink()
        run(small, tmp_path / "next")
    finally:
        hidden.rename(source)
    assert read_results(tmp_path / "next")[1]["init_from"] == origin
    about = read_stored(tmp_path / "next").about
    assert about["init_from"] == origin | {"path": "source"}
    assert card.is_free(about)
    real = origin | {"sources": [*origin["sources"], origin["sources"][0] | {"data": "LLCM"}]}
    assert not card.is_free(about | {"init_from": real})
    assert not card.is_free(about | {"init_from": origin | {"pretrained": "resnet.safetensors"}})


def test_on_other_people_all_but_the_classifier_is_taken(config, source, strangers, tmp_path):
    export(source, tmp_path / "exported", step=None, listener=Screen(open_console()), formats=("safetensors",))
    config.data.dataset, config.data.data_dir, config.data.prepared_dir = "llcm", str(strangers), str(tmp_path)
    config.data.synthetic = None
    config.data.train_splits = ("train",)
    config.checkpoint.best_metric = "infrared_to_visible/mAP"
    config.optimizer.ema_decay = 0.9
    config.init_from = str(tmp_path / "exported")
    heir = traced(config, tmp_path)
    state, fresh = _start(heir), heir.create_state()
    theirs = {name: np.asarray(leaf) for name, leaf in flatten(dict(icre_jax.load(source).variables)).items()}
    for variables in ({"params": state.params, "batch_stats": state.batch_stats}, state.ema):
        ours, new = flatten(jax.device_get(variables)), flatten(jax.device_get(fresh.variables))
        assert ours.keys() == theirs.keys()
        for name, leaf in ours.items():
            expected = new[name] if name == "params.head.classifier.kernel" else theirs[name]
            assert leaf.tobytes() == np.asarray(expected).tobytes(), name
    assert int(state.step) == 0
    assert heir.facts["init_from"]["classifier"] is False


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("width", 6, ["model.width: 4 -> 6"]),
        ("depth", 34, ["model.depth: 18 -> 34"]),
        ("gem_p", 2.0, ["model.gem_p: 3.0 -> 2.0"]),
        ("mpfr.mask", "softmax", ["model.mpfr.mask: sigmoid -> softmax"]),
        ("sdce.num_heads", 4, ["model.sdce.num_heads: 2 -> 4"]),  # the same arrays, and another network
        ("sdce.enabled", False, ["model.sdce.enabled: True -> False"]),
    ],
)
def test_another_network_is_refused_and_what_differs_is_named(config, source, tmp_path, field, value, words):
    *groups, name = field.split(".")
    group = config.model
    for key in groups:
        group = group[key]
    group[name] = value
    config.init_from = str(source)
    with pytest.raises(InputError) as refusal:
        traced(config, tmp_path)
    for word in (*words, str(source), "another one than this config's"):
        assert word in str(refusal.value)
    assert str(refusal.value).count("model.") == len(words)


def with_model(config, changes):
    """Settings with other fields of the model."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.update_from_flattened_dict({f"model.{name}": value for name, value in changes.items()})
    return parse(config)


def program_of(settings):
    """Names and shapes of the arrays, and what is computed of them in training: the same text gives the same bits."""
    network = build_network(settings, num_classes=3)
    images = jax.ShapeDtypeStruct((2, 32, 16, 3), "float32")
    how = {"modality": "paired", "train": True}
    arrays = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, **how), images)

    @jax.jit
    def compute(variables, x):
        (outputs, _), statistics = network.apply(variables, x, mutable=["batch_stats"], **how)
        return outputs, statistics

    return jax.tree_util.tree_flatten_with_path(arrays), compute.lower(arrays, images).as_text()


MPFR = {"mpfr.channels": 4, "mpfr.taps": (2, 3, 4), "mpfr.mask": "softmax", "mpfr.fusion": "sum"}
SDCE_STEPS = {"sdce.cross_attention": False, "sdce.self_attention": False, "sdce.refinement": False}
INSIDE = {"sdce.num_heads": 4, "sdce.mlp_ratio": 2, "sdce.roles": "guide_deep_deep", "sdce.residual": False}
SDCE = SDCE_STEPS | INSIDE | {"sdce.positions": "tokens"}
NEITHER = {"mpfr.enabled": False, "sdce.enabled": False}
LOCAL, OFFSET = ({**NEITHER, "enhancement.control": control} for control in ("local", "offset"))
WIDTH, CHANNELS = {"sdce.width": 16}, {"non_local_channels": 2}
JOINED, BEFORE = {"enhancement.join": "concat"}, {"enhancement.placement": "before_layer4"}


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        (NEITHER, MPFR | SDCE | WIDTH | JOINED | CHANNELS),
        (NEITHER, BEFORE),
        (LOCAL, MPFR | SDCE),
        (OFFSET, MPFR | SDCE | WIDTH),
        ({"sdce.enabled": False}, SDCE | WIDTH),
        ({"mpfr.enabled": False}, MPFR | CHANNELS),
        ({"mpfr.enabled": False} | SDCE_STEPS, INSIDE),
    ],
)
def test_a_field_that_the_network_does_not_read_may_differ(config, network, changes):
    theirs, ours = with_model(config, network), with_model(config, network | changes)
    for one, other in ((theirs, ours), (ours, theirs)):
        assert _differences(fields_of(one.model), fields_of(other.model)) == []
    assert program_of(theirs) == program_of(ours)


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        (LOCAL, WIDTH),
        (LOCAL, JOINED),
        (LOCAL, BEFORE),
        ({"sdce.enabled": False}, BEFORE),
        ({"sdce.enabled": False}, {"mpfr.channels": 4}),
        ({"mpfr.enabled": False}, JOINED),
        ({"mpfr.enabled": False}, WIDTH),
        ({"mpfr.enabled": False, "sdce.cross_attention": False}, {"sdce.num_heads": 4}),
        ({"non_local_blocks": (0, 1, 0, 0)}, CHANNELS),
        (NEITHER, {"enhancement.control": "local"}),
    ],
)
def test_a_field_that_the_network_reads_may_not_differ(config, network, changes):
    theirs, ours = with_model(config, network), with_model(config, network | changes)
    found = _differences(fields_of(theirs.model), fields_of(ours.model))
    assert [finding.partition(":")[0] for finding in found] == [f"model.{name}" for name in changes]
    assert program_of(theirs) != program_of(ours)


def test_what_only_says_how_it_is_computed_may_differ(config, source, tmp_path):
    config.init_from = str(source)
    config.model.remat = True
    config.model.enhancement.gate_init = 0.5
    config.model.neck_init_std = 0.01
    config.loss.guide_weight = 0.1  # brings a part that the other network has not
    heir = traced(config, tmp_path)
    assert heir.facts["init_from"]["classifier"] is True
    assert heir.inherited["params"].keys() == heir.program.abstract_state.params.keys() - {"guide_head"}


def test_a_network_that_knows_the_people_of_the_choice_is_refused(config, source, tmp_path):
    """It was trained on train and val; this run would choose its best step by val."""
    config.init_from = str(source)
    config.data.train_splits = ("train",)
    config.checkpoint.best_metric = "val/all/single/mAP"
    with pytest.raises(InputError, match=r"best_metric is 'val/all/single/mAP'.*was trained on them"):
        traced(config, tmp_path)


def test_a_network_that_knows_the_test_people_is_refused(config, source, llcm_tree, tmp_path):
    config.data.dataset, config.data.data_dir, config.data.prepared_dir = "llcm", str(llcm_tree), str(tmp_path)
    config.data.synthetic = None
    config.data.train_splits = ("train",)
    config.checkpoint.best_metric = "infrared_to_visible/mAP"
    config.init_from = str(source)
    with pytest.raises(InputError, match="seed 3 are the same in every data set"):
        traced(config, tmp_path)


def test_a_run_is_repeated_to_the_last_bit(source, tmp_path):
    settings = read_config([f"--config={source / 'config.json'}"])
    assert train_and_evaluate(settings, tmp_path / "again", console=Console(quiet=True))
    assert_same_run(source, tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == (source / "config.json").read_bytes()
    flags = ("--config", str(source / "config.json"), "--workdir", str(source), "--config.seed=5")
    refused(run_command("icre_jax.train", *flags), "holds a run of another config", "seed: 0 -> 5")


def test_the_doctor_looks_at_it(config, source):
    config.init_from = str(source)
    assert check_start(parse(config)).state == "ok"
    config.model.width = 6
    finding = check_start(parse(config))
    assert (finding.state, "model.width: 4 -> 6" in finding.detail) == ("broken", True)


def test_bad_input(config, source, tmp_path):
    workdir = tmp_path / "w"
    flags = (*flags_of(config), "--workdir", str(workdir), f"--config.init_from={tmp_path / 'no'}")
    refused(run_command("icre_jax.train", *flags), f"{tmp_path / 'no'} holds no trained network", "Give the workdir")
    assert not list(workdir.glob("checkpoints/*"))


@pytest.mark.parametrize("field", ["init_from", "pretrained"])
def test_a_run_that_could_not_begin_leaves_its_folder_to_the_corrected_config(small, tmp_path, field):
    small.schedule.num_epochs = 1
    small[field] = str(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match=r"absent\.safetensors"):
        run(small, tmp_path / "w")
    assert not (tmp_path / "w" / "config.json").exists()
    small[field] = None
    outcome, _ = run(small, tmp_path / "w")
    assert outcome is not None
    assert json.loads((tmp_path / "w" / "config.json").read_text())[field] is None


def test_a_damaged_export_is_refused(config, source, tmp_path):
    export(source, tmp_path / "exported", step=None, listener=Screen(open_console()), formats=("safetensors",))
    file = tmp_path / "exported" / "network.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    config.init_from = str(tmp_path / "exported")
    with pytest.raises(InputError, match=r"was changed or damaged since it was written: network\.safetensors has"):
        traced(config, tmp_path)
    shutil.rmtree(tmp_path / "exported")
    with pytest.raises(InputError, match="holds no trained network"):
        traced(config, tmp_path)
