"""Score a trained network: `python -m icre_jax.evaluate --workdir DIR [--checkpoint STEP]`.

Embeds every test image once, scores every setting of the protocol from that, prints the table and writes results.json,
results.csv and results.tex into the work folder (or --out). --feature, --flip, --reranking and --gallery_source measure
in another way: the results say so and go to a folder of their own, so that the run's own stay.
"""

import argparse
import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh

from icre_jax import command, provenance
from icre_jax.compile_cache import keep_compiled_programs
from icre_jax.data.permutations import read_permutations
from icre_jax.data.pipeline import RecordSource, evaluation_batches
from icre_jax.data.prepared import PreparedDataset
from icre_jax.evals import VALIDATION, choose_protocol
from icre_jax.evals.latex import write_latex
from icre_jax.evals.protocol import OTHER, Modality, evaluate
from icre_jax.evals.ranking import Embedded, average_directions
from icre_jax.evals.results import ProtocolResult, write_results
from icre_jax.evals.tables import table
from icre_jax.host_memory import keep_freed_memory
from icre_jax.models.network import ReIDNetwork
from icre_jax.parallel import gather, local_rows, spread
from icre_jax.runlog import Screen, open_console
from icre_jax.settings import Settings
from icre_jax.steps import embed_step
from icre_jax.trained import open_trained


@dataclasses.dataclass(frozen=True)
class Measure:
    """How test images are turned into scores; the defaults are the field's.

    Attributes:
      feature: which output of the network is compared: "embeddings" after the BN neck, or the pooled "features" before.
      flip: average in the mirrored image.
      reranking: refine every ranking by k-reciprocal neighbours. Not comparable with numbers without it.
      gallery_source: "official" or "python-random"; None for the official galleries where the data holds them.
    """

    feature: Literal["embeddings", "features"] = "embeddings"
    flip: bool = False
    reranking: bool = False
    gallery_source: Literal["official", "python-random"] | None = None

    @property
    def label(self) -> str:
        """What differs from the defaults, e.g. "features_flip"; "" for nothing. A name for a folder."""
        parts = [
            self.feature if self.feature != "embeddings" else "",
            "flip" if self.flip else "",
            "reranking" if self.reranking else "",
            self.gallery_source or "",
        ]
        return "_".join(part for part in parts if part)


