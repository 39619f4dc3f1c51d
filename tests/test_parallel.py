"""Spreading a batch over devices does not change a step. Simulated devices need a process of their own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from icre_jax.engine.parallel import make_mesh
from icre_jax.errors import InputError
from tests.conftest import ROOT, flags_of, free_port, run_command

SCRIPT = """
import functools, json, sys
import jax
num_devices, num_hosts, host, port = map(int, sys.argv[1:5])
out, changes, draw = sys.argv[5], json.loads(sys.argv[6]), int(sys.argv[7])
jax.config.update("jax_num_cpu_devices", num_devices)
jax.config.update("jax_default_matmul_precision", "highest")
if num_hosts > 1:
    jax.distributed.initialize(f"localhost:{port}", num_hosts, host)
import numpy as np
import optax
from configs import synthetic
from icre_jax.losses.objective import objective
from icre_jax.models.network import build_network
from icre_jax.engine.parallel import local_rows, make_mesh, make_state, make_train_step
from icre_jax.engine.program import Program
from icre_jax.settings import parse

config = synthetic.get_config()
config.update(changes)
settings = parse(config)
accumulate_steps = settings.optimizer.accumulate_steps
mesh = make_mesh(16, accumulate_steps)
loss = functools.partial(objective, **settings.loss.model_dump())
network = build_network(settings, num_classes=4)
program = Program(network, optax.sgd(0.001), loss, (64, 32), accumulate_steps=accumulate_steps)
state = make_state(mesh, 0, program)
named = lambda state: {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path({"params": state.params, "batch_stats": state.batch_stats})
}
from_zero = [name for name, value in named(state).items() if not value.any()]
step = make_train_step(mesh, program, parallel=settings.parallel)
rng = np.random.default_rng(draw)
rows = local_rows(mesh, 16) or list(range(16))
for _ in range(2):
    images = rng.integers(0, 256, (16, 64, 32, 3), dtype=np.uint8)
    # Identities of 2, 4 and 10 rows: no device holds whole ones only.
    labels = np.repeat(np.arange(3, dtype=np.int32), (2, 4, 10))
    batch = {"image": images, "label": labels, "modality": np.arange(16, dtype=np.int32) % 2}
    before = state
    state, metrics = step(state, {name: values[rows] for name, values in batch.items()})
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before)), "the state given in keeps its memory"
if host == 0:
    np.savez(out, from_zero=from_zero, **named(state))
