"""Spreading a batch over devices does not change a step. Simulated devices need a process of their own."""

import json
import subprocess
import sys

import numpy as np
import pytest

from icre_jax.errors import InputError
from icre_jax.parallel import make_mesh
from tests.conftest import ROOT, flags_of, run_command

SCRIPT = """
import functools, json, sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
import numpy as np
import optax
from configs import synthetic
from icre_jax.losses.objective import objective
from icre_jax.models.network import build_network
from icre_jax.parallel import make_mesh, make_state, make_train_step
from icre_jax.settings import parse

config = synthetic.get_config()
config.update(json.loads(sys.argv[2]))
settings = parse(config)
network, tx = build_network(settings.model, num_classes=4), optax.sgd(0.01)
mesh = make_mesh(16)
state = make_state(mesh, 0, network=network, tx=tx, image_size=(32, 16))
loss = functools.partial(objective, **settings.loss.model_dump())
step = make_train_step(mesh, door=settings.parallel, network=network, tx=tx, objective=loss)
rng = np.random.default_rng(0)
for _ in range(2):
    images = rng.integers(0, 256, (16, 32, 16, 3), dtype=np.uint8)
    # Identities of 2, 4 and 10 rows: no device holds whole ones only.
    labels = np.repeat(np.arange(3, dtype=np.int32), (2, 4, 10))
    state, metrics = step(state, {"image": images, "label": labels, "modality": np.arange(16, dtype=np.int32) % 2})
leaves = jax.tree.leaves((state.params, state.batch_stats))
print(json.dumps([float(metrics["loss"]), *(float(value) for leaf in leaves for value in np.ravel(leaf)[:50])]))
"""


def run_on(num_devices: int, changes: dict, script: str = SCRIPT) -> np.ndarray:
    small = {"width": 4, "mpfr": {"channels": 8}, "sdce": {"width": 8, "num_heads": 2}}
    changes = {"model": small} | changes
    command = [sys.executable, "-c", script, str(num_devices), json.dumps(changes)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return np.array(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("loss", "doors"),
    [
        ({"label_smoothing": 0.1}, [(8, "jit"), (8, "pmap")]),
        ({"icg_form": "absolute", "icg_rho1": 0.7, "triplet_weight": 1.0}, [(8, "pmap")]),
        ({"icg_form": "guided", "triplet_weight": 1.0, "triplet_form": "weighted"}, [(2, "jit")]),
    ],
    ids=["relative", "absolute and batch-hard triplet", "guided and weighted triplet"],
)
def test_several_devices_do_what_one_does(loss, doors):
    one = run_on(1, {"loss": loss})
    assert len(one) > 1000
    for num_devices, door in doors:
        # BatchNorm, or centers, over each device's own rows would be off in the second digit. What is left is rounding,
        # which BatchNorm over the few values of such small pictures makes larger.
        several = run_on(num_devices, {"loss": loss, "parallel": door})
        np.testing.assert_allclose(several, one, rtol=1e-4, atol=5e-5, err_msg=f"{num_devices} devices, {door}")


def test_centers_of_each_device_alone_would_be_seen():
    """The rows of the test above lie so that a loss of each device's own rows is another loss."""
    changes = {"loss": {"icg_form": "relative"}, "parallel": "pmap"}
    apart = SCRIPT.replace("step = make_train_step", "import icre_jax.steps\nicre_jax.steps.jax.lax.all_gather = "
                           "lambda x, axis_name, tiled: x\nstep = make_train_step")  # fmt: skip
    assert apart != SCRIPT
    whole, own = run_on(2, changes), run_on(2, changes, script=apart)
    assert not np.allclose(own, whole, rtol=1e-2, atol=1e-3)


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
