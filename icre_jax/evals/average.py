"""The mean over runs of one protocol: RegDB's ten trials are ten networks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from icre_jax.errors import InputError, join_findings
from icre_jax.evals.results import METRICS, ProtocolResult
from icre_jax.evals.tables import condition_parts


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
