"""A trained network as it lies on disk, read without any of its data: the workdir of a run, or an export.

An export is a folder of

    config.json           the settings of the run, without the places of its machine
    classes.json          the step, and the identity of each class
    provenance.json       what is known of how it was made, and the hash of the network in each of its forms
    README.md             the same for people: the model card
    variables/            parameters and BatchNorm statistics, an orbax checkpoint
    network.safetensors   the same in one file, kernels in float16 where that was asked for
    SHA256SUMS            the hash of every file but the card

with one or both of `variables` and `network.safetensors`. Nothing of it is code, every file that is read was compared
with its hash before, and the arrays with the one of their network after. That finds damage and mix-ups; it is no
signature.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np

import icre_jax
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.checkpoint.following import read_checkpoint
from icre_jax.engine.checkpoint.variables import read_variables
from icre_jax.engine.provenance import describe_run
from icre_jax.engine.state import create_variables
from icre_jax.engine.tensors import read_tensors
from icre_jax.errors import InputError, UnreadableError
from icre_jax.files.json_files import read_json_object
from icre_jax.models.network import ReIDNetwork, build_network
from icre_jax.models.removal import parts_of
from icre_jax.settings import IN_THE_BOX, parse, read_config_json
from icre_jax.settings.fields import Settings
from icre_jax.sums import find_damage

BOX = Path(icre_jax.__file__).parent / "box"
CONFIG, CLASSES, PROVENANCE = "config.json", "classes.json", "provenance.json"
VARIABLES, TENSORS, PROGRAMS = "variables", "network.safetensors", "stablehlo.json"
_FORM_OF = {VARIABLES: "orbax", TENSORS: "safetensors"}
_AGAIN = "Take another copy, or export the run again."
_HOW = (
    f"Give the workdir of a run, a folder that `python -m icre_jax.export` wrote, or the name of a network that comes "
    f"with the package: {', '.join(IN_THE_BOX)}."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """A network read from disk.

    Attributes:
      settings: of its run.
      step: of its checkpoint.
      network, variables: what `network.apply` takes, float32 on the first device of this process.
      class_pids: class -> identity of the training data.
      about: what is known of how it was made, JSON-able; see `icre_jax.engine.provenance.describe_run`.
      is_export: whether it is an export, whose settings have the last name alone of every place.
    """

    settings: Settings
    step: int
    network: ReIDNetwork
    variables: dict[str, Any]
    class_pids: list[int]
    about: dict[str, Any]
    is_export: bool

    @property
    def parts(self) -> list[str]:
        """What can be taken out of it, of `icre_jax.models.removal.PARTS`."""
        return parts_of(self.variables["params"])


def read_stored(path: str | Path, *, step: int | None = None) -> Stored:
    """The network at `path`.

    Args:
      path: a workdir, an export (of two forms orbax is taken), one of the forms in it, or, as a string, the name of a
        network in the box.
      step: which checkpoint of a workdir; None for the latest.

    Raises:
      InputError: nothing of that kind is there, or it is damaged, was changed, or is of another network than it says.
    """
    place = place_of(path)
    if place.is_dir() and (place / "checkpoints").is_dir():
        return read_run(place, step=step)
    one = place.name in _FORM_OF and (place.parent / CONFIG).is_file()
    folder = place.parent if one else place
    forms = [name for name in ([place.name] if one else _FORM_OF) if (folder / name).exists()]
    if not forms and (folder / PROGRAMS).is_file():
        raise InputError(
            f"{path} holds StableHLO files only, which embed images without this package (docs/export.md). Export the "
            "run again with --format safetensors,stablehlo."
        )
    if not forms or not (folder / CONFIG).is_file():
        raise InputError(f"{path} holds no trained network. {_HOW}")
    if step is not None:
        raise InputError(f"{path} is an export and holds one step; a step ({step}) can be chosen of a workdir only.")
    return _read_export(folder, forms[0])


def place_of(path: str | Path) -> Path:
    """Where a network lies that is given by its path or, as a string, by its name in the box."""
    return BOX / path if isinstance(path, str) and path in IN_THE_BOX else Path(path).expanduser()


def read_run(
    workdir: Path, *, step: int | None = None, accept: Callable[[dict[str, Any], Settings], None] | None = None
) -> Stored:
    """One checkpoint of a run.

    Args:
      workdir: of the run, which may be training on.
      step: which checkpoint; None for the latest.
      accept: called with the facts of the checkpoint and the settings of the run; raises if they do not fit.

    Raises:
      InputError: no run or no such checkpoint in `workdir`, or a checkpoint of another network; or what `accept` says.
    """
    settings = read_settings(workdir)

    @functools.cache  # tracing takes longer than reading: once, however often a checkpoint is replaced meanwhile
    def build(num_classes: int) -> tuple[ReIDNetwork, dict[str, Any]]:
        network = build_network(settings, num_classes)
        return network, shapes_of(network, settings.data.image_size)

    def read(checkpoints: Checkpoints, chosen: int) -> tuple[int, dict[str, Any], ReIDNetwork, dict[str, Any]]:
        facts = checkpoints.read_facts(chosen)
        if accept is not None:
            accept(facts, settings)
        network, shapes = build(len(facts["class_pids"]))
        return chosen, facts, network, checkpoints.restore_variables(chosen, shapes)

    chosen, facts, network, variables = read_checkpoint(workdir, step, read)
    about = describe_run(settings, facts, workdir=workdir, step=chosen)
    return Stored(settings, chosen, network, variables, facts["class_pids"], about, is_export=False)


def read_settings(workdir: Path) -> Settings:
    """What the run in `workdir` was told to do.

    Raises:
      InputError: it is not the workdir of a run, or its config.json is damaged.
    """
    config_file = workdir / CONFIG
    if not config_file.is_file():
        raise InputError(f"{workdir} is not the workdir of a run: {config_file} is missing.")
    return read_config_json(config_file)


def shapes_of(network: ReIDNetwork, image_size: tuple[int, int]) -> dict[str, Any]:
    """Shapes of the network's variables, placed on the first device of this process.

    A checkpoint is restored to them whatever devices the network was trained on.
    """
    create = functools.partial(create_variables, network=network, image_size=image_size)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), jax.eval_shape(create, jax.numpy.int32(0))
    )


def first_variables(stored: Stored) -> dict[str, Any]:
    """Variables of the network before its first step, where its run started from random weights (and `perturbation`
    did not move them).
    """
    size, seed = stored.settings.data.image_size, stored.settings.seed
    first = jax.jit(functools.partial(create_variables, network=stored.network, image_size=size))
    return first(jax.numpy.int32(seed))


def hash_network(settings: Settings, variables: dict[str, Any]) -> str:
    """sha256, as hex, of all that decides an embedding: every array by name, the model, the size of its images.

    Equal for a run and for what was exported of it as long as no bit of an array changed.
    """
    # A field that was added later has a default, which is what older networks do: they keep their hash.
    model = settings.model.model_dump(mode="json", exclude={"remat"}, exclude_defaults=True)
    facts = {"model": model, "image_size": settings.data.image_size}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, leaf in sorted(flatten(variables).items()):
        array = np.asarray(leaf, order="C")
        digest.update(f"|{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def flatten(variables: dict[str, Any]) -> dict[str, Any]:
    """Name -> leaf, as the arrays of a safetensors file are called: "params.backbone.layer1.0.conv1.kernel"."""
    return flax.traverse_util.flatten_dict(variables, sep=".")


def unflatten(arrays: dict[str, Any]) -> dict[str, Any]:
    """Inverse of `flatten`."""
    return flax.traverse_util.unflatten_dict(arrays, sep=".")


def _read_export(folder: Path, form: str) -> Stored:
    _require_whole(folder, form)
    settings = parse(_read_json(folder / CONFIG))
    classes, about = _read_json(folder / CLASSES), _read_json(folder / PROVENANCE)
    pids, step, expected = classes.get("class_pids"), classes.get("step"), about.get("network_sha256")
    if not (isinstance(pids, list) and all(type(pid) is int for pid in pids) and pids and type(step) is int):
        raise InputError(f"{folder / CLASSES} must hold class_pids, a list of numbers, and step. {_AGAIN}")
    if not isinstance(expected, dict) or not isinstance(expected.get(_FORM_OF[form]), str):
        raise InputError(f"{folder / PROVENANCE} has no network_sha256 of {_FORM_OF[form]}. {_AGAIN}")
    network = build_network(settings, num_classes=len(pids))
    shapes = shapes_of(network, settings.data.image_size)
    if form == VARIABLES:
        variables = read_variables(folder / form, shapes)
    else:
        arrays = read_tensors(folder / form, flatten(shapes))
        variables = jax.device_put(unflatten(arrays), jax.local_devices()[0])
    found = hash_network(settings, variables)
    if found != expected[_FORM_OF[form]]:
        raise InputError(
            f"{folder / form} is of another network than {PROVENANCE} and {CONFIG} beside it: its hash is "
            f"{found[:12]}, and {expected[_FORM_OF[form]][:12]} was written. {_AGAIN}"
        )
    return Stored(settings, step, network, variables, pids, about, is_export=True)


def _require_whole(folder: Path, form: str) -> None:
    """Refuse files that are not as they were exported. Those that are not read may be changed, or left behind."""
    if findings := find_damage(folder, only=(CONFIG, CLASSES, PROVENANCE, form)):
        raise InputError(f"The export {folder} was changed or damaged since it was written: {findings[0]}. {_AGAIN}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except UnreadableError as error:
        raise InputError(f"{path} cannot be read ({error.reason}). {_AGAIN}") from error
