"""What an evaluation leaves: one record per setting, in results.json and results.csv, for machines.

Every number is a fraction in [0, 1]; percent is for people (`icre_jax.evals.tables`).
"""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax.errors import InputError, UnreadableError
from icre_jax.evals.ranking import Scores
from icre_jax.files import write_file
from icre_jax.files.json_files import read_json

# Raise when a field changes its meaning, is added or removed.
SCHEMA_VERSION = 2
# Metric, as files spell it -> as people read it.
METRIC_NAMES = {
    "rank1": "Rank-1",
    "rank5": "Rank-5",
    "rank10": "Rank-10",
    "rank20": "Rank-20",
    "mAP": "mAP",
    "mINP": "mINP",
}
METRICS = tuple(METRIC_NAMES)
CMC_LENGTH = 20


@dataclass(frozen=True)
class ProtocolResult:
    """One setting of one protocol, summarised over its trials; fractions in [0, 1].

    Attributes:
      protocol: by whose rules, e.g. "SYSU-MM01".
      setting: of the protocol, e.g. "all/single".
      dataset: the data the numbers are about; the published name of a data set only for the real one.
      gallery_source: who drew the galleries, e.g. "python-random".
      direction: e.g. "infrared->visible", query first.
      feature: which output of the network was compared.
      flip: whether the mirrored image was averaged in.
      reranking: whether the ranking was refined by k-reciprocal neighbours.
      num_trials: gallery draws summarised here; 1 where nothing is drawn.
      num_queries, num_valid_queries: all, and those with a true match left, which are the ones that count.
      mean, std: per metric of `METRICS`, over the trials. std is the spread of these very trials (divisor num_trials).
      cmc: Rank-1 to Rank-20, mean over the trials.
      chance: the Rank-1 to expect of a random ranking of the same galleries, mean over the trials.

    Raises:
      ValueError: a metric is missing, or a number is not a fraction.
    """

    protocol: str
    setting: str
    dataset: str
    gallery_source: str
    direction: str
    feature: str
    flip: bool
    reranking: bool
    num_trials: int
    num_queries: int
    num_valid_queries: int
    mean: dict[str, float]
    std: dict[str, float]
    cmc: list[float]
    chance: float

    def __post_init__(self) -> None:
        for field in fields(self):
            kind = {"str": str, "bool": bool, "int": int}.get(str(getattr(field.type, "__name__", field.type)))
            if kind is not None and type(getattr(self, field.name)) is not kind:
                raise ValueError(f"{field.name} is {str(getattr(self, field.name))[:100]!r}, no {kind.__name__}.")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if set(values) != set(METRICS):
                raise ValueError(f"{name} must hold {', '.join(METRICS)}, not {', '.join(values)}.")
        if len(self.cmc) != CMC_LENGTH:
            raise ValueError(f"cmc must hold {CMC_LENGTH} ranks, not {len(self.cmc)}.")
        for value in (*self.mean.values(), *self.std.values(), *self.cmc, self.chance):
            if not 0 <= value <= 1:
                raise ValueError(f"{value} is not a fraction from 0 to 1.")

    def scalars(self) -> dict[str, float]:
        """{"all/single/rank1": mean, ..., "all/single/mINP": mean}: the names checkpoint selection and logs use."""
        return {f"{self.setting}/{metric}": self.mean[metric] for metric in METRICS}


def summarize(
    trials: Sequence[Scores],
    *,
    protocol: str,
    setting: str,
    dataset: str,
    gallery_source: str,
    direction: str,
    feature: str,
    flip: bool,
    reranking: bool,
) -> ProtocolResult:
    """Mean and standard deviation over the trials of one setting; the labels are kept as given.

    Raises:
      ValueError: no trial, fewer than 20 ranks, or trials that do not count the same number of queries.
    """
    counts = {(trial.num_queries, trial.num_valid_queries) for trial in trials}
    if len(counts) != 1:
        # A draw takes an image from every folder, so which queries have a match cannot depend on the trial.
        raise ValueError(f"The trials must agree on (queries, valid queries), they have {sorted(counts)}.")
    ((num_queries, num_valid_queries),) = counts
    # [T, 6], in the order of METRICS.
    values = np.array([[*(t.rank(k) for k in (1, 5, 10, 20)), t.mAP, t.mINP] for t in trials])
    return ProtocolResult(
        protocol=protocol,
        setting=setting,
        dataset=dataset,
        gallery_source=gallery_source,
        direction=direction,
        feature=feature,
        flip=flip,
        reranking=reranking,
        num_trials=len(trials),
        num_queries=num_queries,
        num_valid_queries=num_valid_queries,
        mean=dict(zip(METRICS, values.mean(axis=0).tolist(), strict=True)),
        std=dict(zip(METRICS, values.std(axis=0).tolist(), strict=True)),
        cmc=np.mean([t.cmc[:CMC_LENGTH] for t in trials], axis=0).tolist(),
        chance=float(np.mean([t.chance for t in trials])),
    )


