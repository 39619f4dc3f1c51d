"""The ablation: every row with every seed, and parts taken out of what was trained."""

import functools
from collections.abc import Sequence
from pathlib import Path

from icre_jax.errors import InputError
from icre_jax.experiments.ablation_tables import make_tables
from icre_jax.experiments.experiment import Experiment, plan_runs, resolve_out
from icre_jax.experiments.rows import NAMES, plan_rows
from icre_jax.experiments.runs import find_runs


def plan_ablation(
    names: Sequence[str],
    config_flags: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    removal: bool = True,
    margin: float = 1.0,
) -> Experiment:
    """The ablation of a config.

    Args:
      names: rows to train, of `icre_jax.experiments.rows.NAMES`.
      config_flags: "--config=FILE" and fields for all rows.
      seeds: one run each per row.
      out: where the work folders and the tables go.
      removal: also score every network with MPFR or SDCE with each of its parts taken out.
      margin: percentage points; an effect that is smaller for certain is called none.

    Raises:
      InputError: rows, config, `margin` or `out` cannot be used.
    """
    if not 0 < margin < 100:
        raise InputError(f"--margin is {margin}; allowed are percentage points above 0 and below 100, such as 1.0.")
    out = resolve_out(out)
    chosen = [row.name for row in plan_rows(names, config_flags)]
    found = [run for run in find_runs(out) if run[0] in NAMES]
    older = [name for name, _ in found if name not in chosen]
    try:
        rows = plan_rows([*chosen, *older], config_flags)
    except InputError as error:
        raise InputError(
            f"{out} holds runs of {', '.join(dict.fromkeys(older))}, which cannot stand in one table with these: "
            f"{error} Or choose another --out."
        ) from error
    by_name = {row.name: row for row in rows}
    runs, others = plan_runs(
        [by_name[name] for name in chosen],
        seeds,
        [(by_name[name], seed) for name, seed in found if name in by_name],
        out,
    )
    return Experiment(
        out,
        runs,
        others,
        removal=removal,
        make_tables=functools.partial(make_tables, rows, margin=margin),
        notes=[
            f"{name}: that is the form of the config itself, the row icre." for name in names if name not in by_name
        ],
    )
