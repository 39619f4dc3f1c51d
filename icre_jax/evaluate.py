"""Score a trained network: `python -m icre_jax.evaluate --workdir DIR [--checkpoint STEP]`.

Embeds every test image once, scores every setting of the protocol from that, prints the table and writes results.json
and results.csv into the work folder (or --out).
"""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from icre_jax import command, provenance
from icre_jax.checkpoint import Checkpoints
from icre_jax.data.pipeline import RecordSource, evaluation_batches
from icre_jax.data.prepared import PreparedDataset
from icre_jax.errors import InputError
from icre_jax.evals import protocol_of
from icre_jax.evals.protocol import OTHER, Modality, evaluate
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import ProtocolResult, write_results
from icre_jax.evals.tables import table
from icre_jax.models.network import ReIDNetwork, build_network
from icre_jax.prepare import prepare_data
from icre_jax.runlog import Screen, open_console
from icre_jax.settings import Settings, from_json
from icre_jax.state import create_state
from icre_jax.steps import embed_step


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
        # Which of the two splits is visible differs between data sets; each may be of both modalities.
        self.sources: dict[Modality, RecordSource] = {
            modality: RecordSource(prepared, ("query", "gallery"), modality=modality) for modality in OTHER
        }
        present = {(split, modality) for modality, source in self.sources.items() for split in source.split.tolist()}
        self.protocol = protocol_of(settings.data.dataset, settings.evaluation).restrict(present)

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
        features = np.concatenate(rows)
        return Embedded(features, pid=index.pid, camid=index.camid, path=index.path, split=source.split)


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
    config_file = workdir / "config.json"
    if not config_file.is_file():
        raise InputError(f"{workdir} is not the workdir of a run: {config_file} is missing.")
    settings = from_json(config_file.read_text(encoding="utf-8"))
    checkpoints = Checkpoints(workdir, best_metric=settings.checkpoint.best_metric, read_only=True)
    with contextlib.closing(checkpoints):
        if not checkpoints.steps:
            raise InputError(f"{workdir} holds no finished checkpoint yet.")
        chosen = checkpoints.steps[-1] if step is None else step
        facts = checkpoints.read_facts(chosen)
        _require_same_division(facts["settings"]["data"], settings)
        prepared = prepare_data(settings.data, screen)
        if facts["data_fingerprint"] != prepared.fingerprint:
            raise InputError(
                f"The checkpoint was trained on data with fingerprint {facts['data_fingerprint'][:12]}; "
                f"{prepared.folder} has {prepared.fingerprint[:12]}: its test identities may be training identities of "
                "this network. Point data_dir and prepared_dir of the run's config.json to the data it was trained on."
            )
        network = build_network(settings.model, num_classes=len(facts["class_pids"]))
        shapes = jax.eval_shape(
            lambda: create_state(
                jax.numpy.int32(0), network=network, tx=optax.identity(), image_size=settings.data.image_size
            )
        )
        # Onto a device of this process, whatever devices the network was trained on.
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes.variables)
        variables = checkpoints.restore_variables(chosen, like)
        label = "latest" if step is None else "chosen"
    screen.say(f"Scoring step {chosen} of {workdir}")
    evaluator = Evaluator(network, prepared, settings)
    results = evaluator.score(evaluator.embed(variables))
    write_results(out, results, provenance.collect(settings, prepared, step=chosen, checkpoint=label))
    return results


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
