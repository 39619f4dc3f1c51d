"""The report: holds what it was given, needs nothing else, escapes, survives what is missing."""

import base64
import dataclasses
import importlib.util
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs import base
from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import METRICS, ProtocolResult
from icre_jax.figures.heat import lay_over
from icre_jax.report import Evaluation, ExplainedPair, RankedImage, RankedQuery, plots, write_report
from icre_jax.report.numbers import duration, factor, memory, percent, significant
from icre_jax.report.plots import smooth_values
from icre_jax.report.scores import join_best
from icre_jax.report.tree import describe
from icre_jax.settings import parse
from icre_jax.settings.fields import Settings

TIMES = "\N{MULTIPLICATION SIGN}"
RATES = {"backbone": 0.01, "head": 0.1}
VOID = {"meta", "img", "br", "hr", "link", "input"}


def make_settings(synthetic: bool = True) -> Settings:
    config = base.get_config()
    config.name = "demo"
    if synthetic:
        config.data.synthetic = {
            "seed": 7,
            "difficulty": "easy",
            "num_train_ids": 40,
            "num_val_ids": 4,
            "num_test_ids": 20,
            "num_images_per_camera": 4,
            "image_size": (128, 64),
            "num_workers": 0,
        }
    return parse(config)


def make_result(rank1: float, setting: str = "all/single", **changes: Any) -> ProtocolResult:
    cmc = (1 - (1 - rank1) * np.exp(-np.arange(20) / 6)).tolist()
    values = [cmc[0], cmc[4], cmc[9], cmc[19], 0.93 * rank1, 0.71 * rank1]
    labels: dict[str, Any] = {
        "dataset": "synthetic people",
        "protocol": "SYSU-MM01",
        "setting": setting,
        "gallery_source": "python-random",
        "direction": "infrared->visible",
        "feature": "embeddings",
        "flip": True,
        "reranking": False,
        "num_trials": 10,
        "num_queries": 160,
        "num_valid_queries": 158,
        "mean": dict(zip(METRICS, values, strict=True)),
        "std": dict(zip(METRICS, [0.0123, 0.0089, 0.0067, 0.0045, 0.0098, 0.0076], strict=True)),
        "cmc": cmc,
        "chance": 0.0503,
    }
    return ProtocolResult(**(labels | changes))


def make_image(rng: np.random.Generator, pid: int, camid: int, **labels: Any) -> RankedImage:
    image = np.empty((128, 64, 3), np.uint8)
    image[:] = rng.integers(80, 200, 3)
    image[8:30, 22:42] = (205, 165, 140)
    image[30:74, 14:50] = np.random.default_rng(pid).integers(0, 255, 3)
    image[74:122, 18:46] = np.random.default_rng(pid + 1000).integers(0, 255, 3)
    return RankedImage(image, pid, camid, **({"similarity": None, "correct": None} | labels))


def make_sides(rng: np.random.Generator, num_ids: int = 3) -> dict[str, Embedded]:
    """Test images of a few people, two of each in each modality."""
    centers = rng.normal(size=(num_ids, 8))
    pid = np.repeat(np.arange(num_ids), 2)
    return {
        modality: Embedded(
            (centers[pid] + rng.normal(size=(len(pid), 8))).astype(np.float32),
            pid,
            np.full(len(pid), camera),
            np.array([f"{modality}/{i}.png" for i in range(len(pid))]),
        )
        for modality, camera in (("visible", 1), ("infrared", 3))
    }


def make_rate(value: float) -> dict[str, float]:
    return {"value": value, "low": value / 2, "high": (1 + value) / 2}


def make_open_set() -> dict[str, Any]:
    """The content of an open_set.json."""
    points = [
        {"target": target, "threshold": 0.5 + i / 10, "fpir": make_rate(target - 0.01 * (i < 2))}
        | {"fnir": make_rate(0.3 + i / 10), "fnir_first": make_rate(0.35 + i / 10)}
        for i, target in enumerate((0.5, 0.1, 0.01))
    ]
    people = {"enrolled_persons": 10, "gallery_images": 43.5, "searched_enrolled_persons": 10, "strangers": 11}
    direction = {"direction": "infrared->visible", "left_out": "same place left out", "draws": 20, "curve": points}
    return {"dataset": "synthetic people", "confidence": 0.95, "directions": [direction | people]}


