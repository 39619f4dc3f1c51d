"""Score features of any code base: `python -m icre_jax.score --protocol NAME --query q.npz --gallery g.npz`.

Both files hold `features` [N, D], `pid` [N] and `camid` [N]. The gallery is ranked as given, nothing is drawn from it;
the protocol decides what a query may not see and how the CMC counts. Prints a table; --json FILE keeps the numbers.
"""

import argparse
import json
from collections.abc import Sequence

from icre_jax.evals.scoring import RULES, choose_rule, score_files, to_document, to_table
from icre_jax.machine import command
from icre_jax.machine.screen import open_console


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("score", __doc__)
    parser.add_argument("--protocol", required=True, choices=RULES, help="whose rules")
    parser.add_argument("--query", required=True, type=command.path, metavar="FILE.npz", help="features, pid, camid")
    parser.add_argument("--gallery", required=True, type=command.path, metavar="FILE.npz", help="features, pid, camid")
    parser.add_argument("--json", type=command.path, metavar="FILE", help="where to keep the numbers as well")
    parser.add_argument(
        "--deduplicate_ids",
        action=argparse.BooleanOptionalAction,
        help="CMC: count each id once, or images (regdb, manifest; default: images)",
    )
    parser.add_argument(
        "--exclude_same_camera",
        action=argparse.BooleanOptionalAction,
        help="leave out images of the query's id by the query's camera, or nothing (manifest; default: leave out)",
    )
    parser.add_argument("--reranking", action="store_true", help="k-reciprocal re-ranking (k1 20, k2 6, lambda 0.3)")
    flags = parser.parse_args(arguments)
    if flags.json is not None:
        command.require_writable(flags.json, "--json")
    rule = choose_rule(
        flags.protocol, exclude_same_camera=flags.exclude_same_camera, deduplicate_ids=flags.deduplicate_ids
    )
    scores = score_files(rule, flags.query, flags.gallery, reranking=flags.reranking, warn=command.warn)
    open_console().print(to_table(rule, scores, flags.query, flags.gallery, reranking=flags.reranking))
    if flags.json is not None:
        document = to_document(rule, scores, flags.query, flags.gallery, reranking=flags.reranking)
        command.write_output(flags.json, json.dumps(document, indent=2, allow_nan=False) + "\n", "--json")
        print(f"Scores: {flags.json}")
    return 0


if __name__ == "__main__":
    command.run(main)
