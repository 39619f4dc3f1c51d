"""A tiny network trained with each recipe: its enhancement does not shrink, its gate opens, its parts do something."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, synthetic
from icre_jax.engine.program import build_program
from icre_jax.engine.steps import train_step
from icre_jax.models import removal
from icre_jax.settings import parse

NUM_STEPS = 60


def recipe(name):
    """The demo's network at a fraction of its width, with the update rule of a config that ships."""
    config = synthetic.get_config()
    config.model.width = 8
    config.model.mpfr.channels = config.model.sdce.width = 16
    config.data.image_size = (32, 16)
    if name == "sgd":
        config.optimizer = base.get_config().optimizer
    config.schedule.boundaries, config.schedule.factors = (), ()
    return parse(config)


@functools.cache
def trained(name):
    """Program, the first state and the last, and what was learned by heart."""
    program = build_program(recipe(name), num_classes=4, steps_per_epoch=NUM_STEPS)
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (4, 32, 16, 3))
    labels = np.repeat(np.arange(4), 4)
    noise = rng.integers(-40, 40, (16, 32, 16, 3))
    images = np.clip(people[labels] + noise, 0, 255).astype(np.uint8)
    images[1::2] = images[1::2].mean(axis=-1, keepdims=True)
    batch = {
        "image": jnp.asarray(images),
        "label": jnp.asarray(labels, jnp.int32),
        "modality": jnp.asarray(np.tile([0, 1], 8), jnp.int32),
    }
    first = jax.jit(program.create_state)(jnp.int32(0))
    step = jax.jit(functools.partial(train_step, program=program))
    state = first
    for _ in range(NUM_STEPS):
        state, metrics = step(state, batch)
    return program, first, state, batch, metrics


def kernels(params, part):
    leaves = jax.tree_util.tree_leaves_with_path(params[part])
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves if path[-1].key == "kernel"}


@pytest.mark.parametrize("name", [pytest.param("sgd", marks=pytest.mark.long), "adam"])
def test_no_weight_of_the_enhancement_shrinks(name):
    """Behind a gate that opens slowly, L2 within Adam took the median weight to a fiftieth; see docs/method.md."""
    _, first, last, _, _ = trained(name)
    for part in ("mpfr", "sdce"):
        before = kernels(first.params, part)
        for path, after in kernels(last.params, part).items():
            ratio = np.median(np.abs(after)) / np.median(np.abs(before[path]))
            assert ratio > 0.7, f"{part}{path} shrank to {ratio:.2f} of its start"


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_gate_is_open_at_the_end(name):
    _, _, last, _, metrics = trained(name)
    assert float(metrics["accuracy"]) > 0.9
    assert np.abs(last.params["sdce"]["gate"]["bn"]["scale"]).mean() > 0.05


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize("part", removal.PARTS)
def test_a_trained_network_changes_when_a_part_is_taken_out(name, part):
    program, _, last, batch, _ = trained(name)
    images = (batch["image"].astype(jnp.float32) - 128) / 64

    @jax.jit
    def embed(variables):
        outputs, _ = program.network.apply(variables, images, modality="paired", train=False)
        vectors = outputs["embeddings"]
        return vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)

    full, reduced = embed(last.variables), embed(removal.without(last.variables, part))
    angle = np.degrees(np.arccos(np.clip(np.sum(np.asarray(full * reduced), axis=1), -1, 1))).mean()
    assert angle > 0.1, f"without {part} the embeddings turn by {angle:.3f} degrees"