def make_run(num_steps: int = 240, num_lists: int = 4, settings: Settings | None = None) -> dict[str, Any]:
    """The arguments of `write_report` for a small, plausible run."""
    rng = np.random.default_rng(0)
    steps = []
    for step in range(10, 10 * num_steps + 1, 10):
        done = step / (10 * num_steps)
        identity = 3.7 * math.exp(-3 * done) + 0.1 * rng.random() + 0.05
        triplet = 0.5 * math.exp(-2 * done) + 0.04 * rng.random()
        rate = min(1, done * 6) * (1 if done < 0.6 else 0.1)
        steps.append(
            {
                "step": step,
                "epoch": 30 * done,
                "loss": identity + triplet,
                "loss/identity": identity,
                "loss/triplet": triplet,
                "accuracy": 1 - math.exp(-3 * done) * (1 - 0.1 * rng.random()),
                "gradient_norm": 4 * math.exp(-done) + rng.random(),
                "learning_rate/backbone": 0.01 * rate,
                "learning_rate/head": 0.1 * rate,
            }
        )
    timings = [
        {
            "step": step["step"],
            "images_per_second": 310 + 12 * rng.standard_normal() - 200 * (i == 0),
            "data_wait": 0.02 + 0.02 * rng.random(),
            "peak_memory_bytes": 1_234_567_890,
        }
        for i, step in enumerate(steps)
    ]
    settings_names = ("all/single", "all/multi", "indoor/single", "indoor/multi")
    evaluations = [
        Evaluation(label, step, epoch, [make_result(rank1 + 0.03 * i, name) for i, name in enumerate(settings_names)])
        for label, step, epoch, rank1 in (
            ("untrained", 0, 0.0, 0.0817),
            ("last", 2400, 30.0, 0.6134),
            ("best", 2000, 25.0, 0.6251),
        )
    ]
    curve = [
        {"step": 80 * epoch, "epoch": float(epoch)}
        | {k: v for name in settings_names for k, v in make_result(0.08 + 0.53 * epoch / 30, name).scalars().items()}
        for epoch in range(0, 31, 5)
    ]
    lists = []
    for q in range(num_lists):
        ranked = [
            make_image(
                rng,
                pid := q if rng.random() < 0.6 else int(rng.integers(50, 60)),
                int(rng.choice([1, 2, 4, 5])),
                similarity=0.93 - 0.031 * rank,
                correct=pid == q,
            )
            for rank in range(10)
        ]
        lists.append(RankedQuery(make_image(rng, q, 3), ranked))
    provenance = {
        "command": "python -m icre_jax.train --config=configs/demo.py --workdir=runs/<b>demo</b>",
        "started": "2026-11-22T11:27:12+00:00",
        "wall_clock_seconds": 754.3,
        "versions": {"python": "3.11.9", "jax": "0.10.1", "numpy": "2.3.0"},
        "devices": ["TFRT_CPU_0", "TFRT_CPU_1"],
        "gallery_source": "python-random",
        "num_parameters": 11_234_567,
        "git": {"commit": "bef75ee", "dirty": False},
        "data": {
            "fingerprint": "sha256:0f3a9c",
            "splits": {
                "train": {"num_ids": 40, "num_visible": 640, "num_infrared": 320},
                "test": {"num_ids": 20, "num_visible": 1320, "num_infrared": 160},
            },
        },
        "an unexpected key": {"deep": [{"er": None}, "text"]},
    }
    return {
        "settings": settings or make_settings(),
        "steps": steps,
        "timings": timings,
        "evaluations": evaluations,
        "score_curve": curve,
        "learning_rates": {name: np.repeat(base * np.array([1, 0.1]), 1200) for name, base in RATES.items()},
        "steps_per_epoch": 80,
        "provenance": provenance,
        "sides": make_sides(rng),
        "explained": [
            ExplainedPair(0.4321, make_image(rng, 7, 3), make_image(rng, 7, 1), rng.random((2, 6, 3)))
            for _ in range(num_lists)
        ],
        "rank_lists": lists,
        "hardest": [
            RankedQuery(
                make_image(rng, 0, 3),
                [
                    make_image(rng, 1, 2, similarity=0.75, correct=False),
                    make_image(rng, 0, 2, similarity=0.5, correct=True),
                ],
            )
        ],
        "open_set": make_open_set(),
    }


