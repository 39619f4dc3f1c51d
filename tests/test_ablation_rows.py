"""Rows of the ablation: which there are, at one budget, and what can be taken out of their networks."""

import functools

import jax
import pytest

from icre_jax.errors import InputError
from icre_jax.experiments.ablation import plan_ablation
from icre_jax.experiments.removal import PARTS, arguments_without, parts_of
from icre_jax.experiments.rows import NAMES, plan_rows
from icre_jax.models import removal
from icre_jax.models.network import build_network
from icre_jax.settings import flatten
from tests.conftest import ROOT

# ml_collections reads a config file that way; elsewhere in the tests processes of their own do so.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")

SYNTHETIC = ["--config=configs/synthetic.py"]
CONTROLS = ("offset", "local")


def test_rows_have_one_order_and_the_default_form_stands_once():
    planned = plan_rows(list(reversed(NAMES)), SYNTHETIC)
    form = planned[0].settings.loss.icg_form
    assert [row.name for row in planned] == [name for name in NAMES if name != f"icre_{form}"]
    by_name = {row.name: row for row in planned}
    assert by_name["icre"].label == f"ICRE (ICG {form})"
    margins = {name: (row.settings.loss.icg_form, row.settings.loss.icg_rho1) for name, row in by_name.items()}
    expected = {"icre_relative": ("relative", 0.3), "icre_absolute": ("absolute", 0.7), "icre_guided": ("guided", 0.2)}
    for name in expected.keys() & margins.keys():
        assert margins[name] == expected[name]
    assert [row.name for row in plan_rows([f"icre_{form}"], SYNTHETIC)] == ["icre"]
    baseline = by_name["baseline"].settings
    assert not baseline.model.mpfr.enabled
    assert not baseline.model.sdce.enabled
    assert baseline.loss.icg_weight == 0


def test_a_folder_of_rows_that_cannot_stand_beside_these_is_refused_as_that(tmp_path):
    """The row was not asked for: to leave it out is no way."""
    (tmp_path / "baseline" / "seed_0").mkdir(parents=True)
    (tmp_path / "baseline" / "seed_0" / "config.json").write_text("{}")
    flags = [*SYNTHETIC, "--config.loss.icg_weight=0.5"]
    with pytest.raises(InputError, match=r"runs of baseline, which cannot stand in one table with these: .*--out"):
        plan_ablation(["icre"], flags, [0], tmp_path)
    assert plan_ablation(["icre"], flags, [0], tmp_path / "other").runs[0].row.name == "icre"


@pytest.mark.parametrize("file", ["configs/synthetic.py", "configs/manifest.py", "configs/sysu_mm01.py"])
def test_all_rows_have_one_budget(file):
    planned = plan_rows(NAMES, [f"--config={file}", "--config.schedule.num_epochs=95"])
    budgets = []
    for row in planned:
        budget = flatten(row.settings)
        budgets.append({k: v for k, v in budget.items() if k != "name" and not k.startswith(("model.", "loss."))})
    assert all(budget == budgets[0] for budget in budgets)
    assert budgets[0]["schedule.num_epochs"] == 95
    reset_fields = {row.name: row.reset_fields for row in planned if row.reset_fields}
    if file == "configs/sysu_mm01.py":  # AGW comes with a recipe of its own
        recipe = ("augment.channel_probability", "augment.erasing_probability")
        recipe += ("data.image_size", "sampling.num_ids_per_batch", "schedule.boundaries")
        assert reset_fields == {"agw": recipe}
    else:
        assert not reset_fields
    # What makes a row what it is stays.
    agw = next(row.settings.model for row in planned if row.name == "agw")
    assert (agw.non_local_channels, agw.neck_init_std) == (1, 0.01)
    assert all(row.settings.model.neck_init_std == 0 for row in planned if row.name != "agw")


