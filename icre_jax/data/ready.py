"""The data set of a config, made ready: rendered if the config asks for it, checked, written as records, counted."""

from pathlib import Path

import numpy as np
from rich.table import Table

from icre_jax import rendering
from icre_jax.data.listener import Listener
from icre_jax.data.permutations import describe_official_draws
from icre_jax.data.prepared import PreparedDataset, open_or_prepare
from icre_jax.datasets import MODALITIES
from icre_jax.errors import InputError
from icre_jax.settings.fields import Data


def prepare_data(settings: Data, listener: Listener) -> PreparedDataset:
    """The data set of a config, rendered and prepared first where it is absent.

    Raises:
      InputError: there is nothing to read at `data_dir`, or what is there cannot be used.
    """
    data_dir, prepared_dir = (Path(path).expanduser().resolve() for path in (settings.data_dir, settings.prepared_dir))
    if settings.synthetic is not None:
        people = rendering.SyntheticSettings(**settings.synthetic.model_dump(exclude={"num_workers"}))
        try:
            rendering.write_tree(
                settings.dataset,
                data_dir,
                people,
                num_workers=settings.synthetic.num_workers,
                progress=lambda done, total: listener.advance("rendering people", done, total),
            )
        except OSError as error:
            raise InputError(
                f"The synthetic people cannot be written to {data_dir}: {error}. Free space, or name another data_dir."
            ) from error
    prepared = open_or_prepare(
        settings.dataset,
        data_dir,
        prepared_dir,
        trial=settings.trial,
        stored_size=settings.stored_size,
        max_pixels=settings.max_pixels,
        progress=lambda done, total: listener.advance("checking images", done, total),
    )
    if not data_dir.is_dir() and prepared.made_from != str(data_dir):
        listener.say(f"{data_dir} is not there: reading the records that were made from {prepared.made_from}.")
    words = describe_official_draws(prepared.dataset, prepared.folder)
    if words:
        listener.say(words)
    return prepared


def describe_data(prepared: PreparedDataset) -> Table:
    """Identities, cameras and images per split and modality, and tracks where images are frames of these."""
    name = prepared.dataset if prepared.trial is None else f"{prepared.dataset} trial {prepared.trial}"
    table = Table(title=f"{name} (fingerprint {prepared.fingerprint[:12]})")
    rows = count_data(prepared)
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("split", "modality") else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


def count_data(prepared: PreparedDataset) -> list[dict[str, str | int]]:
    """The numbers of `describe_data`, one row per split and modality."""
    rows: list[dict[str, str | int]] = []
    for split, index in prepared.index.items():
        for m, modality in enumerate(MODALITIES):
            chosen = index.modality == m
            if chosen.any():
                rows.append(
                    {
                        "split": split,
                        "modality": modality,
                        "identities": len(np.unique(index.pid[chosen])),
                        "cameras": len(np.unique(index.camid[chosen])),
                        **({} if index.track is None else {"tracks": len(np.unique(index.track[chosen]))}),
                        "images": int(chosen.sum()),
                    }
                )
    return rows
