"""The tables of docs/evidence.md and of the README are those of the raw results beside them."""

import csv
import statistics
from collections import defaultdict

import pytest

from icre_jax.experiments.evidence import holm, verdict, welch
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


def scores_of(runs):
    """Rank-1 and mAP, as fractions, of each run."""
    return [[float(run[metric]) for run in runs] for metric in ("rank1", "mAP")]


def test_switches_stand_as_they_were_measured():
    """Each beside the eight runs of its row, by the tests of `ablate`, corrected over the whole table."""
    rows, switches = defaultdict(list), defaultdict(list)
    for run in read("instrument/ablation.csv"):
        rows[run["row"]].append(run)
    for run in read("instrument/switches.csv"):
        switches[run["switch"], run["row"]].append(run)
    others = {"offset": "baseline", "local": "baseline", "icg": "icg"}
    tests = {
        key: [
            welch(ours, theirs)
            for ours, theirs in zip(scores_of(runs), scores_of(rows[others.get(key[1], "icre")]), strict=True)
        ]
        for key, runs in switches.items()
    }
    corrected = [dict(zip(tests, holm([both[i].p for both in tests.values()]), strict=True)) for i in (0, 1)]
    table = [line for line in section("Switches, one at a time").splitlines() if " ± " in line]
    assert len(table) == len(switches) == 13
    for (key, both), line in zip(tests.items(), table, strict=True):
        assert [run["seed"] for run in switches[key]] == ["0", "1", "2"]
        for values, test in zip(scores_of(switches[key]), both, strict=True):
            percent = [100 * value for value in values]
            assert f"| {statistics.mean(percent):.2f} ± {statistics.stdev(percent):.2f} |" in line
            assert f"| {100 * test.difference:+.2f} ({100 * test.low:.2f} to {100 * test.high:.2f}) |" in line
        words = [verdict(test, corrected[i][key], num_runs=3, margin=1.0) for i, test in enumerate(both)]
        assert line.split("|")[-2].replace(":", "").replace(" mAP", "") in {
            f" {words[0].replace(':', '')} ",
            f" Rank-1 {words[0]}; {words[1]} ".replace(":", ""),
        }


def test_designs_stand_as_they_were_measured():
    icg = {run["seed"]: run for run in read("instrument/ablation.csv") if run["row"] == "icg"}
    designs = defaultdict(list)
    for run in read("instrument/designs_seeds.csv"):
        designs[run["design"]].append(run)
    table = section("Designs of the enhancement").partition("\n### ")[0]
    lines = [line for line in table.splitlines() if " ± " in line]
    assert len(lines) == len(designs) == 11
    for runs in designs.values():
        ours, theirs = scores_of(runs), scores_of([icg[run["seed"]] for run in runs])
        percent = [[100 * value for value in values] for values in ours]
        cells = [f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}" for values in percent]
        cells += [f"{100 * (statistics.mean(a) - statistics.mean(b)):+.2f}" for a, b in zip(ours, theirs, strict=True)]
        assert any(f"| {len(runs)} | {' | '.join(cells)} |" in line for line in lines), cells
