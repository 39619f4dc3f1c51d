"""The mean over RegDB's trials: `python -m icre_jax.average --workdirs runs/regdb_1 ... runs/regdb_10 --out DIR`.

A trial of RegDB is a halving of its identities, so ten trials are ten trained networks; the field reports their mean.
Reads the results.json of each work folder, prints the mean with its standard deviation and writes results.json,
results.csv and results.tex into --out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from icre_jax import command
from icre_jax.errors import InputError, join_findings
from icre_jax.evals.average import average
from icre_jax.evals.latex import write_latex
from icre_jax.evals.results import ProtocolResult, read_results, write_results
from icre_jax.evals.tables import table

NUM_TRIALS = 10
# Parts of a config that may differ between the runs: where things lie, and what is noise.
_FREE = (
    "name",
    "seed",
    "data.trial",
    "data.data_dir",
    "data.prepared_dir",
    "data.store_resized",
    "data.num_workers",
    "data.num_threads",
)


def average_runs(folders: Sequence[Path]) -> tuple[list[ProtocolResult], dict[str, Any]]:
    """The mean over the runs in `folders`, and where it comes from.

    Raises:
      InputError: no results in a folder, other data than RegDB, a trial twice, or runs of different configs.
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
    return results, facts | {"trials": sorted(seen), "workdirs": [str(folder) for folder in folders]}


def _differences(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    def flat(source: dict[str, Any]) -> dict[str, Any]:
        fields = {"checkpoint": source.get("checkpoint")}
        groups = [("", source.get("settings", {}))]
        while groups:
            prefix, group = groups.pop()
            for name, value in group.items():
                if isinstance(value, dict):
                    groups.append((f"{prefix}{name}.", value))
                elif f"{prefix}{name}" not in _FREE and not prefix.startswith("logging"):
                    fields[prefix + name] = value
        return fields

    a, b = flat(first), flat(other)
    return [f"{name} is {b.get(name)}, not {a.get(name)}" for name in sorted(a | b) if a.get(name) != b.get(name)]


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m icre_jax.average", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--workdirs", required=True, nargs="+", type=Path, metavar="DIR", help="work folders, one for each trial"
    )
    parser.add_argument("--out", required=True, type=Path, help="for the results")
    flags = parser.parse_args(arguments)
    results, facts = average_runs(flags.workdirs)
    write_results(flags.out, results, facts)
    write_latex(flags.out, results)
    # Not `runlog.open_console`: that room needs jax, which takes longer to load than this command to run.
    Console(width=None if sys.stdout.isatty() else 132).print(table(results))
    missing = sorted({*range(1, NUM_TRIALS + 1)} - {*facts["trials"]})
    if missing:
        print(f"Trials {', '.join(map(str, missing))} are not among them: published means are over all ten.")
    print(f"Results: {flags.out / 'results.json'}, {flags.out / 'results.csv'}, {flags.out / 'results.tex'}")
    return 0


if __name__ == "__main__":
    command.run(main)
