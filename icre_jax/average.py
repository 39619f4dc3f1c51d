"""Average the scores of RegDB's trials: `python -m icre_jax.average --workdirs RUN_1 RUN_2 ... --out DIR`.

A trial of RegDB is a halving of its identities, so ten trials are ten trained networks; the field reports their mean.
Reads the results.json of each work folder, prints the mean with its standard deviation and writes results.json,
results.csv and results.tex into --out.
"""

from collections.abc import Sequence

from icre_jax.evals.average import average_runs, require_other_folder
from icre_jax.evals.latex import write_latex
from icre_jax.evals.results import write_results
from icre_jax.evals.tables import table
from icre_jax.machine import command
from icre_jax.machine.screen import open_console


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("average", __doc__)
    parser.add_argument(
        "--workdirs",
        required=True,
        nargs="+",
        type=command.path,
        metavar="DIR",
        help="work folders, one for each trial",
    )
    parser.add_argument("--out", required=True, type=command.path, help="for the results")
    flags = parser.parse_args(arguments)
    require_other_folder(flags.out, flags.workdirs)
    results, facts = average_runs(flags.workdirs)
    write_results(flags.out, results, facts)
    write_latex(flags.out, results)
    open_console().print(table(results))
    if missing := facts["missing_trials"]:
        print(f"Trials {', '.join(map(str, missing))} are not among them: published means are over all ten.")
    print(f"Results: {flags.out / 'results.json'}, {flags.out / 'results.csv'}, {flags.out / 'results.tex'}")
    return 0


if __name__ == "__main__":
    command.run(main)
