"""The open-set scores of a checkpoint, on the test images of its data set."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from icre_jax.data.listener import Listener
from icre_jax.datasets import Modality
from icre_jax.engine import provenance
from icre_jax.engine.elsewhere import OtherData, open_to_score
from icre_jax.engine.evaluator import Evaluator, Measure
from icre_jax.errors import InputError
from icre_jax.evals.protocol import Protocol
from icre_jax.evals.ranking import Embedded
from icre_jax.files import write_file
from icre_jax.retrieval import det


def describe_open_set(protocol: Protocol, sides: Mapping[Modality, Embedded], *, dataset: str) -> dict[str, Any]:
    """What open_set.json holds, without its provenance, of test images that are embedded already.

    Raises:
      InputError: too few test identities.
    """
    return det.to_document(det.measure_open_set(protocol, sides), dataset=dataset)


def evaluate_open_set(
    workdir: Path,
    *,
    step: int | None,
    out: Path,
    listener: Listener,
    measure: Measure | None = None,
    other: OtherData | None = None,
) -> list[Table]:
    """How often a checkpoint takes strangers for somebody, and misses who is there; writes open_set.json.

    Args:
      workdir, step, out, listener, measure, other: as of `icre_jax.engine.evaluator.evaluate_checkpoint`.

    Returns:
      The DET curve of each direction, for the terminal.

    Raises:
      InputError: as there; re-ranked similarities were asked for, which do not compare between
        searches, or galleries of a source, where none is drawn; too few test identities.
    """
    if measure is not None and (measure.reranking or measure.gallery_source):
        raise InputError(
            "--open_set cannot be had with --reranking, whose similarities do not compare between searches, nor with "
            "--gallery_source, as all images of who is enrolled are searched. Leave these out."
        )
    trained = open_to_score(workdir, other, step=step, listener=listener)
    listener.say(f"Searching with step {trained.step} of {workdir} for people who are there, and who are not")
    evaluator = Evaluator(trained.network, trained.prepared, trained.settings, measure)
    measured = det.measure_open_set(evaluator.protocol, evaluator.embed(trained.variables))
    beside = trained.elsewhere or {}
    dataset = provenance.dataset_label(trained.prepared, beside.get("trained_on"))
    facts = beside | provenance.collect(
        trained.settings, trained.prepared, step=trained.step, checkpoint="latest" if step is None else "chosen"
    )
    document = {**det.to_document(measured, dataset=dataset), "provenance": facts}
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_file(out / "open_set.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(f"The results cannot be written to {out}: {error}. Name another --out.") from error
    listener.say(f"Open set: {out / 'open_set.json'}")
    return [det.det_table(found, dataset=dataset) for found in measured]
