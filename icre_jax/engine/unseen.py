"""Whom a network has learned from, and that none of them is scored as if it had never seen them."""

from pathlib import Path
from typing import Any

from icre_jax.data.listener import Listener
from icre_jax.data.overlap import equal_images
from icre_jax.data.prepared import PreparedDataset, is_prepared, open_or_prepare, records_folder
from icre_jax.data.rendered import rendered_seed
from icre_jax.datasets import CARDS
from icre_jax.engine.provenance import RENDERED
from icre_jax.engine.sources import Source, sources_of
from icre_jax.engine.stored import Stored
from icre_jax.errors import InputError, join_findings
from icre_jax.settings.fields import Data

TEST_SPLITS = ("query", "gallery")


def require_unseen(stored: Stored, data: Data, prepared: PreparedDataset, listener: Listener) -> int | None:
    """Refuse test images of people that the network, or one that it started from, has learned from.

    Refused are another trial or another copy of a published data set, rendered people of the same seed, identities of
    one list of own images, and any image whose pixels are those of a training image. Who is on images of one's own is
    known to nobody else: of people who are on other images as well this says nothing.

    Args:
      stored: the network.
      data: of the config of the data to be scored.
      prepared: that data; it has another fingerprint than the network's own.
      listener: who is told how it goes.

    Returns:
      How many training images were compared with; None where they are not at hand, which the listener is told.

    Raises:
      InputError: as said.
    """
    seed = rendered_seed(data)
    for source in sources_of(stored.settings, stored.about):
        reason = _known_people(source, prepared, seed)
        if reason:
            raise InputError(
                f"The network learned from {source.describe()}, and {reason}. Scores of people that it knows say "
                "nothing about people that it does not. Give data of other people."
            )
    _require_other_identities(stored, data, prepared)
    trained = _training_data(stored, listener)
    if trained is None:
        return None
    splits = stored.settings.data.train_splits
    equal = equal_images(
        trained,
        splits,
        prepared,
        TEST_SPLITS,
        image_size=stored.settings.data.image_size,
        progress=lambda done, total: listener.advance("comparing with the training images", done, total),
    )
    if equal:
        raise InputError(
            f"{len(equal)} of the test images are images that the network was trained on:\n{join_findings(equal, 5)}\n"
            "Scores of people that it knows say nothing about people that it does not. Take these people out, or give "
            "other data."
        )
    return sum(len(trained.index[split]) for split in splits)


def _known_people(source: Source, prepared: PreparedDataset, seed: int | None) -> str | None:
    """Why some of the test people of `prepared` are known; None if nothing says so."""
    if source.data_fingerprint == prepared.fingerprint:
        return None  # the same division of the same data, whose test people are unseen
    if source.data == RENDERED and prepared.synthetic:
        if None in (source.rendered_seed, seed):
            return f"the data in {prepared.folder} holds rendered people too; whether they are others is not known"
        return (
            f"rendered people of seed {seed} are the same in every data set" if source.rendered_seed == seed else None
        )
    card = CARDS[prepared.dataset]
    if source.dataset != prepared.dataset or card.own_images or source.data == RENDERED or prepared.synthetic:
        return None
    if source.trial != prepared.trial:
        return f"identities that are tested in trial {prepared.trial} of {card.title} are trained on in other trials"
    return f"this is another copy of {card.title}, with the same people and other files or lists"


def _require_other_identities(stored: Stored, data: Data, prepared: PreparedDataset) -> None:
    """Of own images in one folder, whose list was changed, the numbers of people still mean the same."""
    if stored.is_export:
        return  # nobody can say whether it was this folder
    ours, theirs = (Path(place.data_dir).expanduser().resolve() for place in (stored.settings.data, data))
    if ours != theirs or stored.settings.data.dataset != data.dataset:
        return
    tested = {pid for split in TEST_SPLITS for pid in prepared.index[split].pid.tolist()}
    both = sorted(tested & set(stored.class_pids))
    if both:
        raise InputError(
            f"The network was trained on identities of {theirs} that are tested now: {both[:10]}"
            f"{' and more' if len(both) > 10 else ''}. Take them out of query and gallery, or give other data."
        )


def _training_data(stored: Stored, listener: Listener) -> PreparedDataset | None:
    """The data that the network was trained on, if it is at hand; nothing is rendered for that."""
    said = "Not compared with the training images one by one"
    if stored.is_export:
        listener.say(f"{said}: an export does not say where they are, the workdir of its run does.")
        return None
    data = stored.settings.data
    data_dir, prepared_dir = (Path(path).expanduser().resolve() for path in (data.data_dir, data.prepared_dir))
    where: dict[str, Any] = {"trial": data.trial, "stored_size": data.stored_size}
    folder = records_folder(data.dataset, prepared_dir, **where)
    reason = f"{data_dir} and {prepared_dir} are not here"
    if is_prepared(folder) or data_dir.is_dir():
        try:
            prepared = open_or_prepare(
                data.dataset,
                data_dir,
                prepared_dir,
                **where,
                max_pixels=data.max_pixels,
                progress=lambda done, total: listener.advance("checking the training images", done, total),
            )
            if prepared.fingerprint == stored.about["data_fingerprint"]:
                return prepared
            reason = f"{folder} holds other data"
        except InputError as error:
            reason = str(error).splitlines()[0]
    listener.say(f"{said}: {reason}.")
    return None
