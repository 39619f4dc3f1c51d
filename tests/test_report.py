"""The report of a run: it holds what it was given, needs nothing else, and escapes."""

import base64
import dataclasses
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icre_jax.evals.results import METRICS
from icre_jax.figures.heat import lay_over
from icre_jax.report.numbers import significant
from tests.reports import TIMES, Page, make_run, make_settings, make_small, write


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return make_run()


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return make_small()


@pytest.fixture(scope="module")
def page(run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("report"), **run)


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


def test_every_number_of_a_score_has_its_column_s_name_for_narrow_screens(page):
    """There the table has no header: a stylesheet writes each cell's name over it."""
    table = re.search(r'<table class="scores">.*?</table>', page, re.DOTALL).group()
    columns = re.findall(r"<th scope=\"col\">([^<]*)</th>", table)[2:]  # after setting and network
    rows = re.findall(r'<td data-name="([^"]*)">', table)
    assert columns
    assert rows == columns * table.count('<th scope="row">')
    assert table.count("<td") == len(rows)
    assert "content: attr(data-name)" in page


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


def test_points_of_the_open_set_curve_are_there(page):
    text = Page(page).text
    assert "20 draws of 10 enrolled persons (44 images), 10 of whom stand behind FNIR, and 11 strangers" in text
    assert "49.00 (24.50 to 74.50)" in text
    assert "with intervals of 95 % over persons of one draw" in text


def test_colours_of_figures_follow_the_page(page):
    plot = page[page.index('aria-label="Histograms') :]
    assert "var(--plot-0" in plot[: plot.index("</svg>")]
    plot = page[page.index('aria-label="Test images of 3 identities') :]
    plot = plot[: plot.index("</svg>")]
    assert re.search(r"stroke: #(000000|ffffff)", plot) is None  # what stands out on paper and on a dark page alike


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


def test_an_image_of_a_track_is_said_to_be_one(page, small, tmp_path):
    words = "Each image stands for a track, which is what was compared."
    assert words not in page
    settings = small["settings"]
    tracks = settings.model_copy(update={"data": settings.data.model_copy(update={"dataset": "hitsz_vcm"})})
    assert words in write(tmp_path, **(small | {"settings": tracks}))


def test_choice_of_best_is_told(page, small, tmp_path):
    assert "all/single/mAP, a score of this very table: it was chosen on the test set" in page
    without = [item for item in small["evaluations"] if item.label != "best"]
    assert "test set" not in write(tmp_path, **(small | {"evaluations": without}))


def test_same_input_same_bytes(page, run, tmp_path):
    assert write(tmp_path, **run) == page
