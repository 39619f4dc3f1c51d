"""results.tex: what stands in a paper, and in its caption."""

import dataclasses

import pytest

from icre_jax.errors import InputError
from icre_jax.evals.latex import to_latex, write_latex
from tests.test_results import LABELS, result, scores, summarize


def test_the_table_word_for_word():
    assert to_latex([result(), result("indoor", "multi")]) == (
        "% \\usepackage{booktabs}\n"
        "\\begin{table}\n"
        "\\centering\n"
        "\\caption{SYSU-MM01, infrared$\\to$visible, gallery: python-random, 2 trials, embeddings, no flip, no "
        "re-ranking. In percent, mean $\\pm$ standard deviation over the trials.}\n"
        "\\begin{tabular}{lrrrrrr}\n"
        "\\toprule\n"
        "Setting & Rank-1 & Rank-5 & Rank-10 & Rank-20 & mAP & mINP \\\\\n"
        "\\midrule\n"
        "all/single & $50.00 \\pm 10.00$ & $54.00 \\pm 10.00$ & $59.00 \\pm 10.00$ & $69.00 \\pm 10.00$ & "
        "$40.00 \\pm 10.00$ & $25.00 \\pm 0.00$ \\\\\n"
        "indoor/multi & $50.00 \\pm 10.00$ & $54.00 \\pm 10.00$ & $59.00 \\pm 10.00$ & $69.00 \\pm 10.00$ & "
        "$40.00 \\pm 10.00$ & $25.00 \\pm 0.00$ \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "\\end{table}\n"
    )


def test_what_differs_is_said():
    first = result(setting="there", direction="infrared->visible")
    second = dataclasses.replace(first, setting="back", direction="visible->infrared")
    text = to_latex([first, second])
    assert "there: infrared$\\to$visible. back: visible$\\to$infrared." in text
    text = to_latex([result(), result(reranking=True)])
    assert "\\begin{tabular}{llrrrrrr}" in text
    rows = [line for line in text.splitlines() if "all/single" in line]
    assert ["WITH RE-RANKING" in row for row in rows] == [False, True]
    single = to_latex([summarize([scores(0.5, 0.4)], setting="all/single", **LABELS)])
    assert "all/single & 50.00 & 54.00" in single
    assert "In percent, one trial." in single


def test_labels_cannot_break_the_table():
    text = to_latex([result(dataset="50% of_people & {more} \\end ~^#$")])
    assert r"50\% of\_people \& \{more\} \textbackslash{}end \textasciitilde{}\textasciicircum{}\#\$" in text


def test_the_file_is_written_whole_or_not_at_all(tmp_path):
    write_latex(tmp_path, [result()])
    assert (tmp_path / "results.tex").read_text(encoding="utf-8") == to_latex([result()])
    with pytest.raises(InputError, match="cannot be written"):
        write_latex(tmp_path / "absent", [result()])
    with pytest.raises(ValueError, match="no result"):
        to_latex([])