class Evaluator:
    """The test images of a data set, ready to be embedded and scored any number of times.

    Attributes:
      protocol: by which they are scored.
      sources: the images of each modality.
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
    ):
        """Open the pictures.

        Args:
          network: what embeds.
          prepared: the data set.
          settings: of the run.
          measure: how to score; None for the field's way.
          mesh: devices that share the work, of all processes; None for the one that holds the variables.
          validation: score the validation identities instead of the test identities.

        Raises:
          InputError: the data does not have the gallery source asked for.
        """
        self._network = network
        self._measure = measure or Measure()
        self._settings = settings
        self._mesh = mesh if mesh is not None and mesh.size > 1 else None
        self._dataset = provenance.dataset_label(prepared)
        splits = ("val",) if validation else ("query", "gallery")
        # Which of the splits is visible differs between data sets; each may be of both modalities.
        self.sources: dict[Modality, RecordSource] = {
            modality: RecordSource(prepared, splits, modality=modality) for modality in OTHER
        }
        if validation:
            self._dataset += ", validation identities"
            self.protocol = VALIDATION[prepared.dataset]
            return
        present = {(split, modality) for modality, source in self.sources.items() for split in source.split.tolist()}
        self.protocol = choose_protocol(
            prepared.dataset,
            read_permutations(prepared.folder),
            self._measure.gallery_source,
            exclude_same_camera=settings.evaluation.exclude_same_camera,
        ).restrict(present)

    def embed(self, variables: Any) -> dict[Modality, Embedded]:
        """All images, each by the stem of its modality, rows in the order of the index."""
        return {modality: self._embed(variables, source, modality) for modality, source in self.sources.items()}

    def score(self, embedded: dict[Modality, Embedded]) -> list[ProtocolResult]:
        """Every setting of the protocol, from one embedding pass."""
        return evaluate(
            self.protocol,
            embedded,
            dataset=self._dataset,
            num_trials=self._settings.evaluation.num_trials,
            feature=self._measure.feature,
            flip=self._measure.flip,
            reranking=self._measure.reranking,
        )

    def _embed(self, variables: Any, source: RecordSource, modality: Modality) -> Embedded:
        settings, measure = self._settings, self._measure
        step = functools.partial(
            embed_step, variables, network=self._network, modality=modality, feature=measure.feature
        )
        mesh, batch_size, ours = self._mesh, settings.evaluation.batch_size, None
        if mesh is not None:
            batch_size = -(-batch_size // mesh.size) * mesh.size
            ours = local_rows(mesh, batch_size)

        def embed(images: np.ndarray) -> np.ndarray:
            return np.asarray(step(images)) if mesh is None else gather(step(spread(mesh, images)))

        batches = evaluation_batches(source, data=settings.data, batch_size=batch_size, rows=ours)
        rows = []
        with contextlib.closing(batches):
            for batch in batches:
                vectors = embed(batch["image"])
                if measure.flip:
                    vectors = average_directions(vectors, embed(batch["image"][:, :, ::-1]))
                mask = batch["mask"] if mesh is None else gather(spread(mesh, batch["mask"]))
                rows.append(vectors[mask])
        index = source.index
        features = np.concatenate(rows)
        return Embedded(features, pid=index.pid, camid=index.camid, path=index.path, split=source.split)


def evaluate_checkpoint(
    workdir: Path, *, step: int | None, out: Path, screen: Screen, measure: Measure | None = None
) -> list[ProtocolResult]:
    """Score one checkpoint of a run and write its results.

    Args:
      workdir: of the run.
      step: which checkpoint; None for the latest.
      out: folder for results.json, results.csv and results.tex.
      screen: where progress goes.
      measure: how to score; None for the field's way.

    Raises:
      InputError: no run or no such checkpoint in `workdir`, a checkpoint of another network, or other data than the
        network was trained for.
    """
    trained = open_trained(workdir, step=step, screen=screen)
    label = "latest" if step is None else "chosen"
    screen.say(f"Scoring step {trained.step} of {workdir}")
    evaluator = Evaluator(trained.network, trained.prepared, trained.settings, measure)
    results = evaluator.score(evaluator.embed(trained.variables))
    facts = provenance.collect(trained.settings, trained.prepared, step=trained.step, checkpoint=label)
    write_results(out, results, facts)
    write_latex(out, results)
    return results


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m icre_jax.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True, type=Path, help="work folder of a run")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="saved step; default: the latest")
    parser.add_argument(
        "--out", type=Path, help="for the results; default: the workdir, or what is asked for (e.g. step_90_flip) in it"
    )
    parser.add_argument(
        "--feature",
        choices=("embeddings", "features"),
        default="embeddings",
        help="compare the embeddings after the BN neck (default) or the pooled features before it",
    )
    parser.add_argument("--flip", action="store_true", help="average in the mirrored images")
    parser.add_argument("--reranking", action="store_true", help="k-reciprocal re-ranking (k1 20, k2 6, lambda 0.3)")
    parser.add_argument(
        "--gallery_source",
        choices=("official", "python-random"),
        help="who drew the galleries of SYSU-MM01; default: official if the data holds exp/rand_perm_cam.mat",
    )
    flags = parser.parse_args(arguments)
    keep_compiled_programs()
    keep_freed_memory()
    screen = Screen(open_console())
    measure = Measure(flags.feature, flags.flip, flags.reranking, flags.gallery_source)
    # The results of the run itself stay what they are.
    parts = [f"step_{flags.checkpoint}" if flags.checkpoint is not None else "", measure.label]
    out = flags.out or flags.workdir / "_".join(part for part in parts if part)
    try:
        results = evaluate_checkpoint(flags.workdir, step=flags.checkpoint, out=out, screen=screen, measure=measure)
    finally:
        screen.close()
    screen.console.print(table(results))
    screen.say(f"Results: {out / 'results.json'}, {out / 'results.csv'}, {out / 'results.tex'}")
    return 0


if __name__ == "__main__":
    command.run(main)
