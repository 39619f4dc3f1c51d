"""What the report is made of: its file, numbers as people read them, nested data, what plots are given."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from icre_jax.errors import InputError
from icre_jax.report import RankedImage, RankedQuery, plots, write_report
from icre_jax.report.numbers import duration, factor, memory, percent, significant
from icre_jax.report.plots import smooth_values
from icre_jax.report.tree import describe
from tests.reports import TIMES, Page, make_run, make_small, write


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return make_small()


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


def test_rates_are_stairs_of_the_schedule_however_little_was_logged(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "draw", lambda lines, **_: drawn.extend(lines))
    assert plots.plot_learning_rates({"head": np.array([0.1, 0.1, 0.01])}, 2) == []
    np.testing.assert_array_equal(drawn[0].x, [0, 0.5, 0.5, 1, 1, 1.5])
    np.testing.assert_array_equal(drawn[0].y, [0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
