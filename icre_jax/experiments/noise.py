"""How far one config scatters: runs that differ in the seed, and runs that differ in next to nothing."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icre_jax.errors import InputError
from icre_jax.experiments.experiment import Experiment, resolve_out
from icre_jax.experiments.noise_tables import make_tables
from icre_jax.experiments.points import Space
from icre_jax.experiments.runs import find_runs, make_run

_FIELD = "perturbation"
_MOST_RUNS = 100


def plan_noise(config_flags: Sequence[str], num_runs: int, out: Path) -> Experiment:
    """The runs of both groups, in turns; the run of seed 0 without a perturbation belongs to both.

    Args:
      config_flags: "--config=FILE" and fields for all runs.
      num_runs: of each group.
      out: where the work folders and the tables go; laid out as that of a sweep of the field `perturbation`.

    Raises:
      InputError: the number, the config or `out` cannot be used.
    """
    if not 2 <= num_runs <= _MOST_RUNS:
        raise InputError(f"--runs is {num_runs}; allowed are 2 to {_MOST_RUNS} runs of each group, such as 8.")
    given = [flag for flag in config_flags if flag.startswith(("--config.seed=", f"--config.{_FIELD}="))]
    if given:
        raise InputError(
            f"{given[0]} is given, but seed and perturbation are set for each run. Leave it out; --runs says how many."
        )
    out, space = resolve_out(out), Space.open(config_flags)
    if space.own(_FIELD):
        raise InputError(
            f"The config sets perturbation = {space.own(_FIELD)}; the runs here start from 0. Set it to 0."
        )
    plain = space.make({})
    perturbed = [space.make({_FIELD: str(number)}) for number in range(1, num_runs)]
    runs = [make_run(plain, 0, out)]
    for number, other in enumerate(perturbed, start=1):
        runs += [make_run(plain, number, out), make_run(other, 0, out)]
    found = [(row, seed) for name, seed in find_runs(out) if (row := space.parse(name))]
    others = [make_run(row, seed, out) for row, seed in found if _belongs(space.changed(row), seed)]
    others = [run for run in others if run not in runs]
    numbers = {run.row.name: run.settings.perturbation for run in (*runs, *others)}
    return Experiment(out, runs, others, removal=False, make_tables=functools.partial(make_tables, numbers))


def _belongs(changed: Mapping[str, Any], seed: int) -> bool:
    """Whether a run that was found is of one of the groups: what it changes of the config, and its seed."""
    return not changed or (changed.keys() == {_FIELD} and seed == 0)
