"""Make a data set ready: render the synthetic people if the config asks for them, check every picture, write records.

    python -m icre_jax.prepare --config configs/synthetic.py
    python -m icre_jax.prepare --make_manifest FOLDER    # list your own pictures first (docs/own_pictures.md)

`icre_jax.train` does the first by itself when the records are absent.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from icre_jax import command
from icre_jax.data import synthetic
from icre_jax.data.folders import write_manifest
from icre_jax.data.layouts.manifest import NAME
from icre_jax.data.permutations import describe_official_draws
from icre_jax.data.prepared import PreparedDataset, open_or_prepare
from icre_jax.data.records import MODALITIES
from icre_jax.errors import InputError
from icre_jax.runlog import Screen, open_console
from icre_jax.settings import Data, resolve_paths


def prepare_data(settings: Data, screen: Screen) -> PreparedDataset:
    """The data set of a config, rendered and prepared first where it is absent.

    Raises:
      InputError: there is nothing to read at `data_dir`, or what is there cannot be used.
    """
    data_dir, prepared_dir = Path(settings.data_dir), Path(settings.prepared_dir)
    if settings.synthetic is not None:
        people = synthetic.SyntheticSettings(**settings.synthetic.model_dump(exclude={"num_workers"}))
        try:
            synthetic.write_tree(
                settings.dataset,
                data_dir,
                people,
                num_workers=settings.synthetic.num_workers,
                progress=lambda done, total: screen.advance("rendering people", done, total),
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
        progress=lambda done, total: screen.advance("checking pictures", done, total),
    )
    words = describe_official_draws(prepared.dataset, prepared.folder)
    if words:
        screen.say(words)
    return prepared


def describe_data(prepared: PreparedDataset) -> Table:
    """Identities, cameras and pictures per split and modality."""
    name = prepared.dataset if prepared.trial is None else f"{prepared.dataset} trial {prepared.trial}"
    table = Table(title=f"{name} (fingerprint {prepared.fingerprint[:12]})")
    for column in ("split", "modality", "identities", "cameras", "images"):
        table.add_column(column, justify="left" if column in ("split", "modality") else "right")
    for row in count_data(prepared):
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
                        "images": int(chosen.sum()),
                    }
                )
    return rows


def _make_manifest(folder: Path) -> int:
    table = Table(title=str(folder / NAME))
    for column in ("split", "modality", "identities", "images"):
        table.add_column(column, justify="left" if column in ("split", "modality") else "right")
    for (split, modality), counts in write_manifest(folder).items():
        table.add_row(split, modality, *map(str, counts))
    open_console().print(table)
    return 0


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m icre_jax.prepare", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--make_manifest",
        type=Path,
        metavar="FOLDER",
        help="instead: write FOLDER/manifest.csv from FOLDER/{train,query,gallery}/{visible,infrared}/<person>/",
    )
    known, config_flags = command.split_config_flags(parser, arguments)
    if known.make_manifest is not None:
        if config_flags:
            raise InputError("--make_manifest takes no config: it only writes the list. Prepare with a second command.")
        return _make_manifest(known.make_manifest)
    settings = resolve_paths(command.read_config(config_flags))
    screen = Screen(open_console())
    try:
        prepared = prepare_data(settings.data, screen)
    finally:
        screen.close()
    screen.console.print(describe_data(prepared))
    screen.say(f"Records: {prepared.folder}")
    return 0


if __name__ == "__main__":
    command.run(main)
