"""Score a trained network: `python -m icre_jax.evaluate --workdir DIR [--checkpoint STEP]`.

Embeds every test image once, scores every setting of the protocol from that, prints the table and writes results.json,
results.csv and results.tex into the work folder (or --out). --feature, --flip, --reranking and --gallery_source measure
in another way: the results say so and go to a folder of their own, so that the run's own stay. --without takes a part
out of the trained network first, to see what it does. --open_set asks how often strangers are taken for somebody.
--data_dir and --dataset name other data to do this on.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icre_jax.engine import elsewhere
from icre_jax.engine.evaluator import Measure, evaluate_checkpoint, evaluate_without
from icre_jax.engine.open_set import evaluate_open_set
from icre_jax.evals.tables import table
from icre_jax.machine import command
from icre_jax.machine.caches import keep_compiled_programs
from icre_jax.machine.screen import Screen
from icre_jax.models.removal import PARTS


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("evaluate", __doc__)
    parser.add_argument("--workdir", required=True, type=command.path, help="work folder of a run")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="saved step; default: the latest")
    parser.add_argument("--out", type=command.path, help="for the results; default: WORKDIR, or step_90_flip in it")
    parser.add_argument(
        "--feature",
        choices=("embeddings", "features"),
        default="embeddings",
        help="compare the embeddings after the BN neck (default) or the pooled features before it",
    )
    parser.add_argument("--flip", action="store_true", help="average in the mirrored images")
    parser.add_argument("--reranking", action="store_true", help="k-reciprocal re-ranking (k1 20, k2 6, lambda 0.3)")
    source_help = "who drew the galleries of SYSU-MM01; default: official if the data holds exp/rand_perm_cam.mat"
    parser.add_argument("--gallery_source", choices=("official", "python-random"), help=source_help)
    less = parser.add_mutually_exclusive_group()
    without_help = f"score it without each of these parts, taken out in turn; or 'each'. Parts: {', '.join(PARTS)}"
    less.add_argument("--without", metavar="PART,...", help=without_help)
    less.add_argument("--open_set", action="store_true", help="print FNIR at several FPIR, and write open_set.json")
    elsewhere.add_flags(parser)
    flags = parser.parse_args(arguments)
    other = elsewhere.read_flags(flags)
    keep_compiled_programs()
    measure = Measure(flags.feature, flags.flip, flags.reranking, flags.gallery_source)

    def place(measure: Measure) -> Path:
        # The results of the run itself stay what they are.
        labels = [
            other and other.label,
            f"step_{flags.checkpoint}" if flags.checkpoint is not None else "",
            measure.label,
        ]
        return (flags.out or flags.workdir) / "_".join(label for label in labels if label)

    with Screen() as screen:
        how: dict[str, Any] = {"step": flags.checkpoint, "listener": screen, "measure": measure, "other": other}
        if flags.open_set:
            screen.console.print(*evaluate_open_set(flags.workdir, out=flags.out or place(measure), **how))
            return 0
        if flags.without is None:
            folders = [flags.out or place(measure)]
            found = {"": evaluate_checkpoint(flags.workdir, out=folders[0], **how)}
        else:
            parts = None if flags.without == "each" else [part.strip() for part in flags.without.split(",")]
            found = evaluate_without(flags.workdir, parts=parts, out=place, **how)
            folders = [place(dataclasses.replace(measure, without=part)) for part in found]
        for results in found.values():
            screen.console.print(table(results))
        screen.say(f"Results: results.json, .csv and .tex in {', '.join(map(str, folders))}")
    return 0


if __name__ == "__main__":
    command.run(main)