def write(folder: Path, **arguments: Any) -> str:
    path = folder / "report.html"
    write_report(path, **arguments)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return make_run()


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """One setting, few curves: for tests that are not about the plots."""
    arguments = make_run(num_steps=20, num_lists=1)
    keys = ("step", "epoch", "loss", "learning_rate/head", "accuracy")
    return arguments | {
        "steps": [{key: row[key] for key in keys} for row in arguments["steps"]],
        "timings": arguments["timings"][:3],
        "sides": None,
        "evaluations": [dataclasses.replace(item, results=item.results[:1]) for item in arguments["evaluations"]],
        "score_curve": [
            {key: v for key, v in row.items() if not key.startswith(("indoor", "all/multi"))}
            for row in arguments["score_curve"]
        ],
    }


@pytest.fixture(scope="module")
def page(run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("report"), **run)


class Page(HTMLParser):
    """Checks that tags are balanced; collects attributes, ids and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.found if (value := attrs.get(attribute)) is not None]


@pytest.mark.versions
def test_page_is_well_formed_and_every_id_is_there_once(page):
    parsed = Page(page)
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    targets = {value[1:] for value in parsed.values("href")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert targets <= set(ids)


def test_page_needs_nothing_else(page):
    parsed = Page(page)
    assert not [tag for tag, _ in parsed.found if tag in ("script", "link", "iframe", "object", "base")]
    assert all(value.startswith("data:image/jpeg;base64,") for value in parsed.values("src"))
    assert all(value.startswith("#") for value in parsed.values("href"))
    assert not parsed.values("srcset")
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_every_score_is_there(page, run):
    text = Page(page).text
    for item in run["evaluations"]:
        for result in item.results:
            for metric in METRICS:
                assert f"{100 * result.mean[metric]:.2f} ± {100 * result.std[metric]:.2f}" in text
            assert all(f"{100 * value:.2f}" in text for value in result.cmc)
            assert f"{100 * result.chance:.2f}" in text
    for row in run["score_curve"]:
        assert f"epoch {row['epoch']:.0f}, step {row['step']:,}" in text
        assert all(f"{100 * value:.2f}" in text for key, value in row.items() if "/" in key)
    assert "158 of 160 queries" in text


def test_tiles_compare_with_chance_and_untrained(page):
    text = Page(page).text
    assert f"12{TIMES} chance (5.03 %)" in text  # 0.6134 / 0.0503 = 12.19
    assert f"7.5{TIMES} untrained (8.17 %)" in text  # 0.6134 / 0.0817 = 7.508
    assert "best 62.51 %" in text
    assert "12 min 34 s" in text


def test_logged_numbers_are_there(page, run):
    text = Page(page).text
    for rows in (run["steps"], run["timings"]):
        for key in rows[-1]:
            if key not in ("step", "epoch"):
                assert key in text
                assert significant(rows[0][key]) in text
                assert significant(rows[-1][key]) in text


def test_rank_lists_show_everything_and_not_by_colour_alone(page, run):
    parsed = Page(page)
    alts = parsed.values("alt")
    lists = run["rank_lists"] + run["hardest"]
    images = [p for item in lists for p in item.ranked]
    assert len(alts) == len(images) + len(lists) + 4 * len(run["explained"])
    assert parsed.text.count("✓") == sum(p.correct for p in images) + 1  # and the legend
    assert parsed.text.count("✗") == sum(not p.correct for p in images) + 1
    first = run["rank_lists"][0].ranked[0]
    verdict = "right" if first.correct else "wrong"
    assert f"Rank 1: identity {first.pid}, camera {first.camid}, similarity 0.930, {verdict}" in alts
    assert "Query: identity 0, camera 3" in alts
    assert "the wrong image is ahead by 0.250" in parsed.text
    assert "Grad-CAM of the infrared image of identity 7, camera 3" in alts
    assert "Similarity 0.432" in parsed.text


def test_images_keep_their_size_and_look(page, run):
    images = [dict(attrs) for tag, attrs in Page(page).found if tag == "img"]
    asked = next(image["src"] for image in images if image["alt"].startswith("Query"))
    assert np.abs(decoded(asked) - run["rank_lists"][0].query.image).mean() < 4
    # Each image of a pair, and the same under its heat.
    pair = run["explained"][0]
    shown = [decoded(image["src"]) for image in images[:4]]
    for side, image in enumerate((pair.infrared.image, pair.visible.image)):
        assert np.abs(shown[2 * side] - image).mean() < 4
        assert np.abs(shown[2 * side + 1] - lay_over(image, pair.heat[side])).mean() < 4


def decoded(source: str) -> np.ndarray:
    """Pixels of a data URI."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))).astype(int)


