"""Score a trained network: `python -m icre_jax.evaluate --workdir DIR [--checkpoint STEP]`.

Embeds every test image once, scores every setting of the protocol from that, prints the table and writes results.json
and results.csv into the work folder (or --out).
"""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax import command, provenance
from icre_jax.data.pipeline import RecordSource, evaluation_batches
from icre_jax.data.prepared import PreparedDataset
from icre_jax.data.records import MODALITIES
from icre_jax.evals import PROTOCOLS
from icre_jax.evals.protocol import Modality, evaluate
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import ProtocolResult, write_results
from icre_jax.evals.tables import table
from icre_jax.models.network import ReIDNetwork
from icre_jax.runlog import Screen, open_console
from icre_jax.settings import Settings
from icre_jax.steps import embed_step
from icre_jax.trained import open_trained


class Evaluator:
    """The test images of a data set, ready to be embedded and scored any number of times.

    Attributes:
      protocol: by which they are scored.
      sources: the test images of each modality.
    """

    def __init__(self, network: ReIDNetwork, prepared: PreparedDataset, settings: Settings):
        """Open the test splits.

        Args:
          network: what embeds.
          prepared: the data set.
          settings: of the run.
        """
        self._network = network
        self._settings = settings
        self._dataset = provenance.dataset_label(prepared)
        self.protocol = PROTOCOLS[prepared.dataset]
        self.sources: dict[Modality, RecordSource] = {}
        for split in ("query", "gallery"):
            # Which of the two is visible differs between data sets; each split is of one modality.
            self.sources[MODALITIES[prepared.index[split].modality[0]]] = RecordSource(prepared, (split,))

    def embed(self, variables: Any) -> dict[Modality, Embedded]:
        """All test images, each by the stem of its modality, rows in the order of the index."""
        return {modality: self._embed(variables, source, modality) for modality, source in self.sources.items()}

    def score(self, embedded: dict[Modality, Embedded]) -> list[ProtocolResult]:
        """Every setting of the protocol, from one embedding pass."""
        return evaluate(self.protocol, embedded, dataset=self._dataset, num_trials=self._settings.evaluation.num_trials)

    def _embed(self, variables: Any, source: RecordSource, modality: Modality) -> Embedded:
        settings = self._settings
        batches = evaluation_batches(source, data=settings.data, batch_size=settings.evaluation.batch_size)
        rows = []
        with contextlib.closing(batches):
            for batch in batches:
                embeddings = embed_step(variables, batch["image"], network=self._network, modality=modality)
                rows.append(np.asarray(embeddings)[batch["mask"]])
        index = source.index
        return Embedded(features=np.concatenate(rows), pid=index.pid, camid=index.camid, path=index.path)


def evaluate_checkpoint(workdir: Path, *, step: int | None, out: Path, screen: Screen) -> list[ProtocolResult]:
    """Score one checkpoint of a run and write its results.

    Args:
      workdir: of the run.
      step: which checkpoint; None for the latest.
      out: folder for results.json and results.csv.
      screen: where progress goes.

    Raises:
      InputError: no run or no such checkpoint in `workdir`, a checkpoint of another network, or other data than the
        network was trained for.
    """
    trained = open_trained(workdir, step=step, screen=screen)
    label = "latest" if step is None else "chosen"
    screen.say(f"Scoring step {trained.step} of {workdir}")
    evaluator = Evaluator(trained.network, trained.prepared, trained.settings)
    results = evaluator.score(evaluator.embed(trained.variables))
    facts = provenance.collect(trained.settings, trained.prepared, step=trained.step, checkpoint=label)
    write_results(out, results, facts)
    return results


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m icre_jax.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True, type=Path, help="work folder of a run")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="saved step; default: the latest")
    parser.add_argument(
        "--out", type=Path, help="for results.json and results.csv; default: the workdir, or step_STEP in it"
    )
    flags = parser.parse_args(arguments)
    screen = Screen(open_console())
    # The results of the run itself stay what they are.
    out = flags.out or (flags.workdir if flags.checkpoint is None else flags.workdir / f"step_{flags.checkpoint}")
    try:
        results = evaluate_checkpoint(flags.workdir, step=flags.checkpoint, out=out, screen=screen)
    finally:
        screen.close()
    screen.console.print(table(results))
    screen.say(f"Results: {out / 'results.json'}, {out / 'results.csv'}")
    return 0


if __name__ == "__main__":
    command.run(main)
