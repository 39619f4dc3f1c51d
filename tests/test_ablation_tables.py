"""What an ablation says: comparisons by hand, in numbers and in words, in every file that it leaves."""

import dataclasses
import re
from pathlib import Path

import pytest

from icre_jax.errors import InputError
from icre_jax.evals.results import METRICS
from icre_jax.experiments import ablation_tables, table
from icre_jax.experiments.comparisons import compare_parts, compare_rows
from icre_jax.experiments.evidence import paired, welch
from icre_jax.experiments.rows import plan_rows
from icre_jax.experiments.summary import summarize
from tests.stand_in import read_csv, result, score

# ml_collections reads a config file that way; elsewhere in the tests processes of their own do so.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")

SYNTHETIC = ["--config=configs/synthetic.py"]


@pytest.fixture(scope="module")
def rows():
    return plan_rows(["baseline", "mpfr", "icre"], SYNTHETIC)


SCORES = [
    score("baseline", 0, 0.09, 0.20), score("baseline", 1, 0.11, 0.21),
    score("mpfr", 0, 0.10, 0.20, without={"masks": result(0.10, 0.19), "gate": result(0.10, 0.20)}),
    score("mpfr", 1, 0.12, 0.21, without={"masks": result(0.11, 0.20), "gate": result(0.12, 0.21)}),
    score("mpfr", 2, 0.14, 0.20, without={"masks": result(0.12, 0.19)}),
    score("icre", 0, 0.08, 0.30, num_parameters=809_635),
]  # fmt: skip


def test_every_row_is_compared_with_the_baseline_and_icre_with_icg(rows):
    summaries = summarize(rows, SCORES)
    mpfr, icre = compare_rows(summaries, 1.0)
    assert [(c.row.name, c.other, c.num_runs) for c in (mpfr, icre)] == [
        ("mpfr", "baseline", (3, 2)), ("icre", "baseline", (1, 2)),
    ]  # fmt: skip
    expected = welch([0.10, 0.12, 0.14], [0.09, 0.11])
    made = mpfr.metrics["rank1"]
    # One test alone: the other has no p, so nothing is corrected.
    assert (made.test, made.p_holm, made.words) == (expected, expected.p, "not resolved")
    assert icre.metrics["mAP"].test.difference == pytest.approx(0.095)
    assert icre.metrics["mAP"].words == "one run: nothing can be said"
    planned = plan_rows(["baseline", "icg", "mpfr_sdce", "icre"], SYNTHETIC)
    scores = [score(row.name, seed, 0.1 * i + 0.01 * seed) for i, row in enumerate(planned) for seed in range(3)]
    compared = compare_rows(summarize(planned, scores), 1.0)
    assert [(c.row.name, c.other) for c in compared] == [
        ("icg", "baseline"), ("mpfr_sdce", "baseline"), ("icre", "baseline"), ("icre", "icg"),
    ]  # fmt: skip
    # Holm's correction is over these four: the smallest p is that of the largest difference.
    of_icre = compared[2].metrics["rank1"]
    assert of_icre.p_holm == pytest.approx(4 * of_icre.test.p)
    assert of_icre.words == "resolved: better"


def test_without_a_baseline_nothing_is_compared_with_it(rows):
    scores = [s for s in SCORES if s.row != "baseline"]
    assert not compare_rows(summarize(rows, scores), 1.0)
    tables = ablation_tables.make_tables(rows, scores, margin=1.0)
    assert "Comparisons" not in tables.files["ablation.md"].decode()
    assert [sheet.name for sheet in tables.sheets] == ["ablation", "ablation-removal"]


def test_a_network_is_compared_with_itself_without_a_part(rows):
    masks, gate = compare_parts(summarize(rows, SCORES), 1.0)
    assert [(c.row.name, c.other, c.label, c.num_runs) for c in (masks, gate)] == [
        ("mpfr", "masks", "masks", (3, 3)), ("mpfr", "gate", "gate", (2, 2)),
    ]  # fmt: skip
    made = masks.metrics["rank1"]
    assert made.test == paired([0.10, 0.12, 0.14], [0.10, 0.11, 0.12])
    assert made.p_holm == pytest.approx(2 * made.test.p)
    # Only the runs that were scored without it, each against itself: no score moves.
    assert gate.metrics["rank1"].test.difference == 0
    assert gate.metrics["rank1"].words == "no effect larger than 1.0"


def write(folder: Path, rows, scores, margin: float = 1.0):
    tables = ablation_tables.make_tables(rows, scores, margin=margin)
    for name, content in tables.files.items():
        (folder / name).write_bytes(content)
    return tables


