"""Images of held-out people to a calibration."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import icre_jax
from icre_jax.data.labelled import Labelled, Source, list_labelled, read_rendered_seed
from icre_jax.data.listener import Listener
from icre_jax.datasets import CARDS, OTHER, Modality
from icre_jax.engine.loaded import LoadedNetwork
from icre_jax.engine.provenance import RENDERED
from icre_jax.engine.sources import Source as Learned
from icre_jax.engine.sources import sources_of
from icre_jax.errors import InputError, join_findings
from icre_jax.evals.ranking import Embedded
from icre_jax.retrieval.calibration import Calibration, calibrate
from icre_jax.retrieval.open_set import divide, require_rate


def calibrate_on(
    source: Source,
    query: Modality,
    *,
    network: str,
    fpir: float,
    num_enrolled: int | None = None,
    flip: bool = False,
    seed: int = 0,
    max_pixels: int | None = None,
    listener: Listener,
) -> Calibration:
    """Embed people whom the network was not trained on, and choose the threshold of a rate FPIR.

    Args:
      source: their images, labelled, of both modalities.
      query: modality of what will be searched for; the gallery is of the other.
      network: what `icre_jax.load` takes.
      fpir: the rate.
      num_enrolled: persons in a gallery; None for half of them.
      flip: average in the mirrored images.
      seed: of the draws.
      max_pixels: as of `icre_jax.load`.
      listener: who is told how it goes.

    Raises:
      InputError: no such network, images that cannot be used or have no label, people whom the network is known to
        have been trained on, or too few people for this rate.
    """
    listed = {modality: list_labelled(source, modality) for modality in (query, OTHER[query])}
    _require_labels(source.path, [image for _, images in listed.values() for image in images])
    number = {name: i for i, name in enumerate(sorted({i.person for _, found in listed.values() for i in found}))}
    pids = {
        modality: np.array([number[image.person] for image in images], np.int64)
        for modality, (_, images) in listed.items()
    }
    # Labels alone say whether these people are enough, before minutes of embedding.
    require_rate(fpir, divide(pids[query], pids[OTHER[query]], num_enrolled).num_strangers)
    net = icre_jax.load(network, max_pixels=max_pixels)
    require_unseen(net, source, {image.person for _, images in listed.values() for image in images})
    sides = {}
    for modality, (root, images) in listed.items():
        vectors = net.embed(
            [root / image.path for image in images],
            modality=modality,
            flip=flip,
            progress=functools.partial(listener.advance, f"embedding {modality} images"),
        )
        sides[modality] = Embedded(
            vectors,
            pid=pids[modality],
            camid=np.array([image.camid or 0 for image in images], np.int64),
            path=np.array([image.path for image in images]),
        )
    return calibrate(
        sides[query],
        sides[OTHER[query]],
        fpir=fpir,
        query_modality=query,
        gallery_modality=OTHER[query],
        model_hash=net.model_hash,
        origin=net.origin,
        flip=flip,
        num_enrolled=num_enrolled,
        seed=seed,
    )


def require_unseen(net: LoadedNetwork, source: Source, persons: set[str]) -> None:
    """Refuse people whom the network was trained on, where that can be known: rates would be far too good.

    It can be known of rendered people, who are a seed and a number, and of published data sets, of the network's own
    training as of those of the networks that it started from. Of own images it cannot: whoever calibrates has to see to
    it.

    Raises:
      InputError: saying who or why.
    """
    seed = read_rendered_seed(source.path if source.path.is_dir() else source.path.parent)
    for number, learned in enumerate(sources_of(net.settings, net.provenance)):
        same = _in_common(learned, source, seed)
        other_division = (source.dataset, source.trial) != (learned.dataset, learned.trial)
        # The test people of a published division are in nobody's training.
        is_trained_on = seed is not None or other_division or source.split in learned.train_splits
        if same is None or (number > 0 and not is_trained_on):
            continue
        trained = f"{net.origin} was trained on" if number == 0 else f"{net.origin} started from a network trained on"
        fix = "Calibrate on other people" + ("." if seed is None else ", for example on people of another seed.")
        if number > 0 or other_division:
            raise InputError(
                f"{trained} {same}, perhaps divided in another way: people of {source.path} may be among the training "
                f"identities, and the rates would be too good. {fix}"
            )
        if source.dataset is not None and CARDS[source.dataset].halves_numbered_apart:
            continue  # an equal number says nothing
        known = sorted(persons & {str(pid) for pid in net.class_pids}, key=int)
        if known:
            raise InputError(
                f"{trained} {same}, and {len(known)} of the {len(persons)} persons of {source.path} are among its "
                f"training identities ({', '.join(known[:10])}): the rates would be too good. {fix}"
            )


def _in_common(learned: Learned, source: Source, seed: int | None) -> str | None:
    """What a network has learned from and the images are both of; None if nothing says that they share people.

    `seed` is that of the images, None for real ones.
    """
    if learned.data == RENDERED:
        if seed is None or learned.rendered_seed not in (None, seed):
            return None
        known = "an unknown seed" if learned.rendered_seed is None else f"the same seed ({seed})"
        return f"people rendered with {known}"
    return "the same data set" if seed is None and source.dataset == learned.dataset else None


def _require_labels(path: Path, images: Sequence[Labelled]) -> None:
    nameless = [image.path for image in images if not image.person]
    if nameless:
        raise InputError(
            f"{len(nameless)} images of {path} say of nobody whom they show; a calibration needs persons (folders "
            f"visible/<person>/ and infrared/<person>/, a manifest, or --dataset):\n{join_findings(nameless)}"
        )
