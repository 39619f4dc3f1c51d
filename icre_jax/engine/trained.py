"""A trained network as a run left it, with the data it may be asked about."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import optax

from icre_jax.data.prepared import PreparedDataset
from icre_jax.data.ready import Listener, prepare_data
from icre_jax.engine.checkpoint import Checkpoints, read_checkpoint
from icre_jax.engine.state import create_state
from icre_jax.errors import InputError
from icre_jax.models.network import ReIDNetwork, build_network
from icre_jax.settings import Settings, from_json


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """One checkpoint of a run.

    Attributes:
      settings: of the run.
      step: of the checkpoint.
      network, variables: what `network.apply` takes, on the first device of this process.
      class_pids: class -> identity of the data set.
      prepared: the data it was trained on; its test identities are unseen.
    """

    settings: Settings
    step: int
    network: ReIDNetwork
    variables: dict[str, Any]
    class_pids: list[int]
    prepared: PreparedDataset


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
    settings = read_settings(workdir)

    @functools.cache  # tracing takes longer than reading: once, however often a checkpoint is replaced meanwhile
    def build(num_classes: int) -> tuple[ReIDNetwork, dict[str, Any]]:
        network = build_network(settings, num_classes)
        return network, shapes_of(network, settings.data.image_size)

    def read(checkpoints: Checkpoints, chosen: int) -> tuple[int, dict[str, Any], ReIDNetwork, dict[str, Any]]:
        facts = checkpoints.read_facts(chosen)
        _require_same_division(facts["settings"]["data"], settings)
        network, shapes = build(len(facts["class_pids"]))
        return chosen, facts, network, checkpoints.restore_variables(chosen, shapes)

    # All of it before the data, which may take minutes: training that goes on replaces its checkpoints.
    chosen, facts, network, variables = read_checkpoint(workdir, step, read)
    prepared = prepare_data(settings.data, listener)
    if facts["data_fingerprint"] != prepared.fingerprint:
        raise InputError(
            f"The checkpoint was trained on data with fingerprint {facts['data_fingerprint'][:12]}; "
            f"{prepared.folder} has {prepared.fingerprint[:12]}: its test identities may be training identities of "
            "this network. Point data_dir and prepared_dir of the run's config.json to the data it was trained on."
        )
    return Trained(settings, chosen, network, variables, facts["class_pids"], prepared)


def read_settings(workdir: Path) -> Settings:
    """What the run in `workdir` was told to do.

    Raises:
      InputError: it is not the workdir of a run, or its config.json is damaged.
    """
    config_file = workdir / "config.json"
    if not config_file.is_file():
        raise InputError(f"{workdir} is not the workdir of a run: {config_file} is missing.")
    return from_json(config_file.read_text(encoding="utf-8"))


def shapes_of(network: ReIDNetwork, image_size: tuple[int, int]) -> dict[str, Any]:
    """Shapes of the network's variables, placed on the first device of this process.

    A checkpoint is restored to them whatever devices the network was trained on.
    """
    state = jax.eval_shape(
        lambda: create_state(jax.numpy.int32(0), network=network, tx=optax.identity(), image_size=image_size)
    )
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state.variables)


def _require_same_division(trained: dict[str, Any], settings: Settings) -> None:
    """Refuse a checkpoint of another data set or trial before that data is even looked for."""
    ours, theirs = (settings.data.dataset, settings.data.trial), (trained["dataset"], trained["trial"])
    if ours != theirs:
        names = [dataset if trial is None else f"{dataset} trial {trial}" for dataset, trial in (theirs, ours)]
        raise InputError(
            f"The checkpoint was trained on {names[0]}, and the run's config.json says {names[1]}: test identities "
            f"there may be training identities of this network. Say {names[0]} again (data.dataset, data.trial), or "
            f"train on {names[1]}."
        )
