"""The sweep: fields of a config varied, each alone or all together, with every seed."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from icre_jax.experiments.experiment import Experiment, plan_runs, resolve_out
from icre_jax.experiments.points import Space, plan_points
from icre_jax.experiments.runs import find_runs
from icre_jax.experiments.sweep_tables import make_tables


def plan_sweep(
    variations: Mapping[str, Sequence[str]],
    config_flags: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    grid: bool = False,
) -> Experiment:
    """The sweep around a config.

    Args:
      variations: field -> values, as the command line writes them.
      config_flags: "--config=FILE" and fields for all points.
      seeds: one run each per point.
      out: where the work folders and the tables go.
      grid: all combinations of the values, in place of each field alone around the config.

    Raises:
      InputError: a field, a value, the config or `out` cannot be used.
    """
    out, space = resolve_out(out), Space.open(config_flags)
    points = plan_points(space, variations, grid=grid)
    found = [(row, seed) for name, seed in find_runs(out) if (row := space.parse(name))]
    runs, others = plan_runs(points, seeds, found, out)
    everything = list({row.name: row for row in (*points, *(row for row, _ in found))}.values())
    more = [field for row in everything for field in space.changed(row)]
    fields = list(dict.fromkeys([*variations, *more]))
    return Experiment(
        out,
        runs,
        others,
        removal=False,
        make_tables=functools.partial(make_tables, space, fields, everything),
    )
