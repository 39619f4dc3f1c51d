"""Where a number comes from: what stands beside every result."""

import importlib.metadata
import platform
import shlex
import sys
from typing import Any

import jax

import icre_jax
from icre_jax.data.prepared import PreparedDataset
from icre_jax.datasets import CARDS
from icre_jax.settings import Settings

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy", "pillow")


def collect(settings: Settings, prepared: PreparedDataset, *, step: int, checkpoint: str) -> dict[str, Any]:
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


def _selected_by(metric: str) -> str:
    return f"{metric} on the {'validation' if metric.startswith('val/') else 'test'} identities"


def describe_machine() -> dict[str, Any]:
    """Facts that need no data: the command, what it ran on, and versions."""
    device = jax.devices()[0]
    return {
        "command": _command(),
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {
            "icre_jax": icre_jax.__version__,
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in _PACKAGES},
        },
    }


def dataset_label(prepared: PreparedDataset) -> str:
    """The name results carry; that of the real data set only for the real data set."""
    return "synthetic people" if prepared.synthetic else CARDS[prepared.dataset].title


def _command() -> str:
    """The command line, with the module in place of the path that Python puts there."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = f"python -m {spec.name}" if spec is not None else "a notebook or script"
    return " ".join([program, *(shlex.quote(argument) for argument in sys.argv[1:])])
