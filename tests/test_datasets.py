"""Every room has its part of every data set: nothing is forgotten where one is added."""

import importlib

import pytest

from icre_jax.data.builders import BUILDERS
from icre_jax.data.sizes import count_training_ids
from icre_jax.data.verification import CHECKS
from icre_jax.datasets import CARDS, MANIFEST
from icre_jax.evals import PROTOCOLS, VALIDATION
from icre_jax.evals.results import METRICS
from icre_jax.evals.scoring import RULES
from icre_jax.health import places
from icre_jax.rendering.layouts import LAYOUTS
from icre_jax.settings import parse
from tests.conftest import ROOT, TINY_NETWORK, run_command

each_card = pytest.mark.parametrize("card", CARDS.values(), ids=list(CARDS))


def test_no_room_has_a_data_set_without_a_card():
    named = {name: card.name for name, card in CARDS.items()}
    assert all(name == its for name, its in named.items())
    for parts in (BUILDERS, CHECKS, PROTOCOLS, RULES):
        assert [*parts] == [*CARDS]
    assert {*LAYOUTS} == {name for name, card in CARDS.items() if not card.own_images}
    assert {*VALIDATION} == {name for name, card in CARDS.items() if card.has_validation}


@each_card
def test_the_parts_of_a_data_set_say_what_its_card_says(card):
    assert BUILDERS[card.name].card is card
    assert len(BUILDERS[card.name].BUILDER_CONFIGS) == len(card.trials)
    protocol = PROTOCOLS[card.name]
    assert protocol.name == RULES[card.name].title == card.title
    assert tuple(dict.fromkeys(setting.query for setting in protocol.settings)) == card.directions
    assert {paper.setting for paper in card.published} <= {setting.name for setting in protocol.settings}
    if card.has_validation:
        assert VALIDATION[card.name].name.startswith(card.title)
        assert all(name.startswith("val/") for name in VALIDATION[card.name].metric_names)
    if card.own_images:
        assert not card.counts
        assert not card.published
    else:
        assert card.counts.keys() >= {"train", "test"}


@each_card
def test_a_config_and_the_docs_are_there(card):
    settings = parse(importlib.import_module(f"configs.{card.name}").get_config())
    assert (settings.name, settings.data.dataset, settings.data.synthetic) == (card.name, card.name, None)
    protocols = [PROTOCOLS[card.name], *filter(None, [VALIDATION.get(card.name)])]
    allowed = {name for protocol in protocols for name in protocol.metric_names}
    assert settings.checkpoint.best_metric in allowed
    assert settings.checkpoint.best_metric.split("/")[-1] in METRICS
    pages = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("*.md"))]
    assert any(f"configs/{card.name}.py" in page for page in pages)


def without_data(card, tmp_path):
    config = importlib.import_module(f"configs.{card.name}").get_config("baseline")
    config.data.data_dir, config.data.prepared_dir = str(tmp_path / "absent"), str(tmp_path / "prepared")
    return parse(config)


@each_card
def test_what_is_asked_before_there_is_data_has_an_answer(card, tmp_path):
    settings = without_data(card, tmp_path)
    number, source = count_training_ids(settings.data)
    if card.own_images:
        assert number == 100
        assert source == f"assumed: {tmp_path / 'absent' / 'manifest.csv'} is not there yet"
    else:
        assert number == sum(card.counts[split].identities for split in settings.data.train_splits)
        assert source == "as published"
    assert places.check_space(settings, tmp_path).state == "ok"
    finding = places.check_data(settings)
    assert finding.state == "broken"
    assert finding.detail.startswith(f"No {card.title} at {tmp_path / 'absent'}: the folder does not exist.")


@pytest.mark.long
def test_describe_and_the_doctor_come_before_the_list_of_own_images(tmp_path):
    """The commands for all data sets, with data: `test_readme_commands.py`."""
    flags = ("--config", "configs/manifest.py:baseline", *TINY_NETWORK)
    flags = (*flags, f"--config.data.data_dir={tmp_path / 'absent'}", f"--config.data.prepared_dir={tmp_path / 'p'}")
    process = run_command("icre_jax.describe", *flags, "--measure_steps", "0")
    assert (process.returncode, process.stderr) == (0, "")
    number, source = count_training_ids(without_data(MANIFEST, tmp_path).data)
    assert f"manifest_baseline, {number} training identities ({source})" in process.stdout

    process = run_command("icre_jax.doctor", *flags, "--workdir", str(tmp_path / "work"))
    assert (process.returncode, process.stderr) == (5, "")
    assert f"broken  data: No {MANIFEST.title} at {tmp_path / 'absent'}" in process.stdout
    assert process.stdout.endswith("Broken: data.\n")
    assert not list(tmp_path.iterdir())
