"""The runs of the ablation: what each one is, and what a finished one says."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from icre_jax.errors import InputError, join_findings
from icre_jax.evals.results import ProtocolResult, read_results
from icre_jax.experiments.rows import Row
from icre_jax.settings import Settings, differences, from_json, parse


@dataclasses.dataclass(frozen=True)
class AblationRun:
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
        """What follows `python` on its command line."""
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
    """

    row: str
    seed: int
    result: ProtocolResult
    num_steps: int
    num_parameters: int
    seconds: float
    data_fingerprint: str

    @property
    def setting(self) -> str:
        """Name of the setting, e.g. "all/single"."""
        return next(iter(self.result.scalars())).rpartition("/")[0]


def folder_of(out: Path, row: str, seed: int) -> Path:
    """The work folder of one run."""
    return out / row / f"seed_{seed}"


def find_runs(out: Path, names: Sequence[str]) -> list[tuple[str, int]]:
    """(row, seed) of every work folder of these rows that is there, finished or not."""
    found = []
    for name in names:
        for config in (out / name).glob("seed_*/config.json"):
            seed = config.parent.name.removeprefix("seed_")
            if seed.isdecimal():
                found.append((name, int(seed)))
    return sorted(found, key=lambda run: (names.index(run[0]), run[1]))


def require_same_ablation(run: AblationRun) -> None:
    """Refuse a work folder of other settings.

    Raises:
      InputError: it holds a run of other settings; says which.
    """
    config = run.folder / "config.json"
    if not config.is_file():
        return
    changed = differences(from_json(config.read_text(encoding="utf-8")), run.settings)
    if changed:
        raise InputError(
            f"{run.folder} is a run of an ablation of another config:\n{join_findings(changed)}\n"
            "Use the same config and fields to continue it, or another --out."
        )


def read_score(run: AblationRun) -> RunScore | None:
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
        lines = (run.folder / "timing.jsonl").read_text(encoding="utf-8").splitlines()
        seconds = sum(float(json.loads(line)["seconds"]) for line in lines)
        return RunScore(
            row=run.row.name,
            seed=run.seed,
            result=results[0],
            num_steps=provenance["step"],
            num_parameters=provenance["num_parameters"],
            seconds=seconds,
            data_fingerprint=provenance["data_fingerprint"],
        )
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{run.folder} is damaged ({error!r}). Move it away; the run will be repeated.") from error
