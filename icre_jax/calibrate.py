"""Learn when a search says "not in the gallery": `python -m icre_jax.calibrate --network NETWORK --images PATH`.

PATH holds images of people whom the network was not trained on, labelled and of both modalities: visible/<person>/ and
infrared/<person>/, a manifest, or a data set's tree (--dataset). Prints FPIR and FNIR (ISO/IEC 19795-1) at several
thresholds, and writes the one of --fpir, with the size of gallery it holds for, to --out for `icre_jax.search`.
"""

from collections.abc import Sequence

from icre_jax.data.labelled import DATASETS, SPLITS, Source
from icre_jax.datasets import INFRARED, MODALITIES
from icre_jax.identify.calibrating import calibrate_on
from icre_jax.identify.tables import calibration_table
from icre_jax.machine import command
from icre_jax.machine.caches import keep_compiled_programs
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("calibrate", __doc__)
    parser.add_argument("--network", required=True, help="an export, the work folder of a run, or 'synthetic'")
    parser.add_argument(
        "--images", required=True, type=command.path, metavar="PATH", help="labelled images of held-out people"
    )
    parser.add_argument("--out", required=True, type=command.path, metavar="FILE", help="for the calibration")
    parser.add_argument(
        "--fpir", type=float, default=0.05, help="share of strangers' searches that may give a candidate; default: 0.05"
    )
    parser.add_argument(
        "--query_modality", choices=MODALITIES, default=INFRARED, help="of what will be searched for; default: infrared"
    )
    parser.add_argument(
        "--enrolled",
        type=command.whole_number(1, 10**6),
        metavar="N",
        help="persons in a gallery; default: half of those with both modalities",
    )
    parser.add_argument("--flip", action="store_true", help="for an index that was made with --flip")
    parser.add_argument("--dataset", choices=DATASETS, help="PATH is the tree of this data set")
    parser.add_argument("--trial", type=int, metavar="K", help="of a data set that has trials")
    parser.add_argument("--split", choices=SPLITS, default="test", help="of a data set or manifest; default: test")
    parser.add_argument("--seed", type=command.whole_number(0, 2**31 - 1), default=0, help="of the draws; default: 0")
    command.add_pixels_flag(parser)
    flags = parser.parse_args(arguments)
    command.require_writable(flags.out, "--out")
    keep_compiled_programs()
    with Screen() as screen:
        known = calibrate_on(
            Source(flags.images, flags.dataset, flags.trial, flags.split),
            flags.query_modality,
            network=flags.network,
            fpir=flags.fpir,
            num_enrolled=flags.enrolled,
            flip=flags.flip,
            seed=flags.seed,
            max_pixels=flags.max_pixels,
            listener=screen,
        )
        screen.console.print(calibration_table(known))
        command.write_output(flags.out, known.to_json(), "--out")
        screen.say(f"Threshold {known.threshold:.4f}, for galleries of {known.num_enrolled} persons: {flags.out}")
    return 0


if __name__ == "__main__":
    command.run(main)
