"""Records, files and tables of results."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from icre_jax.datasets import CARDS
from icre_jax.errors import InputError
from icre_jax.evals.ranking import Scores
from icre_jax.evals.results import (
    METRICS,
    SCHEMA_VERSION,
    from_document,
    read_results,
    summarize,
    to_document,
    write_results,
)
from icre_jax.evals.tables import condition_parts, table
from tests.tables import format_table

LABELS = {
    "protocol": "SYSU-MM01",
    "dataset": "SYSU-MM01",
    "gallery_source": "python-random",
    "direction": "infrared->visible",
    "feature": "embeddings",
    "flip": False,
    "reranking": False,
}


def scores(rank1, mAP, mINP=0.25, valid=4):
    return Scores(np.linspace(rank1, rank1 + 0.19, 20), mAP, mINP, chance=0.125, num_queries=5, num_valid_queries=valid)


def result(search="all", shot="single", **labels):
    trials = [scores(0.4, 0.3), scores(0.6, 0.5)]
    return summarize(trials, **{"setting": f"{search}/{shot}", **LABELS, **labels})


def test_summary_on_paper():
    summary = result()
    assert summary.mean["rank1"] == pytest.approx(0.5)
    assert summary.std["rank1"] == pytest.approx(0.1)  # both trials are 0.1 from the mean
    assert summary.mean["rank5"] == pytest.approx(0.54)
    assert summary.mean["rank10"] == pytest.approx(0.59)
    assert summary.mean["rank20"] == pytest.approx(0.69)
    assert (summary.mean["mAP"], summary.std["mAP"]) == (pytest.approx(0.4), pytest.approx(0.1))
    assert (summary.mean["mINP"], summary.std["mINP"]) == (0.25, 0)
    assert summary.cmc == pytest.approx(np.linspace(0.5, 0.69, 20).tolist())
    assert (summary.chance, summary.num_trials, summary.num_queries, summary.num_valid_queries) == (0.125, 2, 5, 4)


def test_metric_names_for_checkpoint_selection():
    scalars = result("indoor", "multi").scalars()
    assert list(scalars) == [f"indoor/multi/{m}" for m in ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")]
    assert scalars["indoor/multi/mAP"] == pytest.approx(0.4)


def test_trials_that_do_not_belong_together_are_refused():
    options = {"setting": "all/single", **LABELS}
    with pytest.raises(ValueError, match="agree"):
        summarize([scores(0.4, 0.3), scores(0.4, 0.3, valid=3)], **options)
    with pytest.raises(ValueError, match="agree"):
        summarize([], **options)
    with pytest.raises(ValueError, match=r"50\.0 is not a fraction"):
        summarize([scores(0.5, 50.0)], **options)
    with pytest.raises(ValueError, match="not a fraction"):
        summarize([scores(0.5, float("nan"))], **options)


def test_files_hold_what_was_measured(tmp_path):
    results = [result(), result("indoor", "multi", flip=True)]
    provenance = {"command": "evaluate", "step": 7, "dataset": "a label of its own", "checkpoint": {"epoch": 3}}
    write_results(tmp_path / "new" / "folder", results, provenance)
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["results.csv", "results.json"]
    assert read_results(folder) == (results, provenance)

    document = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert list(document) == ["schema_version", "provenance", "results"]
    assert document["results"][0]["mean"]["rank1"] == pytest.approx(0.5)

    with (folder / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    # Readers outside this repository rely on these names and their order.
    assert " ".join(rows[0]) == (
        "protocol setting dataset gallery_source direction feature flip reranking num_trials num_queries "
        "num_valid_queries chance rank1_mean rank1_std rank5_mean rank5_std rank10_mean rank10_std rank20_mean "
        "rank20_std mAP_mean mAP_std mINP_mean mINP_std command step"
    )
    assert [(row["command"], row["step"]) for row in rows] == [("evaluate", "7")] * 2
    assert [(row["setting"], row["flip"]) for row in rows] == [("all/single", "False"), ("indoor/multi", "True")]
    for metric in METRICS:
        assert float(rows[1][f"{metric}_mean"]) == results[1].mean[metric]
        assert float(rows[1][f"{metric}_std"]) == results[1].std[metric]


def test_a_failed_write_leaves_the_old_files_whole(tmp_path, monkeypatch):
    write_results(tmp_path, [result()], {"run": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(TypeError):
        write_results(tmp_path, [result()], {"run": object()})
    with pytest.raises(ValueError, match="JSON"):
        write_results(tmp_path, [result()], {"loss": float("nan")})

    original = Path.write_bytes

    def write_half(self, content):
        original(self, content[: len(content) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(InputError, match="disk full"):
        write_results(tmp_path, [result("indoor")], {"run": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_reader_never_sees_half_a_file(tmp_path):
    write_results(tmp_path, [result()], {"run": 1})
    # A second name for the old file, as an open reader has it: it is replaced, never written into.
    seen = tmp_path / "seen"
    for name in ("results.json", "results.csv"):
        seen.hardlink_to(tmp_path / name)
        before = seen.read_bytes()
        write_results(tmp_path, [result(), result("indoor")], {"run": 2})
        assert seen.read_bytes() == before != (tmp_path / name).read_bytes()
        seen.unlink()
        write_results(tmp_path, [result()], {"run": 1})


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("not a folder", encoding="utf-8")
    with pytest.raises(InputError, match="out"):
        write_results(tmp_path / "out", [result()], {})


def test_documents_that_cannot_be_read_are_refused(tmp_path):
    document = to_document([result()], {})
    assert from_document(json.loads(json.dumps(document))) == ([result()], {})
    with pytest.raises(InputError, match=f"schema version 99; this icre_jax reads {SCHEMA_VERSION}"):
        from_document({**document, "schema_version": 99})
    with pytest.raises(InputError, match="schema version None"):
        from_document([])
    for damage in ({"extra": 1}, {"chance": 40}, {"cmc": [0.5]}, {"mean": {"rank1": 0.5}}, {"chance": None}):
        with pytest.raises(InputError, match="damaged"):
            from_document({**document, "results": [{**document["results"][0], **damage}]})
    with pytest.raises(InputError, match="damaged"):
        from_document({"schema_version": SCHEMA_VERSION})
    with pytest.raises(InputError, match=r"results\.json cannot be read"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text('{"schema', encoding="utf-8")
    with pytest.raises(InputError, match=r"results\.json cannot be read"):
        read_results(tmp_path)


def cells(text):
    """Markdown rows as {first cell: other cells}."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows}


