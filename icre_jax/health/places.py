"""Folders that must be writable, the space that checkpoints need, and the data."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax

from icre_jax.data.builders import BUILDERS
from icre_jax.data.prepared import is_prepared, open_or_prepare, records_folder
from icre_jax.data.sizes import ASSUMED_IDS, count_training_ids
from icre_jax.engine.inherit import require_same_model
from icre_jax.engine.pretrained import read_backbone
from icre_jax.engine.program import build_program
from icre_jax.engine.stored import read_stored
from icre_jax.errors import InputError
from icre_jax.health.findings import Finding
from icre_jax.settings.fields import Data, Settings


def check_folder(what: str, folder: Path, fix: str) -> Finding:
    """`folder`, or where it would be made, takes files."""
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return Finding(what, "broken", f"cannot write to {place}: {error.strerror or error}. {fix}")
    return Finding(what, "ok", f"{folder} {'is' if place == folder else 'can be made and'} writable")


def check_space(settings: Settings, workdir: Path) -> Finding:
    """The disk of the workdir takes the checkpoints of this config: those that are kept, and the one being written."""
    try:
        num_classes = count_training_ids(settings.data)[0]
    except InputError:  # what is wrong with the list of own images is found by `check_data`
        num_classes = ASSUMED_IDS
    program = build_program(settings, num_classes=num_classes, steps_per_epoch=1)
    one = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.abstract_state))
    count = settings.checkpoint.keep_latest + 2  # and the best
    free = shutil.disk_usage(_existing(workdir)).free
    words = f"{free / 2**30:.1f} GiB free, {count} checkpoints of {one / 2**20:.0f} MiB at a time"
    if free < count * one:
        return Finding("disk", "broken", f"{words}. Free space, or choose another --workdir.")
    return Finding("disk", "ok", words)


def check_weights(settings: Settings) -> Finding:
    """The file that the backbone starts from is there and fits it."""
    path = Path(str(settings.pretrained))
    program = build_program(settings, num_classes=2, steps_per_epoch=1)
    state = program.abstract_state
    like = {"params": state.params["backbone"], "batch_stats": state.batch_stats["backbone"]}
    try:
        read_backbone(path, like)
    except InputError as error:
        return Finding("weights", "broken", str(error))
    return Finding("weights", "ok", f"{path} fits the backbone")


def check_start(settings: Settings) -> Finding:
    """The network that training starts from is there and is the config's."""
    try:
        stored = read_stored(str(settings.init_from))
        require_same_model(stored, settings)
    except InputError as error:
        return Finding("start", "broken", str(error))
    return Finding("start", "ok", f"step {stored.step} of {settings.init_from} is a network of this config")


def check_data(settings: Settings) -> Finding:
    """The records are there, or what they are made from."""
    data = settings.data
    data_dir, prepared_dir = Path(data.data_dir), Path(data.prepared_dir)
    builder = BUILDERS[data.dataset]
    where: Any = {"trial": data.trial, "stored_size": data.stored_size}
    folder = records_folder(data.dataset, prepared_dir, **where)
    try:
        if is_prepared(folder):
            prepared = open_or_prepare(data.dataset, data_dir, prepared_dir, **where)
            num_images = sum(len(index) for index in prepared.index.values())
            return Finding("data", "ok", f"{num_images} images of {builder.card.title}, prepared in {folder}")
        if data.synthetic is not None:
            return Finding("data", "ok", f"people are rendered into {data_dir} when training starts")
        splits = builder.list_images(data_dir, data.trial)
    except InputError as error:
        return Finding("data", "broken", str(error))
    num_images = sum(len(records) for records in splits.values())
    return Finding(
        "data", "ok", f"{num_images} images of {builder.card.title} in {data_dir}; prepared when training starts"
    )


def only_reads_records(data: Data) -> bool:
    """Whether the records are there, so that training writes nothing to `prepared_dir`."""
    where: Any = {"trial": data.trial, "stored_size": data.stored_size}
    return is_prepared(records_folder(data.dataset, Path(data.prepared_dir), **where))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())