@pytest.mark.versions
def test_every_plot_says_what_it_shows(page):
    parsed = Page(page)
    plots = [attrs for tag, attrs in parsed.found if tag == "svg"]
    # CMC, scores, losses, rates, the rest, distances, features, open set, speed
    assert len(plots) == 4 + 4 + 1 + 1 + 2 + 1 + 1 + 1 + 2
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 20 for attrs in plots)
    assert "var(--plot-ink" in page


def test_user_text_is_escaped(small, tmp_path):
    evil = '_"><script>alert(1)</script><b>$x^$'
    settings = small["settings"].model_copy(update={"name": evil})
    arguments = small | {"settings": settings, "provenance": {evil: evil, "data": {evil: {evil: evil}}}}
    arguments["steps"] = [row | {f"loss/{evil}": 1.0, evil: 2.0} for row in small["steps"]]
    arguments["evaluations"] = [dataclasses.replace(item, label=evil) for item in small["evaluations"]]
    arguments["score_curve"] = [row | {f"{evil}/{evil}": 0.5} for row in small["score_curve"]]
    text = write(tmp_path, **arguments)
    parsed = Page(text)
    assert "<script" not in text
    assert "<b>demo" not in text
    assert parsed.text.count(evil) >= 6


def test_escaped_command_is_readable(page, run):
    assert run["provenance"]["command"] in Page(page).text
    assert "&lt;b&gt;demo&lt;/b&gt;" in page


def test_provenance_shows_unknown_keys(page):
    text = Page(page).text
    for part in ("an unexpected key", "deep", "er", "sha256:0f3a9c", "TFRT_CPU_0, TFRT_CPU_1", "11,234,567", "1,320"):
        assert part in text


def test_synthetic_people_are_named_prominently(page, small, tmp_path):
    warning = "Synthetic people: not comparable with published numbers."
    assert warning in page
    assert page.index(warning) < page.index('id="scores"')
    assert warning not in write(tmp_path, **(small | {"settings": make_settings(synthetic=False)}))


def test_choice_of_best_is_told(page, small, tmp_path):
    assert "all/single/mAP, a score of this very table: it was chosen on the test set" in page
    without = [item for item in small["evaluations"] if item.label != "best"]
    assert "test set" not in write(tmp_path, **(small | {"evaluations": without}))


def test_same_input_same_bytes(page, run, tmp_path):
    assert write(tmp_path, **run) == page


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


def test_results_under_several_conditions(small, tmp_path):
    results = [make_result(0.7, reranking=True), make_result(0.6), make_result(0.6, num_trials=1)]
    parsed = Page(write(tmp_path, **(small | {"evaluations": [Evaluation("last", 5, 1.0, results)]})))
    assert "WITH RE-RANKING" in parsed.text
    assert "1 trial" in parsed.text
    assert "60.00%" in re.sub(r"\s", "", parsed.text)  # the headline is the one without re-ranking


