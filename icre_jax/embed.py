"""Turn image files into vectors: `python -m icre_jax.embed --network NETWORK --images PATH --modality M --out FILE`.

NETWORK is an export, a workdir or "synthetic", the network that comes with the package. PATH is a folder of images, a
list with one path a line, or a manifest (docs/own_pictures.md), whose labels are kept; of a manifest, and of a folder
with visible/ and infrared/, the images of M are taken. FILE is a new .npz with `features` [N, D] of length 1, `path`,
and where they are known `pid` and `camid`. Images that cannot be used are named, all of them, and nothing is written.
"""

import functools
from collections.abc import Sequence

from icre_jax.data.layouts.manifest import SPLITS
from icre_jax.datasets import MODALITIES
from icre_jax.engine.embed_files import embed_files
from icre_jax.engine.loaded import LoadedNetwork
from icre_jax.fleet.cluster import add_flags, read_flags
from icre_jax.fleet.embedding import embed_on_workers, leave_devices_to_workers
from icre_jax.machine import command
from icre_jax.machine.caches import keep_compiled_programs
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("embed", __doc__)
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--network", help="an export, the work folder of a run, or 'synthetic'")
    network.add_argument("--workdir", type=command.path, help="work folder of a run")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="saved step of a run; default: the latest")
    parser.add_argument("--images", required=True, type=command.path, help="folder, list of paths, or manifest (.csv)")
    parser.add_argument(
        "--modality",
        required=True,
        choices=MODALITIES,
        help="of the images; of visible/ and infrared/, or of a manifest, take these",
    )
    parser.add_argument("--split", choices=SPLITS, help="of a manifest, take these only")
    parser.add_argument(
        "--out", required=True, type=command.path, help="a new .npz, or .parquet where pyarrow is installed"
    )
    parser.add_argument("--flip", action="store_true", help="average in the mirrored images")
    parser.add_argument(
        "--batch_size", type=command.whole_number(1, 4096), default=64, help="images at a time; default: 64"
    )
    parser.add_argument("--engine", choices=("jax", "ray"), default="jax", help="who embeds; default: jax, here")
    add_flags(parser)
    command.add_pixels_flag(parser)
    flags = parser.parse_args(arguments)
    cluster, embed = read_flags(parser, flags), LoadedNetwork.embed
    if cluster is not None:
        leave_devices_to_workers()
        embed = functools.partial(embed_on_workers, cluster=cluster, step=flags.checkpoint)
    keep_compiled_programs()
    with Screen() as screen:
        net, images = embed_files(
            flags.workdir or flags.network,
            flags.images,
            flags.out,
            modality=flags.modality,
            listener=screen,
            step=flags.checkpoint,
            split=flags.split,
            batch_size=flags.batch_size,
            flip=flags.flip,
            max_pixels=flags.max_pixels,
            embed=embed,
        )
        screen.say(
            f"{flags.out}: {len(images)} {flags.modality} images, {net.size} numbers each, by step {net.step} of "
            f"{net.origin}; " + ("with pid and camid." if images.pid is not None else "no labels are known.")
        )
        if images.num_others:
            screen.say(f"{images.num_others} images of the list are of the other modality or another split; not taken.")
    return 0


if __name__ == "__main__":
    command.run(main)
