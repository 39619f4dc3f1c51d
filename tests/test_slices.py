"""TPU slices that are not there: what is asked for, what the compiler says, and a real compilation where libtpu is."""

import importlib.util
import json

import pytest

from icre_jax.costs.compiled import Cost
from icre_jax.costs.slices import Collective, SliceCost, largest_batch, list_collectives, open_slice
from icre_jax.errors import InputError
from tests.conftest import flags_of, refused, run_command

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (pip install 'icre_jax[tpu]')"
)


def test_collectives_are_read_from_the_programs_text():
    text = """
      %all-reduce.1 = (f32[64,3]{1,0:T(8,128)}, bf16[10]{0}) all-reduce(%a, %b), replica_groups={{0,1}}
      %ag = f32[8,2]{1,0} all-gather-start(%c), dimensions={0}
      %done = f32[8,2]{1,0} all-gather-done(%ag)
      %all-reduce.2 = f32[] all-reduce(%d)
      %fusion = f32[100] fusion(%all-reduce.2)
    """
    assert list_collectives(text) == (
        Collective("all-gather", 1, 8 * 2 * 4),
        Collective("all-reduce", 2, 64 * 3 * 4 + 10 * 2 + 4),
    )


@pytest.mark.parametrize("name", ["v5e", "v5e:", "v5e:0x2", "v9:2x2", "v5e:2x2x2x2", "2x2"])
def test_a_slice_that_is_no_slice(name):
    with pytest.raises(InputError, match=r"name a slice as KIND:SHAPE.*v5e:2x2"):
        open_slice(name)


@pytest.mark.parametrize(
    ("limit", "tried", "expected"),
    [
        (500, 64, 400),  # 64 fit and use 10 bytes an image on 4 devices of 1000: 400 are foretold, and fit
        (300, 64, 296),  # more is foretold than fits: 400, 376, 360, 344, 328, 312, 296
        (20, 64, 16),  # the config's own does not fit: 32, 16, and nothing above
        (4, 64, 0),
    ],
)
def test_the_largest_batch_is_one_that_was_compiled(monkeypatch, limit, tried, expected):
    compiled = []

    def cost(program, name, num_images):
        compiled.append(num_images)
        if num_images > limit:
            return None
        held = Cost(num_images, 4, 1.0, 1.0, 0, 0, 0, 0, 10 * num_images // 4)
        return SliceCost(name, 1000, held, 0.0, ())

    monkeypatch.setattr("icre_jax.costs.slices.slice_cost", cost)
    monkeypatch.setattr("icre_jax.costs.slices.open_slice", lambda name: [None] * 4)
    said = []
    largest = largest_batch(None, "v5e:2x2", cost(None, "v5e:2x2", tried), tried, said.append)
    assert largest == expected
    assert largest == 0 or largest in compiled
    assert len(said) == len(compiled) - 1


def test_a_step_that_fits_into_fast_memory_tells_no_limit(monkeypatch):
    """Its batch is all that it takes of 10^9 bytes: 1024 on 4 devices are tried, and no more."""
    said = []

    def cost(program, name, num_images):
        held = Cost(num_images, 4, 1.0, 1.0, 10 * num_images // 4, 0, 10 * num_images // 4, 0, 0)
        return SliceCost(name, 10**9, held, 0.0, ())

    monkeypatch.setattr("icre_jax.costs.slices.slice_cost", cost)
    monkeypatch.setattr("icre_jax.costs.slices.open_slice", lambda name: [None] * 4)
    assert largest_batch(None, "v5e:2x2", cost(None, "v5e:2x2", 64), 64, said.append) == 1024
    assert said == ["1024 images fit"]
    assert largest_batch(None, "v5e:2x2", cost(None, "v5e:2x2", 2048), 2048, said.append) == 2048


def test_bad_slices_from_the_command_line(config):
    process = run_command("icre_jax.describe", *flags_of(config), "--tpu", "v9:2x2")
    refused(process, "--tpu is 'v9:2x2'", "v5e:2x2")
    if importlib.util.find_spec("libtpu") is None:
        refused(run_command("icre_jax.describe", *flags_of(config), "--tpu", "v5e:2x2"), "pip install 'icre_jax[tpu]'")


@needs_libtpu
@pytest.mark.slow
def test_a_small_step_is_compiled_for_a_slice(config, tmp_path):
    process = run_command(
        "icre_jax.describe", *flags_of(config), "--tpu", "v5e:2x2", "--json", str(tmp_path / "slice.json")
    )
    assert process.returncode == 0, process.stderr
    assert "64 images fit" in process.stdout
    numbers = json.loads((tmp_path / "slice.json").read_text())
    cost = numbers["slice"]["cost"]
    assert cost["num_devices"] == 4
    assert 0 < cost["peak_bytes"] < numbers["slice"]["hbm_bytes"] == 16 * 2**30
    assert numbers["largest_batch"] == 256 * 4
    assert "1024, or more" in process.stdout
    # Gradients and statistics meet in sums over all devices.
    assert "all-reduce" in [row["kind"] for row in numbers["slice"]["collectives"]]
