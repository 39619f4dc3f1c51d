"""A trained network as a run left it, with the data it may be asked about."""

import dataclasses
from pathlib import Path
from typing import Any

from icre_jax.data.listener import Listener
from icre_jax.data.prepared import PreparedDataset
from icre_jax.data.ready import prepare_data
from icre_jax.engine.stored import Stored, read_run
from icre_jax.errors import InputError
from icre_jax.settings.fields import Settings


@dataclasses.dataclass(frozen=True, eq=False)
class Trained(Stored):
    """A network and data whose test identities it has not seen.

    Attributes:
      prepared: the data it was trained on, or other data (`icre_jax.engine.elsewhere`), which `settings.data` then
        names.
      elsewhere: of other data, what stands beside its results: "trained_on", the network's own data in words;
        "sources", the same as `icre_jax.engine.sources.Source`, with the data of networks that it started from; and
        "training_images_compared", how many the test images were compared with, or None.
    """

    prepared: PreparedDataset
    elsewhere: dict[str, Any] | None = None


def open_trained(workdir: Path, *, step: int | None, listener: Listener) -> Trained:
    """Read a checkpoint and prepare its data if that is absent.

    Args:
      workdir: of the run.
      step: which checkpoint; None for the latest.
      listener: who is told how it goes.

    Raises:
      InputError: no run or no such checkpoint in `workdir`, a checkpoint of another network, or other data than the
        network was trained for.
    """
    # All of it before the data, which may take minutes: training that goes on replaces its checkpoints.
    stored = read_run(workdir, step=step, accept=_require_same_division)
    prepared = prepare_data(stored.settings.data, listener)
    require_same_data(stored, prepared)
    return Trained(**vars(stored), prepared=prepared)


def require_same_data(stored: Stored, prepared: PreparedDataset) -> None:
    """Refuse data that the network was not trained on, as nothing is known of who in it is unseen.

    Raises:
      InputError: it is other data.
    """
    fingerprint = stored.about["data_fingerprint"]
    if fingerprint != prepared.fingerprint:
        raise InputError(
            f"The checkpoint was trained on data with fingerprint {fingerprint[:12]}; "
            f"{prepared.folder} has {prepared.fingerprint[:12]}: its test identities may be training identities of "
            "this network. Point data_dir and prepared_dir of the run's config.json to the data it was trained on."
        )


def _require_same_division(facts: dict[str, Any], settings: Settings) -> None:
    """Refuse a checkpoint of another data set or trial before that data is even looked for."""
    trained = facts["settings"]["data"]
    ours, theirs = (settings.data.dataset, settings.data.trial), (trained["dataset"], trained["trial"])
    if ours != theirs:
        names = [dataset if trial is None else f"{dataset} trial {trial}" for dataset, trial in (theirs, ours)]
        raise InputError(
            f"The checkpoint was trained on {names[0]}, and the run's config.json says {names[1]}: test identities "
            f"there may be training identities of this network. Say {names[0]} again (data.dataset, data.trial), or "
            f"train on {names[1]}."
        )