def to_document(results: Sequence[ProtocolResult], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The content of results.json: schema version, provenance (JSON-able, the caller's) and the results."""
    return {
        "schema_version": SCHEMA_VERSION,
        "provenance": dict(provenance),
        "results": [asdict(result) for result in results],
    }


def from_document(document: Mapping[str, Any]) -> tuple[list[ProtocolResult], dict[str, Any]]:
    """The results and the provenance of `to_document`.

    Raises:
      InputError: another schema version, or records that are not complete.
    """
    version = document.get("schema_version") if isinstance(document, Mapping) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"These results have schema version {version}; this icre_jax reads {SCHEMA_VERSION}. Evaluate again."
        )
    try:
        return from_records(document["results"]), dict(document["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"These results are damaged ({error}). Evaluate again.") from error


def from_records(records: Sequence[Mapping[str, Any]]) -> list[ProtocolResult]:
    """Results of what `dataclasses.asdict` made of them.

    Raises:
      KeyError, TypeError, ValueError, AttributeError: they are damaged.
    """
    return [ProtocolResult(**record) for record in records]


def write_results(
    folder: str | os.PathLike[str], results: Sequence[ProtocolResult], provenance: Mapping[str, Any]
) -> None:
    """Write results.json and results.csv into `folder` (created), each whole or not at all.

    Args:
      folder: where to; files of an earlier evaluation are replaced.
      results: one row of the csv each.
      provenance: JSON-able: checkpoint, configuration, versions, command. Its strings and numbers become columns.

    Raises:
      InputError: the folder cannot be written.
      TypeError, ValueError: provenance cannot be stored as JSON; nothing has been written then.
    """
    texts = {
        "results.json": json.dumps(to_document(results, provenance), indent=2, allow_nan=False) + "\n",
        "results.csv": _to_csv(results, provenance),
    }
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_file(folder / name, text)
    except OSError as error:
        raise InputError(
            f"The results cannot be written to {folder}: {error}. Give a folder you may write to."
        ) from error


def read_results(folder: str | os.PathLike[str]) -> tuple[list[ProtocolResult], dict[str, Any]]:
    """What `write_results` left in `folder`: the results and their provenance.

    Raises:
      InputError: no readable results.json, or not one of this schema.
    """
    path = Path(folder) / "results.json"
    try:
        document = read_json(path)
    except UnreadableError as error:
        raise InputError(f"{error} It is written by an evaluation.") from error
    return from_document(document)


def _to_csv(results: Sequence[ProtocolResult], provenance: Mapping[str, Any]) -> str:
    """One row per setting: labels and counts, chance, mean and std of every metric, the plain facts of the provenance.

    The cmc and nested facts are in the json.
    """
    facts = {name: value for name, value in provenance.items() if isinstance(value, str | int | float)}
    facts = {name: value for name, value in facts.items() if name not in ProtocolResult.__dataclass_fields__}
    labels = [field.name for field in fields(ProtocolResult) if field.name not in ("mean", "std", "cmc")]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(labels + [f"{metric}_{kind}" for metric in METRICS for kind in ("mean", "std")] + [*facts])
    for result in results:
        values = [getattr(result, label) for label in labels]
        numbers = [kind[metric] for metric in METRICS for kind in (result.mean, result.std)]
        writer.writerow(values + numbers + [*facts.values()])
    return stream.getvalue()
