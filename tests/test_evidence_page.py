"""The tables of docs/evidence.md and of the README are those of the raw results beside them."""

import csv
import statistics
from collections import defaultdict

import pytest

from tests.conftest import ROOT

EVIDENCE = (ROOT / "docs" / "evidence.md").read_text()
TITLES = {
    "instrument": "The instrument",
    "second": "A set on which",
    "thermal": "The thermal set",
    "imagenet": "From ImageNet",
}


def section(title: str) -> str:
    return next(part for part in EVIDENCE.split("\n## ") if part.startswith(title))


def read(name: str) -> list[dict[str, str]]:
    with (ROOT / "docs" / "evidence" / name).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("folder", TITLES)
def test_rows_stand_as_they_were_measured(folder):
    scores = defaultdict(list)
    for run in read(f"{folder}/ablation.csv"):
        assert run["checkpoint"] == "last"
        scores[run["label"].removesuffix(" (ICG relative)")].append(
            (100 * float(run["rank1"]), 100 * float(run["mAP"]))
        )
    table = section(TITLES[folder])
    for label, runs in scores.items():
        cells = [
            f"{statistics.mean(column):.2f} ± {statistics.stdev(column):.2f}" for column in zip(*runs, strict=True)
        ]
        assert f"| {label} | {' | '.join(cells)} |" in table
    rows = [line for line in table.splitlines() if line.startswith("| ") and " ± " in line]
    assert len(rows) == len(scores) >= 4


@pytest.mark.parametrize("folder", TITLES)
def test_differences_stand_with_their_intervals_and_verdicts(folder):
    table = section(TITLES[folder])
    comparisons = [line for line in read(f"{folder}/ablation_summary.csv") if line["compared_with"]]
    assert len(comparisons) >= 4
    for line in comparisons:
        for metric in ("rank1", "mAP"):
            low, high = (100 * float(line[f"{metric}_{end}"]) for end in ("low", "high"))
            difference = f"{100 * float(line[f'{metric}_difference']):+.2f}".replace("-0.00", "0.00")
            assert f"| {difference} ({low:.2f} to {high:.2f}) |" in table
            assert line[f"{metric}_verdict"] in table


def test_the_readme_repeats_the_instrument():
    readme, table = (ROOT / "README.md").read_text(), section(TITLES["instrument"])
    rows = [line for line in readme.splitlines() if line.startswith(("| Baseline", "| ICRE")) and " ± " in line]
    assert len(rows) == 4
    for line in rows:
        assert "|".join(line.split("|")[:4]) + "|" in table