def test_the_files_say_it_in_numbers_and_in_words(rows, tmp_path):
    write(tmp_path, rows, SCORES[::-1])
    lines = read_csv(tmp_path / "ablation.csv")
    assert [(line["row"], line["seed"]) for line in lines] == [(s.row, str(s.seed)) for s in SCORES]
    assert float(lines[0]["rank1"]) == 0.09
    assert (lines[0]["num_steps"], lines[0]["training_seconds"], lines[0]["checkpoint"]) == ("126", "12.5", "last")
    assert {*METRICS, "num_parameters", "setting", "dataset", "data_fingerprint"} <= lines[0].keys()
    baseline, mpfr, icre = read_csv(tmp_path / "ablation_summary.csv")
    expected = welch([0.10, 0.12, 0.14], [0.09, 0.11])
    for name in ("difference", "low", "high", "p"):
        assert float(mpfr[f"rank1_{name}"]) == getattr(expected, name)
    assert (mpfr["compared_with"], mpfr["rank1_verdict"]) == ("baseline", "not resolved")
    assert (baseline["compared_with"], baseline["rank1_difference"], baseline["rank1_verdict"]) == ("", "", "")
    assert (icre["rank1_std"], icre["num_runs"], icre["rank1_p_holm"]) == ("", "1", "")
    masks, gate = read_csv(tmp_path / "removal.csv")
    assert (masks["row"], masks["part"], masks["num_runs"]) == ("mpfr", "masks", "3")
    assert float(masks["rank1_whole"]) - float(masks["rank1_without"]) == pytest.approx(0.01)
    assert float(gate["rank1_whole"]) == float(gate["rank1_without"]) == pytest.approx(0.11)
    assert (gate["mAP_p_holm"], gate["mAP_verdict"]) == ("1.0", "no effect larger than 1.0")
    markdown = (tmp_path / "ablation.md").read_text()
    for words in (
        "| Baseline | 0.71 M | 2 | 10.00 ± 1.41 | 20.50 ± 0.71 |",
        "| Baseline + MPFR | Baseline | 3, 2 | Rank-1 | +2.00 |",
        f"| Baseline | 1, 2 | Rank-1 | {table.MINUS}2.00 | - | - | one run: nothing can be said |",
        "| Baseline + MPFR | masks | 3 | Rank-1 | +1.00 | ",
        "| Baseline + MPFR | gate | 2 | mAP | +0.00 | +0.00 to +0.00 | 1.000 | no effect larger than 1.0 |",
        "synthetic people, all/single, infrared->visible",
        "over 3 seeds (0, 1, 2) as far as they are finished (n), checkpoint 'last': after step 126",
        "Welch's t-test, two-sided, after Holm's correction",
        "paired t-test, two-sided, after Holm's correction",
    ):
        assert words in markdown
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write(tmp_path, rows, SCORES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_comparison_of_icre_with_icg_has_a_line_of_its_own(tmp_path):
    planned = plan_rows(["baseline", "icg", "icre"], SYNTHETIC)
    write(tmp_path, planned, [score(row.name, seed, 0.1 + 0.01 * seed) for row in planned for seed in (0, 1)])
    lines = read_csv(tmp_path / "ablation_summary.csv")
    assert [(line["row"], line["compared_with"]) for line in lines] == [
        ("baseline", ""), ("icg", "baseline"), ("icre", "baseline"), ("icre", "icg"),
    ]  # fmt: skip


def test_the_margin_is_in_the_verdict_and_in_the_caption(rows, tmp_path):
    write(tmp_path, rows, SCORES, margin=25.0)
    markdown = (tmp_path / "ablation.md").read_text()
    assert "lies within ±25.0 points" in markdown
    # 1 ± 4.303 / sqrt(3), and twice the p of t = sqrt(3) with two degrees of freedom.
    interval = f"{table.MINUS}1.48 to +3.48"
    assert f"| masks | 3 | Rank-1 | +1.00 | {interval} | 0.451 | no effect larger than 25.0 |" in markdown


def test_the_latex_tables_are_sound(rows):
    odd = dataclasses.replace(rows[1], label=r"50% of a_b & {c} \d ~^#$ <x>", reset_fields=("data.image_size",))
    text = ablation_tables.make_tables([rows[0], odd, rows[2]], SCORES, margin=1.0).files["ablation.tex"].decode()
    assert r"50\% of a\_b \& \{c\} \textbackslash{}d \textasciitilde{}\textasciicircum{}\#\$ \textless{}x" in text
    assert r"infrared$\to$visible" in text
    assert r"data.image\_size as in the other rows" in text
    plain = re.sub(r"\\[\\{}&%$#_]", "", text)  # without what is escaped
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert plain.isascii()
    tables = text.split(r"\begin{table}")[1:]
    assert len(tables) == 3
    for one in tables:
        columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", one).group(1))
        body = [line for line in one.splitlines() if line.endswith(r" \\")]
        assert len(body) >= 4
        assert all(re.sub(r"\\&", "", line).count("&") == columns - 1 for line in body)
        assert one.count(r"\label{tab:ablation") == 1
    assert text.count(r"\begin") == text.count(r"\end") == 6


def test_runs_of_different_conditions_do_not_share_a_table(rows):
    scores = [*SCORES, score("icre", 1, 0.1, gallery_source="official")]
    with pytest.raises(InputError, match=r"Row icre, seed 1 .* gallery_source official, not python-random"):
        ablation_tables.make_tables(rows, scores, margin=1.0)
    for change in ({"data_fingerprint": "0"}, {"num_steps": 5}):
        with pytest.raises(InputError, match=next(iter(change))):
            ablation_tables.make_tables(rows, [*SCORES, dataclasses.replace(SCORES[0], **change)], margin=1.0)


def test_the_plot_takes_rows_without_spread(rows):
    one = SCORES[-1:]
    assert ablation_tables.make_tables(rows, one, margin=1.0).files["ablation.png"].startswith(b"\x89PNG")
