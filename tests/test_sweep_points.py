"""Points of a sweep: around a config or in a grid, their names, and values that cannot be used."""

import pytest

from icre_jax.errors import InputError
from icre_jax.experiments.points import DEFAULT, Space, plan_points, read_variations
from icre_jax.settings import differences, flatten

# ml_collections reads a config file that way; elsewhere in the tests processes of their own do so.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")

WEIGHT, RHO = "loss.icg_weight", "loss.icg_rho1"


@pytest.fixture(scope="module")
def space():
    return Space.open(["--config=configs/llcm.py"])


def names_of(space, variations, *, grid=False):
    return [point.name for point in plan_points(space, variations, grid=grid)]


def test_by_default_lambda_and_rho_are_varied_alone(space):
    """Nine points: the config itself, weight 1 and rho 0.3, is in both rows of five."""
    points = plan_points(space, DEFAULT, grid=False)
    assert len(points) == 9
    own = flatten(space.settings)
    assert (own[WEIGHT], own[RHO]) == (1.0, 0.3)
    values = [(flatten(point.settings)[WEIGHT], flatten(point.settings)[RHO]) for point in points]
    expected = [(weight, 0.3) for weight in (0.2, 0.5, 1.0, 1.5, 2.0)] + [(1.0, rho) for rho in (0.1, 0.5, 0.7, 0.9)]
    assert values == expected
    assert points[0].name == "loss.icg_weight=0.2"
    assert points[2].name == "config"
    assert points[2].flags == ("--config=configs/llcm.py",)
    assert points[0].flags == ("--config=configs/llcm.py", "--config.loss.icg_weight=0.2")


def test_a_grid_has_every_combination_once(space):
    points = plan_points(space, DEFAULT, grid=True)
    values = {(flatten(point.settings)[WEIGHT], flatten(point.settings)[RHO]) for point in points}
    assert len(points) == len(values) == 25
    assert {"config", "loss.icg_weight=0.2", "loss.icg_rho1=0.1,loss.icg_weight=0.2"} <= {p.name for p in points}
    # Nothing but the fields of the sweep changes.
    for point in points:
        changed = {line.split(":")[0] for line in differences(space.settings, point.settings)}
        assert changed == space.changed(point).keys() <= {WEIGHT, RHO}


def test_numbers_words_and_switches_can_be_varied(space):
    variations = {
        "loss.icg_form": ["absolute", "relative"],
        "model.sdce.refinement": ["false", "true"],
        "sampling.num_ids_per_batch": ["8"],
        "optimizer.ema_decay": ["0.99"],
        "optimizer.backbone_learning_rate": ["1e-4"],
    }
    assert names_of(space, variations) == [
        "loss.icg_form=absolute", "config", "model.sdce.refinement=False", "sampling.num_ids_per_batch=8",
        "optimizer.ema_decay=0.99", "optimizer.backbone_learning_rate=0.0001",
    ]  # fmt: skip


def test_a_folder_is_read_as_the_point_that_it_was_named_for(space):
    variations = {**DEFAULT, "checkpoint.best_metric": ["all/single/rank1", "indoor/multi/mAP"]}
    for point in plan_points(space, variations, grid=True):
        assert "/" not in point.name
        assert space.parse(point.name) == point
    others = ("baseline", "loss.icg_weight", "loss.icg_wieght=0.2", "loss.icg_weight=-1", "loss.icg_weight=0.20")
    for name in (*others, "loss.icg_weight=1.0", "loss.icg_weight=0.2,loss.icg_rho1=0.1"):
        assert space.parse(name) is None, name


def test_a_point_of_a_variant_starts_from_the_variant():
    space = Space.open(["--config=configs/llcm.py:icg", "--config.loss.icg_rho2=0.5"])
    (point,) = plan_points(space, {WEIGHT: ["0.5"]}, grid=False)
    assert point.settings.name == "llcm_icg"
    assert point.settings.loss.icg_rho2 == 0.5
    assert not point.settings.model.mpfr.enabled


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["loss.icg_weight"], "'loss.icg_weight' is no field with values"),
        (["loss.icg_weight="], "is no field with values"),
        (["=0.5"], "is no field with values"),
        (["loss.icg_weight=0.5,,1"], "is no field with values"),
        (["loss.icg_weight=0.5", "loss.icg_weight=1"], r"names loss\.icg_weight twice"),
    ],
)
def test_variations_that_cannot_be_read(texts, words):
    with pytest.raises(InputError, match=words):
        read_variations(texts)


def test_variations_are_read_in_order():
    texts = ["config.loss.icg_rho1=0.1, 0.3", "loss.icg_form=relative"]
    assert read_variations(texts) == {RHO: ["0.1", "0.3"], "loss.icg_form": ["relative"]}


@pytest.mark.parametrize(
    ("field", "values", "words"),
    [
        (WEIGHT, ["0.5", "abc"], r"--vary loss\.icg_weight: the config refuses 'abc'; allowed are numbers"),
        (WEIGHT, ["-1"], r"the config refuses '-1'.*\n.*\n.*greater than or equal to 0"),
        (WEIGHT, ["1", "1.0"], "1 and 1.0 are the same value"),
        ("loss.icg_form", ["guidde"], "refuses 'guidde'(?s:.*)'relative', 'absolute' or 'guided'"),
        ("model.sdce.enabled", ["maybe"], "refuses 'maybe'; allowed are True or False"),
        ("sampling.num_ids_per_batch", ["2.5"], "refuses '2.5'; allowed are whole numbers"),
        ("sampling.num_ids_per_batch", ["1"], "refuses '1'(?s:.*)need 2 or more"),
        ("loss.icg_wieght", ["1"], r"no such field; allowed are for example loss\.label_smoothing, loss\.icg_weight"),
        ("loss", ["1"], "no such field"),
        ("model.mpfr.taps", ["1"], r"holds several values, \(1, 2, 3\)"),
        ("seed", ["1", "2"], r"--vary seed: it cannot be varied, because .* --seeds"),
        ("data.frames_per_track", ["3", "6"], "cannot be varied, because it is part of the protocol"),
        ("data.data_dir", ["a", "b"], "cannot be varied, because it is a path"),
        ("data.prepared_dir", ["a", "b"], "cannot be varied, because it is a path"),
        ("pretrained", ["a", "b"], "cannot be varied, because it is a path"),
        ("data.synthetic.seed", ["1"], "scores on other data cannot be compared"),
        ("data.dataset", ["llcm"], "scores on other data cannot be compared"),
        ("evaluation.num_trials", ["1"], "scores of another protocol cannot be compared"),
        ("name", ["a"], "it is the name of the config"),
    ],
)
def test_what_cannot_be_varied(field, values, words):
    space = Space.open(["--config=configs/synthetic.py"])  # llcm.py has no rendered people
    with pytest.raises(InputError, match=words):
        plan_points(space, {field: values}, grid=False)


def test_a_combination_that_is_refused_is_named(space):
    """Each alone is fine: 1 identity without the losses that compare them."""
    space = Space.open([*space.flags, "--config.loss.icg_weight=0"])
    variations = {"sampling.num_ids_per_batch": ["1"], WEIGHT: ["0.5"]}
    plan_points(space, variations, grid=False)
    with pytest.raises(InputError, match=r"--grid: .* sampling\.num_ids_per_batch = 1, loss\.icg_weight = 0\.5"):
        plan_points(space, variations, grid=True)


def test_the_seed_is_not_a_field_of_the_config_here():
    with pytest.raises(InputError, match="--seeds"):
        Space.open(["--config=configs/llcm.py", "--config.seed=3"])
