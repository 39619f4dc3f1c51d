"""Where a number comes from: what stands beside every result."""

import dataclasses
import importlib.metadata
import platform
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

import icre_jax
from icre_jax.data.rendered import rendered_seed
from icre_jax.datasets import CARDS
from icre_jax.engine.numerics import numerics_here
from icre_jax.errors import InputError
from icre_jax.evals.results import read_results
from icre_jax.settings.fields import Settings

if TYPE_CHECKING:  # with the data come its libraries, and a network alone is described too
    from icre_jax.data.prepared import PreparedDataset

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy", "pillow")

RENDERED = "synthetic people"  # what results call rendered data, whatever it is laid out like


def collect(settings: Settings, prepared: "PreparedDataset", *, step: int, checkpoint: str) -> dict[str, Any]:
    """Facts that stand beside results: how they were made, of which checkpoint and data, and by which versions.

    Args:
      settings: of the run.
      prepared: the data that was scored.
      step: of the network that was scored.
      checkpoint: why this one: "last", "best", "latest" or "chosen" (by the user).
    """
    return {
        "config": settings.name,
        "step": step,
        "checkpoint": checkpoint,
        "selected_by": _selected_by(settings.checkpoint.best_metric) if checkpoint == "best" else "nothing",
        "dataset": dataset_label(prepared),
        "trial": prepared.trial,
        "data_fingerprint": prepared.fingerprint,
        "dtype": settings.model.dtype,
        "precision": settings.model.precision,
        **describe_machine(),
        "settings": settings.model_dump(mode="json"),
    }


def describe_run(settings: Settings, facts: dict[str, Any], *, workdir: Path, step: int) -> dict[str, Any]:
    """What is known of one checkpoint of a run without its data, JSON-able: what an export and its card say.

    Args:
      settings: of the run.
      facts: that travel with the checkpoint.
      workdir: of the run; scores are taken from there, if this very step was scored.
      step: of the checkpoint.

    Returns:
      "config", "dataset", "trial", "data" (what the data is called: results and checkpoints carry the name of a real
      data set only for the real one), "data_fingerprint", "num_training_identities", "pretrained" (the name of the
      file its backbone started from, or None), "init_from" (what is known of a network that it started from, see
      `icre_jax.engine.inherit`, or None) and "rendered_seed" (see `icre_jax.data.rendered`); with scores "results" (see
      `ProtocolResult`) and "scored" (the "checkpoint", "selected_by" and "versions" beside them).
    """
    data, origin = settings.data, facts.get("init_from")
    about = {
        "config": settings.name,
        "dataset": data.dataset,
        "trial": data.trial,
        "data": facts.get("data") or (RENDERED if data.synthetic else f"{data.card.title}, says its config"),
        "data_fingerprint": facts["data_fingerprint"],
        "num_training_identities": len(facts["class_pids"]),
        "pretrained": settings.pretrained and Path(settings.pretrained).name,
        "init_from": origin and origin | {"path": Path(origin["path"]).name},
        "rendered_seed": rendered_seed(data),
    }
    for folder in (workdir, workdir / "best", workdir / f"step_{step}"):
        try:
            results, beside = read_results(folder)
        except InputError:
            continue
        if results and beside.get("step") == step and beside.get("data_fingerprint") == about["data_fingerprint"]:
            scored = {name: beside.get(name) for name in ("checkpoint", "selected_by", "versions")}
            found = [dataclasses.asdict(result) for result in results]
            return about | {"data": results[0].dataset, "results": found, "scored": scored}
    return about


def _selected_by(metric: str) -> str:
    return f"{metric} on the {'validation' if metric.startswith('val/') else 'test'} identities"


def describe_machine() -> dict[str, Any]:
    """Facts that need no data: the command, what it ran on, and versions."""
    device = jax.devices()[0]
    return {
        "command": _command(),
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "numerics": numerics_here().plain(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {
            "icre_jax": icre_jax.__version__,
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in _PACKAGES},
        },
    }


def dataset_label(prepared: "PreparedDataset", trained_on: str | None = None) -> str:
    """The name results carry; that of the real data set only for the real data set.

    Args:
      prepared: the data that is scored.
      trained_on: what the network was trained on, if that is other data.
    """
    if trained_on is not None:
        return f"{dataset_label(prepared)}, by a network trained on {trained_on}"
    return RENDERED if prepared.synthetic else CARDS[prepared.dataset].title


def _command() -> str:
    """The command line, with the module in place of the path that Python puts there."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = f"python -m {spec.name}" if spec is not None else "a notebook or script"
    return " ".join([program, *(shlex.quote(argument) for argument in sys.argv[1:])])