def test_file_stays_small(tmp_path):
    arguments = make_run(num_steps=20_000, num_lists=20)
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (60, 5, 3), dtype=np.uint8)  # hard to compress after enlarging
    for item in arguments["rank_lists"]:
        for i, ranked in enumerate(item.ranked):
            image = np.kron(np.roll(noise, i, axis=0), np.ones((7, 30, 1), np.uint8))  # [420, 150, 3]
            item.ranked[i] = dataclasses.replace(ranked, image=image)
    text = write(tmp_path, **arguments)
    assert len(text) < 2_000_000
    assert len(Page(text).values("src")) == 20 * (11 + 4) + 3
    assert "as logged, one step in 20." in text


def test_write_replaces_whole_files_only(small, tmp_path):
    path = tmp_path / "new" / "folder" / "report.html"
    write_report(path, **small)
    before = path.read_bytes()
    gray = RankedImage(np.zeros((8, 4), np.uint8), 1, 1, None, None)
    with pytest.raises(ValueError, match=r"\[H, W, 3\] uint8, not \[8, 4\] uint8"):
        write_report(path, **(small | {"rank_lists": [RankedQuery(gray, [])]}))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_unwritable_path_is_an_input_error(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", **small)


def test_smoothing_is_a_mean_around_each_value():
    values = np.array([1.0, 2.0, np.nan, 4.0, 9.0])
    expected = [np.nanmean(values[max(0, i - 1) : i + 2]) for i in range(5)]
    expected[2] = np.nan
    np.testing.assert_allclose(smooth_values(values, 3), expected)
    np.testing.assert_array_equal(smooth_values(values, 1), values)


def test_numbers_for_people():
    assert percent(0.12345) == "12.35"
    assert percent(math.nan) == "NaN"
    assert factor(0.3, 0.1) == f"3.0{TIMES}"
    assert factor(0.3, 0.0) is None
    assert [duration(s) for s in (0.04, 59.96, 754.3, 3600, 11_111, 190_000)] == [
        "0.0 s",
        "1 min 0 s",
        "12 min 34 s",
        "1 h 0 min",
        "3 h 5 min",
        "2 d 4 h",
    ]
    assert [memory(b) for b in (12, 1_234_567, 1_234_567_890)] == ["12 B", "1.23 MB", "1.23 GB"]
    assert [significant(v) for v in (math.nan, -math.inf, 12345, 0.00012346, 12345.6)] == [
        "NaN",
        "-∞",
        "12,345",
        "0.0001235",
        "12,346",
    ]


def test_nested_data_is_arranged():
    node = describe({"a": {"x": 1, "y": 2}, "b": {"x": 3}})
    assert node.kind == "table"
    assert node.rows == [("a", ["1", "2"]), ("b", ["3", ""])]
    assert describe([1, None, True]).text == "1, -, yes"
    assert describe({}).text == "-"
    assert describe(np.float32(1.5)).text == "1.5"
    assert describe([{"a": [1]}, 2]).kind == "items"
    assert describe(2_500_000, "size_bytes").text == "2.5 MB (2500000 B)"


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


def test_rates_are_stairs_of_the_schedule_however_little_was_logged(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "draw", lambda lines, **_: drawn.extend(lines))
    assert plots.plot_learning_rates({"head": np.array([0.1, 0.1, 0.01])}, 2) == []
    np.testing.assert_array_equal(drawn[0].x, [0, 0.5, 0.5, 1, 1, 1.5])
    np.testing.assert_array_equal(drawn[0].y, [0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_points_of_the_open_set_curve_are_there(page):
    text = Page(page).text
    assert "20 draws of 10 enrolled persons (44 images) and 11 strangers" in text
    assert "49.00 (24.50 to 74.50)" in text
    assert "with intervals of 95 % over persons" in text


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


def test_colours_of_figures_follow_the_page(page):
    plot = page[page.index('aria-label="Histograms') :]
    assert "var(--plot-0" in plot[: plot.index("</svg>")]
    plot = page[page.index('aria-label="Test images of 3 identities') :]
    plot = plot[: plot.index("</svg>")]
    assert re.search(r"stroke: #(000000|ffffff)", plot) is None  # what stands out on paper and on a dark page alike
