"""Make the index of a gallery: `python -m icre_jax.index --index DIR --images PATH --modality M --network NETWORK`.

DIR is a new folder for embeddings and labels; `icre_jax.search` searches it. PATH is a folder of images with one folder
for each person, a manifest, a list of paths, or a data set's tree (--dataset). --add adds images to an index that is
there; --delete ID removes all images of persons, --delete_image PATH single ones: their rows are gone from the files.
"""

from collections.abc import Sequence

from icre_jax.data.labelled import DATASETS, SPLITS, Source
from icre_jax.datasets import MODALITIES
from icre_jax.identify.enrolment import add_to_index, delete_from_index, make_index
from icre_jax.machine import command
from icre_jax.machine.caches import keep_compiled_programs
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("index", __doc__)
    parser.add_argument("--index", required=True, type=command.path, metavar="DIR", help="folder of the index")
    parser.add_argument("--images", type=command.path, metavar="PATH", help="folder, manifest or list of images")
    parser.add_argument("--modality", choices=MODALITIES, help="of the images")
    parser.add_argument("--network", help="an export, the work folder of a run, or 'synthetic'; --add: the index's own")
    parser.add_argument("--flip", action="store_true", help="average in mirrored images, here and in searches")
    parser.add_argument("--dataset", choices=DATASETS, help="PATH is the tree of this data set")
    parser.add_argument("--trial", type=int, metavar="K", help="of a data set that has trials")
    parser.add_argument("--split", choices=SPLITS, default="test", help="of a data set or manifest; default: test")
    parser.add_argument("--add", action="store_true", help="add the images to an index that is there")
    parser.add_argument("--delete", nargs="+", default=[], metavar="ID", help="delete these persons")
    parser.add_argument("--delete_image", nargs="+", default=[], metavar="PATH", help="delete these images")
    command.add_pixels_flag(parser)
    flags = parser.parse_args(arguments)
    deleting = bool(flags.delete or flags.delete_image)
    if deleting and (flags.images or flags.add or flags.network):
        parser.error("--delete and --delete_image go with --index alone; add images with another command")
    if not deleting and not (flags.images and flags.modality and (flags.network or flags.add)):
        parser.error("--images and --modality are needed, and --network unless --add is said")
    if flags.add and flags.flip:
        parser.error("--flip is decided when an index is made, and cannot be said with --add")
    with Screen() as screen:
        if deleting:
            index, number = delete_from_index(flags.index, persons=flags.delete, paths=flags.delete_image)
            screen.say(f"{flags.index}: {number} images deleted; {len(index)} of {index.num_persons} persons are left.")
            return 0
        keep_compiled_programs()
        source = Source(flags.images, flags.dataset, flags.trial, flags.split)
        how = {"network": flags.network, "max_pixels": flags.max_pixels, "listener": screen}
        if flags.add:
            index = add_to_index(flags.index, source, flags.modality, **how)
        else:
            index = make_index(flags.index, source, flags.modality, flip=flags.flip, **how)
        screen.say(
            f"{flags.index}: {len(index)} images of {index.num_persons} persons, {index.header.dimensions} numbers "
            f"each, by {index.header.origin} ({index.header.model_hash[:12]})."
        )
    return 0


if __name__ == "__main__":
    command.run(main)
