"""The points of a sweep: a config with some of its fields set to other values."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from icre_jax.errors import InputError
from icre_jax.experiments.runs import Row
from icre_jax.machine import command
from icre_jax.settings import flatten, resolve_paths
from icre_jax.settings.fields import Settings

# lambda and rho_1 of the ICG loss: docs/method.md, ICG loss.
DEFAULT = {
    "loss.icg_weight": ["0.2", "0.5", "1.0", "1.5", "2.0"],
    "loss.icg_rho1": ["0.1", "0.3", "0.5", "0.7", "0.9"],
}
OWN = "config"  # the folder of the point where no field has another value than the config's own
# Why a field may not be varied.
_REFUSED = {
    "perturbation": "it changes nothing but chance; `icre_jax.noise` trains a config with several",
    "seed": "every point is trained with each of --seeds",
    "name": "it is the name of the config",
    "pretrained": "it is a path; give each file a sweep of its own, with --config.pretrained",
    "init_from": "it is a path; give each network a sweep of its own, with --config.init_from",
    "data.data_dir": "it is a path; give each data set a sweep of its own, with --config.data.data_dir",
    "data.prepared_dir": "it is a path; set it with --config.data.prepared_dir",
    "data.dataset": "scores on other data cannot be compared",
    "data.trial": "scores on other data cannot be compared",
    "data.synthetic.": "scores on other data cannot be compared",
    "data.frames_per_track": "it is part of the protocol: the gallery has that many frames of a track",
    "evaluation.num_trials": "scores of another protocol cannot be compared",
    "evaluation.exclude_same_camera": "scores of another protocol cannot be compared",
}


def read_variations(texts: Sequence[str]) -> dict[str, list[str]]:
    """Field -> values, of "FIELD=V1,V2,..." each.

    Raises:
      InputError: a text of another form, or a field that stands there twice.
    """
    variations: dict[str, list[str]] = {}
    for text in texts:
        field, equals, values = text.partition("=")
        words = [word.strip() for word in values.split(",")]
        if not (field and equals and all(words)):
            raise InputError(
                f"--vary {text!r} is no field with values. Give for example --vary loss.icg_weight=0.5,1.0"
            )
        field = field.removeprefix("config.")
        if field in variations:
            raise InputError(f"--vary names {field} twice. Give all of its values at once, separated by commas.")
        variations[field] = words
    return variations


@dataclasses.dataclass(frozen=True)
class Space:
    """The config of a sweep, from which every point is made.

    Attributes:
      flags: "--config=FILE" and fields for all points.
      settings: what they say.
    """

    flags: tuple[str, ...]
    settings: Settings

    @classmethod
    def open(cls, flags: Sequence[str]) -> "Space":
        """The config of the flags.

        Raises:
          InputError: it cannot be used, or sets the seed.
        """
        if any(flag.startswith("--config.seed=") for flag in flags):
            raise InputError("The seed is set for each run. Give --seeds 0,1,2 in place of --config.seed.")
        return cls(tuple(flags), command.read_config(flags))

    def own(self, field: str) -> Any:
        """The config's own value of a field."""
        return flatten(self.settings)[field]

    def changed(self, point: Row) -> dict[str, Any]:
        """Field -> value, of the fields in which a point is not the config itself."""
        own, values = flatten(resolve_paths(self.settings)), flatten(point.settings)
        return {field: value for field, value in values.items() if value != own[field]}

    def make(self, values: Mapping[str, Any]) -> Row:
        """The point with these values, read as the command line reads them.

        Values that are the config's own change nothing and are not part of the point's name: a point has one name,
        whichever fields are varied around it.

        Raises:
          InputError: the config refuses them.
        """
        given = [f"--config.{field}={value}" for field, value in values.items()]
        settings = command.read_config([*self.flags, *given])
        read = flatten(settings)
        changed = {field: read[field] for field in sorted(values) if read[field] != self.own(field)}
        words = [f"{field}={value}" for field, value in changed.items()]
        return Row(
            name=",".join(f"{field}={quote(str(value), safe='+')}" for field, value in changed.items()) or OWN,
            label=", ".join(words) or "the config itself",
            flags=(*self.flags, *(f"--config.{word}" for word in words)),
            settings=resolve_paths(settings),
        )

    def parse(self, name: str) -> Row | None:
        """The point of a folder; None for a folder of another kind, or of another config's sweep."""
        pairs = [pair.partition("=") for pair in name.split(",")] if name != OWN else []
        values = {field: unquote(value) for field, _, value in pairs}
        if not values.keys() <= flatten(self.settings).keys():
            return None
        try:
            row = self.make(values)
        except InputError:
            return None
        return row if row.name == name else None

    def require_variable(self, field: str, values: Sequence[str]) -> None:
        """Try every value of a field by itself, before anything is trained.

        Raises:
          InputError: the field is unknown or may not be varied, the config refuses a value, or two values are the same.
        """
        known = flatten(self.settings)
        if field not in known:
            group = [name for name in known if name.startswith(f"{field.rpartition('.')[0]}.")]
            allowed = (
                f"allowed are for example {', '.join(group)}" if group else "see configs/base.py for those there are"
            )
            raise InputError(f"--vary {field}: there is no such field; {allowed}.")
        for name, reason in _REFUSED.items():
            if field == name or (name.endswith(".") and field.startswith(name)):
                raise InputError(f"--vary {field}: it cannot be varied, because {reason}.")
        if isinstance(known[field], tuple):
            raise InputError(
                f"--vary {field}: it holds several values, {known[field]}; only a field of one number, word or "
                "True/False can be varied. Make a variant in a config file of your own."
            )
        seen: dict[Any, str] = {}
        for value in values:
            try:
                settings = command.read_config([*self.flags, f"--config.{field}={value}"])
            except InputError as error:
                raise InputError(
                    f"--vary {field}: the config refuses {value!r}{_kind(known[field])}.\n{error}"
                ) from error
            read = flatten(settings)[field]
            if read in seen:
                raise InputError(f"--vary {field}: {seen[read]} and {value} are the same value; name it once.")
            seen[read] = value


def plan_points(space: Space, variations: Mapping[str, Sequence[str]], *, grid: bool) -> list[Row]:
    """Every point once: each field varied alone around the config, or all combinations.

    Args:
      space: the config.
      variations: field -> values.
      grid: all combinations.

    Raises:
      InputError: a field cannot be varied, or the config refuses a value or a combination.
    """
    for field, words in variations.items():
        space.require_variable(field, words)
    if grid:
        combinations = [
            dict(zip(variations, chosen, strict=True)) for chosen in itertools.product(*variations.values())
        ]
    else:
        combinations = [{field: word} for field, words in variations.items() for word in words]
    points = {}
    for values in combinations:
        try:
            point = space.make(values)
        except InputError as error:
            named = ", ".join(f"{field} = {value}" for field, value in values.items())
            raise InputError(f"--grid: the config refuses {named}.\n{error}") from error
        points[point.name] = point
    return list(points.values())


def rank(value: Any) -> tuple[bool, float, str]:
    """A key to sort values of a field by: numbers by size, then words."""
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if is_number else 0.0, str(value)


def _kind(own: Any) -> str:
    """What a field takes, where its own value tells."""
    kinds = {bool: "True or False", int: "whole numbers", float: "numbers", str: "words"}
    return f"; allowed are {kinds[type(own)]}" if type(own) in kinds else ""
