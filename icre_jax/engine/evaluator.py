"""Scoring a network on the test images of a data set: the one evaluator, for a run on its way and for a checkpoint."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from jax.sharding import Mesh

from icre_jax.data.listener import Listener
from icre_jax.data.permutations import hash_permutations, read_permutations
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.prepared import PreparedDataset
from icre_jax.data.tracks import choose_frames
from icre_jax.datasets import OTHER, Modality
from icre_jax.engine import provenance
from icre_jax.engine.elsewhere import OtherData, open_to_score
from icre_jax.engine.embedder import embed_records
from icre_jax.engine.trained import Trained
from icre_jax.errors import InputError
from icre_jax.evals import VALIDATION, choose_protocol
from icre_jax.evals.galleries import OFFICIAL
from icre_jax.evals.latex import write_latex
from icre_jax.evals.protocol import evaluate
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import ProtocolResult, write_results
from icre_jax.evals.tracks import average_tracks
from icre_jax.models import removal
from icre_jax.models.network import ReIDNetwork
from icre_jax.settings.fields import Settings


@dataclasses.dataclass(frozen=True)
class Measure:
    """How test images are turned into scores; the defaults are the field's.

    Attributes:
      feature: which output of the network is compared: "embeddings" after the BN neck, or the pooled "features" before.
      flip: average in the mirrored image.
      reranking: refine every ranking by k-reciprocal neighbours. Not comparable with numbers without it.
      gallery_source: "official" or "python-random"; None for the official galleries where the data holds them.
      without: a part of the network that is taken out first, see `icre_jax.models.removal`; None for none.
    """

    feature: Literal["embeddings", "features"] = "embeddings"
    flip: bool = False
    reranking: bool = False
    gallery_source: Literal["official", "python-random"] | None = None
    without: str | None = None

    @property
    def label(self) -> str:
        """What differs from the defaults, e.g. "features_flip"; "" for nothing. A name for a folder."""
        parts = [
            self.feature if self.feature != "embeddings" else "",
            "flip" if self.flip else "",
            "reranking" if self.reranking else "",
            self.gallery_source or "",
            f"without_{self.without}" if self.without else "",
        ]
        return "_".join(part for part in parts if part)


class Evaluator:
    """The test images of a data set, ready to be embedded and scored any number of times.

    Attributes:
      protocol: by which they are scored.
      sources: the images of each modality; of a track the one frame that stands for it.
      official_draws: SHA-256 of the published gallery draws, where its galleries are these; None otherwise.
    """

    def __init__(
        self,
        network: ReIDNetwork,
        prepared: PreparedDataset,
        settings: Settings,
        measure: Measure | None = None,
        *,
        mesh: Mesh | None = None,
        validation: bool = False,
        trained_on: str | None = None,
    ):
        """Open the images.

        Args:
          network: what embeds.
          prepared: the data set.
          settings: of the run.
          measure: how to score; None for the field's way.
          mesh: devices that share the work, of all processes; None for the one that holds the variables.
          validation: score the validation identities instead of the test identities.
          trained_on: what the network was trained on, if that is other data; the results then say so.

        Raises:
          InputError: the data does not have the gallery source asked for.
        """
        self._network = network
        self._measure = measure or Measure()
        self._settings = settings
        self._mesh = mesh
        self._dataset = provenance.dataset_label(prepared, trained_on)
        splits = ("val",) if validation else ("query", "gallery")
        # Which of the splits is visible differs between data sets; each may be of both modalities.
        images = {modality: RecordSource(prepared, splits, modality=modality) for modality in OTHER}
        self._embedded: dict[Modality, RecordSource] = {
            modality: source
            if source.index.track is None
            else source.select(choose_frames(source.index.track, settings.data.frames_per_track))
            for modality, source in images.items()
        }
        # Of data sets of tracks: rows of `_embedded`.
        self._shown = {
            modality: choose_frames(source.index.track, 1)
            for modality, source in self._embedded.items()
            if source.index.track is not None
        }
        self.sources: dict[Modality, RecordSource] = {
            modality: source.select(self._shown[modality]) if modality in self._shown else source
            for modality, source in self._embedded.items()
        }
        if validation:
            self._dataset += ", validation identities"
            self.protocol = VALIDATION[prepared.dataset]
            self.official_draws = None
            return
        present = {(split, modality) for modality, source in self.sources.items() for split in source.split.tolist()}
        permutations = read_permutations(prepared.folder)
        self.protocol = choose_protocol(
            prepared.dataset,
            permutations,
            self._measure.gallery_source,
            exclude_same_camera=settings.evaluation.exclude_same_camera,
            frames_per_track=settings.data.frames_per_track,
        ).restrict(present)
        official = any(setting.gallery_source == OFFICIAL for setting in self.protocol.settings)
        self.official_draws = hash_permutations(permutations) if permutations and official else None

    def embed(self, variables: Any) -> dict[Modality, Embedded]:
        """All images, each by the stem of its modality, rows in the order of the index; of tracks a row for each."""
        if self._measure.without:
            variables = removal.without(variables, self._measure.without)
        found = {
            modality: embed_records(
                self._network,
                variables,
                source,
                modality,
                data=self._settings.data,
                batch_size=self._settings.evaluation.batch_size,
                feature=self._measure.feature,
                flip=self._measure.flip,
                mesh=self._mesh,
            )
            for modality, source in self._embedded.items()
        }
        for modality, shown in self._shown.items():
            track = self._embedded[modality].index.track
            assert track is not None
            found[modality] = average_tracks(found[modality], track, shown)
        return found

    def score(self, embedded: dict[Modality, Embedded]) -> list[ProtocolResult]:
        """Every setting of the protocol, from one embedding pass."""
        without = self._measure.without
        return evaluate(
            self.protocol,
            embedded,
            dataset=self._dataset,
            num_trials=self._settings.evaluation.num_trials,
            feature=self._measure.feature + (f", {without} taken out" if without else ""),
            flip=self._measure.flip,
            reranking=self._measure.reranking,
        )


def make_evaluators(
    network: ReIDNetwork,
    prepared: PreparedDataset,
    settings: Settings,
    measure: Measure | None = None,
    *,
    mesh: Mesh | None = None,
) -> tuple[Evaluator, ...]:
    """Of the test identities of a run's own data, and of its validation identities if they choose its best checkpoint.

    Args:
      network, prepared, settings, measure, mesh: as of `Evaluator`.

    Raises:
      InputError: as `Evaluator`.
    """
    halves = (False, True) if settings.checkpoint.best_metric.startswith("val/") else (False,)
    return tuple(Evaluator(network, prepared, settings, measure, mesh=mesh, validation=half) for half in halves)


def evaluate_checkpoint(
    workdir: Path,
    *,
    step: int | None,
    out: Path,
    listener: Listener,
    measure: Measure | None = None,
    other: OtherData | None = None,
) -> list[ProtocolResult]:
    """Score one checkpoint of a run and write its results.

    Args:
      workdir: of the run; with other data also an export, or the name of a network that comes with the package.
      step: which checkpoint; None for the latest.
      out: folder for results.json, results.csv and results.tex.
      listener: who is told how it goes.
      measure: how to score; None for the field's way.
      other: data to score on in the place of the run's own.

    Raises:
      InputError: no run or no such checkpoint in `workdir`, a checkpoint of another network, or other data than the
        network was trained for; of data given as other, see `icre_jax.engine.elsewhere.open_elsewhere`.
    """
    trained = open_to_score(workdir, other, step=step, listener=listener)
    listener.say(f"Scoring step {trained.step} of {workdir}")
    return _score_and_write(trained, measure, out, checkpoint="latest" if step is None else "chosen")


def evaluate_without(
    workdir: Path,
    *,
    parts: Sequence[str] | None,
    step: int | None,
    out: Callable[[Measure], Path],
    listener: Listener,
    measure: Measure | None = None,
    other: OtherData | None = None,
) -> dict[str, list[ProtocolResult]]:
    """Score one checkpoint with each of some parts taken out, one at a time.

    Args:
      workdir, step, listener, measure, other: as of `evaluate_checkpoint`.
      parts: of `icre_jax.models.removal.PARTS`; None for all that the network has.
      out: folder for the results of a measure.

    Returns:
      Part -> results.

    Raises:
      InputError: as `evaluate_checkpoint`; or the network has none of these parts.
    """
    trained = open_to_score(workdir, other, step=step, listener=listener)
    there = removal.parts_of(trained.variables["params"])
    missing = [part for part in parts or () if part not in there]
    if missing or not there:
        what = ", ".join(missing) or "part that can be taken out"
        raise InputError(f"The network of {workdir} has no {what}; it has {', '.join(there) or 'none'}.")
    found = {}
    for part in parts or there:
        listener.say(f"Scoring step {trained.step} of {workdir} without {part}: {removal.PARTS[part]}")
        reduced = dataclasses.replace(measure or Measure(), without=part)
        label = "latest" if step is None else "chosen"
        found[part] = _score_and_write(trained, reduced, out(reduced), checkpoint=label)
    return found


def _score_and_write(trained: Trained, measure: Measure | None, out: Path, *, checkpoint: str) -> list[ProtocolResult]:
    facts, what = trained.elsewhere, (trained.network, trained.prepared, trained.settings, measure)
    evaluators = make_evaluators(*what) if facts is None else (Evaluator(*what, trained_on=facts["trained_on"]),)
    results = [result for each in evaluators for result in each.score(each.embed(trained.variables))]
    facts = facts or {}
    facts |= provenance.collect(trained.settings, trained.prepared, step=trained.step, checkpoint=checkpoint)
    write_results(out, results, facts | {"init_from": trained.about.get("init_from")})
    write_latex(out, results)
    return results