"""

SMALL = {"width": 4, "mpfr": {"channels": 8}, "sdce": {"width": 8, "num_heads": 2}}
LOSSES = {
    "relative": {"label_smoothing": 0.1},
    "absolute and batch-hard triplet": {"icg_form": "absolute", "icg_rho1": 0.7, "triplet_weight": 1.0},
    "guided and weighted triplet": {
        "icg_form": "guided",
        "icg_space": "features",
        "triplet_weight": 1.0,
        "triplet_form": "weighted",
    },
    "identity alone": {"icg_weight": 0.0},
}
# (processes, devices of each, door)
LAYOUTS = [(1, 8, "jit"), (1, 8, "pmap"), (2, 4, "jit"), (2, 4, "pmap")]


def run_on(
    layout: tuple[int, int, str], changes: dict, folder: Path, *, draw: int = 0, script: str = SCRIPT
) -> dict[str, np.ndarray]:
    """Two steps of full ICRE on small images of one draw; every parameter and running statistic after them."""
    num_hosts, num_devices, door = layout
    out, port = folder / f"{num_hosts}_{num_devices}_{door}.npz", free_port()
    changes = {"model": SMALL, "parallel": door} | changes
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", script, *map(str, (num_devices, num_hosts, host, port, out))),
                *(json.dumps(changes), str(draw)),
            ],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for host in range(num_hosts)
    ]
    for process in started:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    with np.load(out) as arrays:
        return dict(arrays)


def differences(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """For every array the largest difference over its largest value.

    A parameter that begins at zero (a bias, a scale of zero) is nothing but the sum of two updates, so there it is the
    relative error of the gradient itself, with all that BatchNorm's divisions do to its rounding; it is given over 5.
    Left out is what two steps have not moved from zero (below 1e-6): biases in front of a BatchNorm or of attention
    keys, whose gradient is zero but for rounding.
    """
    assert actual.keys() == expected.keys()
    from_zero = set(expected.pop("from_zero").tolist())
    actual = {name: value for name, value in actual.items() if name != "from_zero"}
    largest = {name: float(np.abs(value).max()) for name, value in expected.items()}
    moved = {name: size for name, size in largest.items() if size > 1e-6}
    assert all(np.abs(actual[name]).max() < 2e-6 for name in largest.keys() - moved.keys())
    return {
        name: float(np.abs(actual[name] - expected[name]).max()) / size / (5 if name in from_zero else 1)
        for name, size in moved.items()
    }


def assert_as_on_one(layout: tuple[int, int, str], changes: dict, of_one: dict, folder: Path) -> None:
    """Every array agrees with that of one device to 2e-5 of its largest value, in one of three draws of images.

    ReLU, max-pool and the losses' hinges have kinks: now and then rounding puts a value on the other side of one, and a
    gradient jumps. A fault shows in every draw.
    """
    worst = []
    for draw in range(3):
        one = run_on((1, 1, "jit"), of_one, folder, draw=draw)
        assert len(one) > 150
        found = differences(run_on(layout, changes, folder, draw=draw), one)
        worst.append(max((size, name) for name, size in found.items()))
        if worst[-1][0] < 2e-5:
            return
    pytest.fail(f"The largest difference of each draw: {worst}")


@pytest.mark.parametrize(
    ("loss", "layout"),
    [
        pytest.param("relative", LAYOUTS[0], marks=pytest.mark.long),
        pytest.param("absolute and batch-hard triplet", LAYOUTS[1], marks=pytest.mark.long),
        *(
            pytest.param(loss, layout, marks=pytest.mark.slow)
            for number, loss in enumerate(LOSSES)
            for place, layout in enumerate(LAYOUTS)
            # Two processes are slow: both compile, on the same cores.
            if number != place or number > 1
        ),
    ],
    ids=str,
)
def test_several_devices_do_what_one_does(loss, layout, tmp_path):
    assert_as_on_one(layout, {"loss": LOSSES[loss]}, {"loss": LOSSES[loss]}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("door", ["jit", "pmap"])
def test_several_devices_do_what_one_does_with_blocks_computed_again(door, tmp_path):
    assert_as_on_one((1, 2, door), {"model": SMALL | {"remat": True}}, {}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [(1, 2, "jit"), (1, 2, "pmap"), (2, 2, "jit")], ids=str)
def test_several_devices_do_what_one_does_in_micro_batches(layout, tmp_path):
    """Micro-batches have the same rows on any number of devices, so BatchNorm sees the same."""
    changes = {"optimizer": {"accumulate_steps": 2}}
    assert_as_on_one(layout, changes, changes, tmp_path)


@pytest.mark.long
def test_centers_of_each_device_alone_would_be_seen(tmp_path):
    """The rows of the test above lie so that a loss of each device's own rows is another loss."""
    changes = {"loss": {"icg_form": "relative"}}
    blind = "import icre_jax.engine.steps\nicre_jax.engine.steps.jax.lax.all_gather = lambda x, axis_name, tiled: x\n"
    apart = SCRIPT.replace("step = make_train_step", f"{blind}step = make_train_step")
    assert apart != SCRIPT
    whole = run_on((1, 2, "pmap"), changes, tmp_path)
    own = run_on((1, 2, "pmap"), changes, tmp_path, script=apart)
    assert max(differences(own, whole).values()) > 1e-3


@pytest.mark.versions
@pytest.mark.long
def test_a_pmapped_run_on_two_devices_is_scored_and_continued_under_jit_on_one(config, tmp_path):
    config.schedule.num_epochs = 2
    flags = [*flags_of(config), "--workdir", str(tmp_path)]
    door = "--config.parallel=pmap"
    trained = run_command("icre_jax.train", *flags, door, num_devices=2)
    assert trained.returncode == 0, trained.stderr
    assert "on 2 x cpu" in trained.stdout
    theirs = json.loads((tmp_path / "results.json").read_text())["results"]
    scored = run_command("icre_jax.evaluate", "--workdir", str(tmp_path), "--out", str(tmp_path / "one"))
    assert scored.returncode == 0, scored.stderr
    ours = json.loads((tmp_path / "one" / "results.json").read_text())["results"]
    assert ours[0]["mean"]["mAP"] == pytest.approx(theirs[0]["mean"]["mAP"], abs=0.02)
    again = run_command("icre_jax.train", *flags)
    assert again.returncode == 0, again.stderr
    assert "on 1 x cpu" in again.stdout


def test_pairs_that_do_not_spread_evenly_are_refused(monkeypatch):
    monkeypatch.setattr("jax.device_count", lambda: 3)
    with pytest.raises(
        InputError, match=r"16 rows is 8 visible-infrared pairs, which 3 devices cannot share.*multiple of 3"
    ):
        make_mesh(16)
    with pytest.raises(InputError, match=r"3 devices x 2 micro-batches \(optimizer.accumulate_steps\).*of 6"):
        make_mesh(18, accumulate_steps=2)
