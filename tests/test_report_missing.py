"""The report of a run of which something is missing, not finite, or out of the ordinary."""

import dataclasses
import importlib.util
import math
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from icre_jax.evals import regdb
from icre_jax.evals.ranking import Embedded
from icre_jax.report import Evaluation, RankedQuery
from icre_jax.report.scores import join_best
from icre_jax.training import page
from tests.reports import TIMES, Page, make_image, make_result, make_run, make_settings, make_sides, make_small, write


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return make_run()


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return make_small()


def test_nothing_at_all(tmp_path):
    text = write(
        tmp_path,
        settings=make_settings(),
        steps=[],
        timings=[],
        evaluations=[],
        score_curve=[],
        learning_rates={},
        steps_per_epoch=1,
        provenance={},
        sides=None,
        explained=[],
        rank_lists=[],
        hardest=[],
        open_set={},
    )
    parsed = Page(text)
    # scores, CMC, progress, losses, rates, more, distances, features, heat maps, rank lists, hardest, open set, speed,
    # data, provenance
    assert parsed.text.count("Nothing to show.") == 15
    assert "no step was logged" in parsed.text
    assert not [tag for tag, _ in parsed.found if tag == "svg"]


@pytest.mark.parametrize(
    "missing",
    ["steps", "timings", "evaluations", "score_curve", "learning_rates", "provenance", "explained", "rank_lists"]
    + ["hardest", "open_set"],
)
def test_one_thing_missing(small, tmp_path, missing):
    assert "Nothing to show." in Page(write(tmp_path, **(small | {missing: type(small[missing])()}))).text


def test_single_step_and_single_evaluation(small, tmp_path):
    one = {key: small[key][:1] for key in ("steps", "timings", "evaluations", "score_curve", "rank_lists")}
    parsed = Page(write(tmp_path, **(small | one)))
    assert parsed.text.count("Nothing to show.") == 2  # of the embeddings, which `small` lacks
    assert "untrained" in parsed.text
    assert f"7.5{TIMES}" not in parsed.text


def test_not_finite_numbers_are_said_to_be_so(run, tmp_path):
    bad = {"loss": math.nan, "gradient_norm": math.inf, "learning_rate/head": 0.0}
    steps = [row | bad if i >= 100 else row for i, row in enumerate(run["steps"])]
    timings = [row | {"images_per_second": math.nan, "data_wait": math.nan} for row in run["timings"]]
    curve = [{key: math.nan if "/" in key else value for key, value in row.items()} for row in run["score_curve"]]
    arguments = run | {"steps": steps, "timings": timings, "score_curve": curve}
    arguments["provenance"] = {"wall_clock_seconds": math.nan}
    parsed = Page(write(tmp_path, **arguments))
    assert "NaN" in parsed.text
    assert "∞" in parsed.text
    assert "140" in parsed.text  # logged values that are not finite
    assert parsed.text.count("Nothing to show.") == 3  # scores over training, speed, data


def test_all_losses_nan(small, tmp_path):
    steps = [{key: math.nan if key not in ("step", "epoch") else v for key, v in row.items()} for row in small["steps"]]
    # Losses, the rest, and two of embeddings, which `small` lacks; the schedule knows the rates.
    assert Page(write(tmp_path, **(small | {"steps": steps}))).text.count("Nothing to show.") == 4


def test_what_cannot_be_had_is_said_in_a_line(small, tmp_path, monkeypatch):
    sides = make_sides(np.random.default_rng(0))
    strangers = sides["infrared"].subset(np.array([0, 1]))
    strangers.pid[:] = 99
    why = {"explained": "no pair of <one> identity", "open_set": "2 enrolled persons and 1 strangers"}
    text = Page(write(tmp_path, **(small | why | {"sides": sides | {"infrared": strangers}}))).text
    for words in (*why.values(), "0 show one identity and 12 two", "No identity has test images of both modalities"):
        assert words in text
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    text = Page(write(tmp_path, **(small | {"sides": sides}))).text
    assert "This plot needs scikit-learn, which is not installed: pip install 'icre_jax[figures]'." in text


def test_results_under_several_conditions(small, tmp_path):
    results = [make_result(0.7, reranking=True), make_result(0.6), make_result(0.6, num_trials=1)]
    parsed = Page(write(tmp_path, **(small | {"evaluations": [Evaluation("last", 5, 1.0, results)]})))
    assert "WITH RE-RANKING" in parsed.text
    assert "1 trial" in parsed.text
    assert "60.00%" in re.sub(r"\s", "", parsed.text)  # the headline is the one without re-ranking


def test_last_and_best_are_one_row_where_they_are_one_step(small, tmp_path):
    untrained, last, best = small["evaluations"]
    one = [untrained, last, dataclasses.replace(best, step=last.step, results=last.results)]
    parsed = Page(write(tmp_path, **(small | {"evaluations": one})))
    assert [item.label for item in join_best(one)] == ["untrained", "last and best"]
    assert join_best(small["evaluations"]) == small["evaluations"]
    assert parsed.text.count("last and best") == 1 + 1 + 1 + 3  # scores, CMC and its numbers, three tiles
    assert "it was chosen on the test set, as the field does, and so is a little too good." in parsed.text


def test_names_of_own_images_are_shown_and_no_others(small, tmp_path):
    path = "query/infrared/anna/cam2/a & b.png"
    rng = np.random.default_rng(0)
    named = make_image(rng, 7, 2, name=path, person="anna")
    parsed = Page(write(tmp_path, **(small | {"rank_lists": [RankedQuery(named, [])]})))
    assert "anna (7)" in parsed.text
    assert "a & b.png" in parsed.text
    assert path in parsed.values("title")
    assert f"Query: identity 7 (anna), camera 2, {path}" in parsed.values("alt")
    assert 'class="file"' not in write(tmp_path, **small)


def test_of_few_queries_each_has_one_rank_list(monkeypatch):
    monkeypatch.setattr("icre_jax.training.page._image", lambda run, source, record, *_: record)
    for number in (1, 3, 8, 9, 30):
        sides = {
            modality: Embedded(np.eye(number, dtype=np.float32), *np.full((2, number), camid), np.full(number, ""))
            for modality, camid in (("visible", 1), ("infrared", 2))
        }
        evaluator = SimpleNamespace(protocol=regdb.PROTOCOL, sources=dict.fromkeys(sides))
        lists = page._rank_lists(SimpleNamespace(evaluators=[evaluator]), sides)
        shown = [item.query for item in lists]
        assert len(shown) == len({*shown}) == min(number, 8)
        assert (shown[0], shown[-1]) == (0, number - 1)