def test_plain_table_is_in_percent_and_names_its_conditions():
    text = format_table([result(), result("indoor", "multi")])
    assert text.splitlines()[0] == (
        "SYSU-MM01, infrared->visible, gallery: python-random, 2 trials, embeddings, no flip, no re-ranking"
    )
    rows = cells(text)
    assert rows["Setting"] == ["Rank-1", "Rank-5", "Rank-10", "Rank-20", "mAP", "mINP", "Chance", "Queries"]
    expected = "50.00 ±10.00, 54.00 ±10.00, 59.00 ±10.00, 69.00 ±10.00, 40.00 ±10.00, 25.00 ±0.00, 12.50, 4 of 5"
    assert rows["all/single"] == rows["indoor/multi"] == expected.split(", ")
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_brackets_in_a_label_are_not_markup():
    labels = {"dataset": "people [red]"}
    assert "people [red]" in format_table([result(**labels)])
    assert "people [red]" in format_table([result(**labels), result()])


def test_one_trial_has_no_spread():
    single = summarize([scores(0.5, 0.4)], setting="all/single", **LABELS)
    assert cells(format_table([single]))["all/single"][0] == "50.00"
    assert "1 trial" in condition_parts(single)


def test_published_numbers_stand_only_beside_the_real_data_in_the_same_setting():
    text = format_table([result("indoor"), result(), result(shot="multi")])
    names = list(cells(text))
    assert names[names.index("all/single") + 1] == "AGW, published"
    assert names[-1] == "all/multi"
    assert cells(text)["AGW, published"] == ["47.50", "-", "-", "-", "47.65", "-", "-", "-"]
    assert cells(text)["ICRE (second-hand), published"][0] == "77.51"
    assert "MCJA" not in text  # re-ranked
    assert "IDKL, published" not in text  # the number with re-ranking
    assert "test set" in text.splitlines()[-1]

    for other in (
        [result(dataset="synthetic people")],
        [result("indoor", "multi")],
        [result(protocol="LLCM")],
    ):
        text = format_table(other)
        assert "published" not in text.lower()
        assert not any(paper.method in text for card in CARDS.values() for paper in card.published)


