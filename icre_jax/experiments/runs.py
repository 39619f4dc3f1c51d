"""Rows and runs: what is trained, in which folder, and what a finished run says."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.evals.results import ProtocolResult, read_results
from icre_jax.experiments.removal import read_removed
from icre_jax.files.json_files import parse_json
from icre_jax.files.texts import read_text
from icre_jax.settings import differences, parse, read_config_json
from icre_jax.settings.fields import Settings

_MEASURED = ("mean", "std", "cmc")  # fields of a result that a run decides; all others are conditions


@dataclasses.dataclass(frozen=True)
class Row:
    """A configuration with a name, trained once per seed: a line of the tables.

    Attributes:
      name: also the name of its folder.
      label: for people.
      flags: what makes it, as the flags of `icre_jax.train`, without the seed; "--config=FILE" first.
      settings: what the flags say; the seed is set by the run.
      reset_fields: fields in which its variant has a recipe of its own, here replaced by that of the other rows.
    """

    name: str
    label: str
    flags: tuple[str, ...]
    settings: Settings
    reset_fields: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Run:
    """One row with one seed.

    Attributes:
      row: what to train.
      seed: of initialisation, sampling and augmentation; the data is the same for all.
      folder: its work folder.
    """

    row: Row
    seed: int
    folder: Path

    @property
    def settings(self) -> Settings:
        """What its config.json says."""
        return self.row.settings.model_copy(update={"seed": self.seed})

    @property
    def arguments(self) -> list[str]:
        """What follows `python` on the command line that trains it."""
        config, *fields = self.row.flags
        words = ["--config", config.removeprefix("--config="), *fields, f"--config.seed={self.seed}"]
        return ["-m", "icre_jax.train", *words, "--workdir", str(self.folder)]


@dataclasses.dataclass(frozen=True)
class RunScore:
    """What a finished run says.

    Attributes:
      row, seed: which run.
      result: the headline setting (first of results.json) after the last step.
      num_steps: how long it trained.
      num_parameters: trained numbers of its network.
      seconds: of training, without compiling, scoring and saving; over all starts of the run.
      data_fingerprint: of the data.
      without: part of the network -> `result` of the same network with this part taken out, as far as it was scored.
    """

    row: str
    seed: int
    result: ProtocolResult
    num_steps: int
    num_parameters: int
    seconds: float
    data_fingerprint: str
    without: Mapping[str, ProtocolResult] = dataclasses.field(default_factory=dict)

    @property
    def setting(self) -> str:
        """Name of the setting, e.g. "all/single"."""
        return next(iter(self.result.scalars())).rpartition("/")[0]


def make_runs(rows: Sequence[Row], seeds: Sequence[int], out: Path) -> list[Run]:
    """Every row with every seed; seed by seed, so that a table of all rows is there early."""
    return [make_run(row, seed, out) for seed in seeds for row in rows]


def make_run(row: Row, seed: int, out: Path) -> Run:
    """A run in its place below `out`."""
    return Run(row, seed, out / row.name / f"seed_{seed}")


def find_runs(out: Path) -> list[tuple[str, int]]:
    """(name of the row, seed) of every work folder in `out`, finished or not, sorted."""
    found = []
    for config in out.glob("*/seed_*/config.json"):
        seed = config.parent.name.removeprefix("seed_")
        if seed.isascii() and seed.isdecimal():
            found.append((config.parent.parent.name, int(seed)))
    return sorted(found)


def require_same_config(run: Run) -> None:
    """Refuse a work folder of other settings.

    Raises:
      InputError: it holds a run of other settings; says which.
    """
    config = run.folder / "config.json"
    if not config.is_file():
        return
    changed = differences(read_config_json(config), run.settings)
    if changed:
        raise InputError(
            f"{run.folder} is a run of another config:\n{join_findings(changed)}\n"
            "Use the same config and fields to continue it, or another --out."
        )


def read_score(run: Run) -> RunScore | None:
    """The scores of a finished run; None if there are none yet, or those of other settings or of another checkpoint.

    Raises:
      InputError: its files are damaged.
    """
    if not (run.folder / "results.json").is_file():
        return None
    results, provenance = read_results(run.folder)
    try:
        # Only a run that has come to its end writes of its last step.
        finished = provenance["checkpoint"] == "last"
        if not finished or differences(parse(provenance["settings"]), run.settings):
            return None
        lines = read_text(run.folder / "timing.jsonl").splitlines()
        seconds = sum(float(parse_json(line)["seconds"]) for line in lines)
        return RunScore(
            row=run.row.name,
            seed=run.seed,
            result=results[0],
            num_steps=provenance["step"],
            num_parameters=provenance["num_parameters"],
            seconds=seconds,
            data_fingerprint=provenance["data_fingerprint"],
            without=_without(run, results[0], provenance),
        )
    except (UnreadableError, KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"{run.folder} is damaged ({error!r}). Move it away; the run will be repeated.") from error


def conditions_of(result: ProtocolResult) -> dict[str, Any]:
    """Everything that a result says about how it was scored."""
    return {name: value for name, value in dataclasses.asdict(result).items() if name not in _MEASURED}


def _without(run: Run, whole: ProtocolResult, provenance: Mapping[str, Any]) -> dict[str, ProtocolResult]:
    """Results without a part, as far as they are of the same network on the same images, and scored alike."""
    without = {}
    for part, (result, facts) in read_removed(run.folder, run.settings).items():
        same = all(facts.get(name) == provenance[name] for name in ("step", "data_fingerprint"))
        # After a comma their feature says which part is missing: "embeddings, masks taken out".
        alike = conditions_of(result) | {"feature": result.feature.split(", ")[0]} == conditions_of(whole)
        if same and alike:
            without[part] = result
    return without
