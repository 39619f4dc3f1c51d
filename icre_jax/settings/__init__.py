"""A config is checked and gets types before anything else happens; and what can be done with it then.

`icre_jax.settings.fields` has the rules of each field, `icre_jax.settings.consistency` those of several.
"""

from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder
from pydantic import BaseModel, ValidationError

from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.files.json_files import parse_json, read_json_object
from icre_jax.settings.consistency import find_contradictions
from icre_jax.settings.fields import Settings

LARGEST_CONFIG = 2**20  # bytes of a config.json; that of a run has 3,000
_LONGEST_SHOWN = 200  # characters of a value in a message
# Networks that come with the package, see `icre_jax.load`: `init_from` names them, or a place.
IN_THE_BOX = ("synthetic", "instrument")

# Fields that change how fast or how loudly a run goes, never what it computes (the door and `remat` up to rounding, as
# the number of devices does): a run may continue with others.
FREE_TO_CHANGE = (
    "parallel",
    "data.data_dir",
    "data.prepared_dir",
    "data.max_pixels",
    "data.store_resized",
    "data.num_workers",
    "data.num_threads",
    "data.synthetic.num_workers",
    "logging.",
    "model.remat",
)


def parse(config: ConfigDict | dict[str, Any]) -> Settings:
    """Check a config and give it types.

    Raises:
      InputError: naming every unknown, missing or unusable field with its value and what is allowed.
    """
    values = config.to_dict() if isinstance(config, ConfigDict) else config
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        findings = [_finding(detail) for detail in error.errors()]
        raise InputError(f"The config cannot be used:\n{join_findings(findings)}") from error
    schedule = settings.schedule
    if len(schedule.boundaries) != len(schedule.factors) or list(schedule.boundaries) != sorted({*schedule.boundaries}):
        raise InputError(
            f"schedule.boundaries {schedule.boundaries} and schedule.factors {schedule.factors} must be of one length, "
            "boundaries strictly ascending."
        )
    findings = find_contradictions(settings)
    if findings:
        raise InputError(f"The config cannot be used:\n{join_findings(findings)}")
    return settings


def resolve_paths(settings: Settings) -> Settings:
    """The same run with absolute paths, so that its config.json finds the data from any folder."""

    def absolute(path: str) -> str:
        return str(Path(path).expanduser().resolve())

    names = ("data_dir", "prepared_dir")
    data = settings.data.model_copy(update={name: absolute(getattr(settings.data, name)) for name in names})
    starts = {
        name: absolute(path)
        for name in ("pretrained", "init_from")
        if (path := getattr(settings, name)) is not None and path not in IN_THE_BOX
    }
    return settings.model_copy(update={"data": data, **starts})


def without_places(settings: Settings) -> Settings:
    """The same run with the last name alone of each path: the rest says nothing on another machine, or too much."""
    places = {name: Path(getattr(settings.data, name)).name for name in ("data_dir", "prepared_dir")}
    starts = {
        name: Path(path).name for name in ("pretrained", "init_from") if (path := getattr(settings, name)) is not None
    }
    data = settings.data.model_copy(update=places)
    return settings.model_copy(update={"data": data, **starts})


def _finding(detail: Any) -> str:
    field = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{field}: unknown field (see icre_jax/settings/fields.py for the known ones)"
    if detail["type"] == "missing":
        return f"{field}: missing"
    return f"{field} = {_shown(detail['input'])}: {detail['msg']}"


def _shown(value: Any) -> str:
    """A value as a message shows it: not all of a text, or a number, that fills a screen."""
    try:
        words = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return words if len(words) <= _LONGEST_SHOWN else f"{words[:_LONGEST_SHOWN]}... ({len(words):,} characters)"


def to_json(settings: Settings) -> str:
    """The whole run as JSON, readable by `from_json`."""
    return settings.model_dump_json(indent=2)


def to_config(settings: Settings) -> ConfigDict:
    """Inverse of `parse`: a config whose fields may be overridden on the command line, those that are None too."""
    return _to_config(settings)


def _to_config(group: BaseModel) -> ConfigDict:
    config = ConfigDict()
    for name, value in group:
        if isinstance(value, BaseModel):
            config[name] = _to_config(value)
        elif value is None:
            kinds = [_plain(kind) for kind in get_args(type(group).model_fields[name].annotation)]
            # A group that is absent stays so; a field that is, keeps its type.
            config[name] = next((placeholder(kind) for kind in kinds if kind in (str, int, float, bool)), None)
        else:
            config[name] = value
    return config


def _plain(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def from_json(text: str) -> Settings:
    """Inverse of `to_json`; raises `InputError` as `parse` does, or if it is no JSON."""
    try:
        return parse(parse_json(text))
    except ValueError as error:
        raise InputError(f"The config.json of the run is damaged ({error}). Use another workdir.") from error


def read_config_json(file: Path) -> Settings:
    """The run that a config.json describes; raises `InputError` as `from_json` does, and names the file."""
    try:
        return parse(read_json_object(file, most_bytes=LARGEST_CONFIG))
    except UnreadableError as error:
        raise InputError(
            f"The config.json of the run is damaged ({file}: {error.reason}). Use another workdir."
        ) from error


def differences(old: Settings, new: Settings) -> list[str]:
    """Fields in which two runs differ and that decide what is computed, as "name: old -> new"."""
    flat_old, flat_new = flatten(old), flatten(new)
    return [
        f"{name}: {flat_old.get(name)} -> {flat_new.get(name)}"
        for name in sorted(flat_old.keys() | flat_new.keys())
        if flat_old.get(name) != flat_new.get(name) and not name.startswith(FREE_TO_CHANGE)
    ]


def flatten(group: BaseModel | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every field of a run or of one of its groups (or of these as plain data) by its full name, "model.mpfr.taps"."""
    flat: dict[str, Any] = {}
    for key, value in group.items() if isinstance(group, dict) else group:
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, BaseModel | dict) else {name: value}
    return flat