def test_each_data_set_has_published_numbers_of_its_own():
    llcm = {"protocol": "LLCM", "dataset": "LLCM"}
    regdb = {"protocol": "RegDB", "dataset": "RegDB", "gallery_source": "all images"}
    there, back, transposed = (
        result(setting=setting, direction=direction, **llcm)
        for setting, direction in (
            ("infrared_to_visible", "infrared->visible"),
            ("visible_to_infrared", "visible->infrared"),
            ("visible_to_infrared_transposed", "visible->infrared (transposed)"),
        )
    )
    lines = [line for line in format_table([there, back, transposed]).splitlines() if line[:1] == "|"]
    assert ["DEEN" in line for line in lines] == [False] * 5 + [True] + [False] * 4
    assert "49.13" in lines[3]
    assert "55.80" in lines[3]
    one = result(setting="visible_to_infrared", direction="visible->infrared", **regdb)
    assert "published" not in format_table([dataclasses.replace(one, num_trials=1)])
    text = format_table([dataclasses.replace(one, num_trials=10)])
    assert cells(text)["CAJ, published"][0] == "85.03"
    assert "Means over the ten trials" in text
    assert "published" not in format_table([result(setting="infrared_to_visible", **regdb)])
    assert "published" not in format_table([back, transposed])


def test_conditions_are_said_once():
    first = result(setting="a", direction="infrared->visible", dataset="people", protocol="LLCM")
    second = dataclasses.replace(first, setting="b", direction="visible->infrared", gallery_source="all images")
    lines = format_table([first, second]).splitlines()
    assert lines[:3] == [
        "people (LLCM protocol), 2 trials, embeddings, no flip, no re-ranking",
        "a: infrared->visible, gallery: python-random",
        "b: visible->infrared, gallery: all images",
    ]
    # What does not follow from the setting gets a column.
    other = dataclasses.replace(second, gallery_source="official")
    rows = cells(format_table([first, second, other]))
    assert rows["gallery: all images"][0] == rows["gallery: official"][0] == "b"


def test_a_re_ranked_number_says_so_everywhere():
    plain, reranked = result(), result(reranking=True)
    assert "WITH RE-RANKING" in format_table([reranked]).splitlines()[0]
    assert list(cells(format_table([reranked])))[-2:] == ["IDKL, published", "MCJA, published"]
    rows = [line for line in format_table([plain, reranked]).splitlines() if line[:1] == "|"]
    ours = [row for row in rows if "all/single" in row]
    assert ["WITH RE-RANKING" in row for row in ours] == [False, True]
    assert ["WITH RE-RANKING" in row for row in rows if "MCJA" in row or "AGW" in row] == [False, True]
    assert to_document([reranked], {})["results"][0]["reranking"] is True


def test_terminal_table_loses_nothing_at_80_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table([result(), dataclasses.replace(result(), setting="indoor/single")]))
    text = console.export_text()
    assert "…" not in text
    assert text.count("±10.00") == 10
    assert "gallery: python-random" in text


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="no result"):
        format_table([])