@pytest.mark.parametrize(
    ("names", "flags", "words"),
    [
        (["baseline", "bsaeline"], SYNTHETIC, r"Unknown row 'bsaeline'; allowed are baseline, baseline_triplet, agw"),
        (["baseline"], [*SYNTHETIC, "--config.name=mine"], "Row baseline: it sets name = synthetic_baseline"),
        (["baseline"], [], "No config given"),
        (["baseline"], ["--config=configs/synthetic.py:agw"], "agw names a variant"),
        (["baseline"], [*SYNTHETIC, "--config.seed=3"], "--seeds"),
        (["icre", "baseline"], [*SYNTHETIC, "--config.loss.icg_weight=0.5"], r"Row baseline: it sets loss\.icg_weight"),
        (["icre_absolute"], [*SYNTHETIC, "--config.loss.icg_rho1=0.5"], r"Row icre_absolute: it sets loss\.icg_rho1"),
        (["mpfr"], [*SYNTHETIC, "--config.model.widht=8"], "widht"),
    ],
)
def test_rows_that_cannot_be_planned(names, flags, words):
    with pytest.raises(InputError, match=words):
        plan_rows(names, flags)


def test_a_field_that_no_row_sets_is_for_all_rows():
    for row in plan_rows(["baseline", "icre"], [*SYNTHETIC, "--config.loss.icg_rho1=0.5"]):
        assert row.settings.loss.icg_rho1 == 0.5


def test_a_budget_that_cannot_be_reset_fields_is_refused(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import synthetic\n\n\ndef get_config(variant=''):\n    config = synthetic.get_config(variant)\n"
        "    if not variant:\n        config.data.synthetic = None\n    return config\n"
    )
    with pytest.raises(InputError, match=r"Row baseline has another budget[\s\S]*data\.synthetic\.num_train_ids"):
        plan_rows(["baseline"], [f"--config={file}"])


def test_every_part_that_a_network_has_can_be_taken_out():
    parts = {row.name: parts_of(row.settings) for row in plan_rows(NAMES, SYNTHETIC)}
    assert parts["icre"] == parts["mpfr_sdce"] == list(PARTS)
    assert parts["mpfr"] == ["masks", "guide", "gate", "enhancement"]
    assert parts["sdce"] == [part for part in PARTS if part != "masks"]
    assert all(not parts[name] for name in ("baseline", "agw", "icg", *CONTROLS))
    (smaller,) = plan_rows(["icre"], [*SYNTHETIC, "--config.model.sdce.refinement=False"])
    assert parts_of(smaller.settings) == [part for part in PARTS if part != "refinement"]


def test_the_parts_are_those_of_the_network():
    """The rule here reads the config; the weights say what there is to take out."""
    assert list(PARTS) == list(removal.PARTS)
    less = [
        row
        for step, names in (("self_attention", ["mpfr", "sdce", "icre"]), ("cross_attention", ["mpfr_sdce", "sdce"]))
        for row in plan_rows(names, [*SYNTHETIC, f"--config.model.sdce.{step}=False"])
    ]
    for row in less:
        network = build_network(row.settings, num_classes=3)
        images = jax.ShapeDtypeStruct((2, 32, 16, 3), "float32")
        init = functools.partial(network.init, modality="paired", train=True)
        shapes = jax.eval_shape(init, jax.random.key(0), images)
        assert parts_of(row.settings) == removal.parts_of(shapes["params"])


def test_the_command_names_the_parts_that_are_missing(tmp_path):
    (row,) = plan_rows(["icre"], SYNTHETIC)
    icre = row.settings
    words = ["-m", "icre_jax.evaluate", "--workdir", str(tmp_path), "--without"]
    assert arguments_without(tmp_path, parts_of(icre), icre) == [*words, "each"]
    assert arguments_without(tmp_path, ["masks", "gate"], icre) == [*words, "masks,gate"]


def test_docs_name_the_rows():
    text = (ROOT / "docs" / "ablation.md").read_text()
    for name in NAMES:
        assert f"`{name}`" in text
