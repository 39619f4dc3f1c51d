"""Draw the paper's figures: `python -m icre_jax.visualize --workdir RUN --out FOLDER [--only NAME,...]`.

Distances between the modalities, features in two dimensions, Grad-CAM, masks, attention, what the enhancement does,
CMC and the hardest errors, each as PNG, PDF and CSV. --network takes an export or a network in the box, and renders
people to look at where no data is given; --data_dir and --dataset name other data. --baseline is shown beside it.
"""

import re
from collections.abc import Sequence

from icre_jax.inspection.subjects import add_flags, open_subjects
from icre_jax.inspection.visualize import FIGURES, choose_figures, visualize
from icre_jax.machine import command
from icre_jax.machine.caches import keep_compiled_programs
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("visualize", __doc__)
    add_flags(parser)
    parser.add_argument("--out", required=True, type=command.path, help="a new folder for the figures")
    parser.add_argument("--only", metavar="NAME,...", help=f"some of {', '.join(FIGURES)}; default: all that apply")
    token_help = "of the deep map, from 0: whose attention is shown; default: one in the upper half"
    parser.add_argument("--token", metavar="ROW,COLUMN", help=token_help)
    flags = parser.parse_args(arguments)
    names = choose_figures(flags.only, flags.out)
    token = None
    if flags.token is not None:
        found = re.fullmatch(r"(\d{1,4}),(\d{1,4})", flags.token)
        if found is None:
            parser.error(f"--token is {flags.token!r}; two numbers are needed, for example 2,1.")
        token = (int(found[1]), int(found[2]))
    keep_compiled_programs()
    with Screen() as screen, open_subjects(flags, screen) as subjects:
        required = flags.only is not None
        drawn = visualize(subjects, names, flags.out, token=token, listener=screen, required=required)
        screen.say(f"{flags.out}: {', '.join(drawn)}; each as .png, .pdf and .csv")
    return 0


if __name__ == "__main__":
    command.run(main)
