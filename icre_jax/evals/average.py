"""The mean over runs of one protocol: RegDB's ten trials are ten networks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax.datasets import REGDB
from icre_jax.errors import InputError, join_findings
from icre_jax.evals.results import METRICS, ProtocolResult, read_results
from icre_jax.evals.tables import condition_parts
from icre_jax.settings import FREE_TO_CHANGE, flatten

# Fields in which the runs of one mean differ: what they are called, which trial they are of, and what is noise.
_OF_A_RUN = ("name", "seed", "perturbation", "data.trial")


def require_other_folder(out: Path, folders: Sequence[Path]) -> None:
    """Refuse to write the mean to where one of the runs in `folders` has its own results.

    Raises:
      InputError: `out` is one of them.
    """
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise InputError(
            f"--out {out} is one of --workdirs, and the mean would replace the results of that run. Name another "
            "folder."
        )


def average_runs(folders: Sequence[Path]) -> tuple[list[ProtocolResult], dict[str, Any]]:
    """The mean over the runs in `folders`, and where it comes from.

    Raises:
      InputError: no results in a folder, other data than RegDB, a trial twice, or runs of different configs or steps.
    """
    runs, sources = zip(*(read_results(folder) for folder in folders), strict=True)
    findings = []
    seen: dict[int, Path] = {}
    for folder, source in zip(folders, sources, strict=True):
        trial = source.get("trial")
        if trial is None:
            findings.append(f"{folder}: {source.get('dataset')} has no trials of its own; its mean is in its results")
        elif trial in seen:
            findings.append(f"{folder}: trial {trial}, as {seen[trial]}")
        else:
            seen[trial] = folder
        findings += [f"{folder}: {difference}" for difference in _differences(sources[0], source)]
    if findings:
        raise InputError(f"These runs have no common mean:\n{join_findings(findings)}")
    results = average(runs)
    facts = {name: sources[0].get(name) for name in ("config", "checkpoint", "selected_by", "dataset")}
    missing = sorted({*REGDB.trials} - seen.keys())
    return results, facts | {
        "trials": sorted(seen),
        "missing_trials": missing,
        "workdirs": [str(folder) for folder in folders],
        "steps": [source.get("step") for source in sources],  # in the order of the folders
    }


def _differences(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    findings = []
    if first.get("checkpoint") != other.get("checkpoint"):
        findings.append(f"checkpoint is {other.get('checkpoint')}, not {first.get('checkpoint')}")
    steps = first.get("step"), other.get("step")
    # Trials have equally many images, so that whole runs of one config are equally long. Only the best checkpoint of
    # each may be of another step.
    if first.get("checkpoint") != "best" and None not in steps and steps[0] != steps[1]:
        findings.append(
            f"step is {steps[1]}, not {steps[0]}; train to the end and evaluate, or evaluate all at one step"
        )
    ours, theirs = (flatten(source.get("settings", {})) for source in (other, first))
    return findings + [
        f"{name} is {ours.get(name)}, not {theirs.get(name)}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name) and not name.startswith((*FREE_TO_CHANGE, *_OF_A_RUN))
    ]


def average(runs: Sequence[Sequence[ProtocolResult]]) -> list[ProtocolResult]:
    """Mean and standard deviation over runs, setting by setting; a run counts as one trial.

    Args:
      runs: the results of each run; one trial each, the same settings under the same conditions in the same order.

    Returns:
      One result per setting; num_trials is the number of runs, std their spread (divisor: the number of runs).

    Raises:
      InputError: fewer than two runs, or runs that differ in more than their numbers; all differences are named.
    """
    if len(runs) < 2:
        raise InputError(f"A mean needs at least 2 runs, not {len(runs)}.")
    findings = []
    for number, run in enumerate(runs[1:], start=2):
        ours, first = [result.setting for result in run], [result.setting for result in runs[0]]
        if ours != first:
            findings.append(f"run {number} has the settings {', '.join(ours)}; the first has {', '.join(first)}")
            continue
        for result, other in zip(run, runs[0], strict=True):
            pairs = zip(condition_parts(result), condition_parts(other), strict=True)
            findings += [f"run {number}, {result.setting}: {a}; the first: {b}" for a, b in pairs if a != b]
    findings += [
        f"run {number}, {result.setting}: {result.num_trials} trials already"
        for number, run in enumerate(runs, start=1)
        for result in run
        if result.num_trials != 1
    ]
    if findings:
        raise InputError("These runs have no common mean:\n" + join_findings(findings))
    return [_average([run[row] for run in runs]) for row in range(len(runs[0]))]


def _average(trials: Sequence[ProtocolResult]) -> ProtocolResult:
    values = np.array([[trial.mean[metric] for metric in METRICS] for trial in trials])  # [T, 6]
    return replace(
        trials[0],
        num_trials=len(trials),
        # Of the mean run: RegDB has as many queries in every trial.
        num_queries=round(float(np.mean([trial.num_queries for trial in trials]))),
        num_valid_queries=round(float(np.mean([trial.num_valid_queries for trial in trials]))),
        mean=dict(zip(METRICS, values.mean(axis=0).tolist(), strict=True)),
        std=dict(zip(METRICS, values.std(axis=0).tolist(), strict=True)),
        cmc=np.mean([trial.cmc for trial in trials], axis=0).tolist(),
        chance=float(np.mean([trial.chance for trial in trials])),
    )
