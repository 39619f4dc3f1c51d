"""A config beside the baseline of the same config: what ICRE's parts and losses cost more."""

import statistics
from dataclasses import dataclass
from typing import Any

from icre_jax.costs.compiled import Cost
from icre_jax.settings.fields import Settings


@dataclass(frozen=True)
class Measured:
    """What was found out about one config.

    Attributes:
      num_parameters: of the network.
      training, embedding: costs of a step of training, and of embedding images.
      step_seconds: every timed step of training; empty where none was run.
    """

    num_parameters: int
    training: Cost
    embedding: Cost
    step_seconds: tuple[float, ...] = ()

    def plain(self) -> dict[str, Any]:
        """JSON-able."""
        costs = {"training": self.training.plain(), "embedding": self.embedding.plain()}
        return {"num_parameters": self.num_parameters, **costs, "step_seconds": list(self.step_seconds)}


@dataclass(frozen=True)
class Comparison:
    """One number of a config and of its baseline.

    Attributes:
      name: of the number.
      unit: "", "FLOPs", "bytes" or "s".
      ours, baseline: its two values.
    """

    name: str
    unit: str
    ours: float
    baseline: float

    @property
    def ratio(self) -> float:
        """Ours over the baseline's."""
        return self.ours / self.baseline


def baseline_of(settings: Settings) -> Settings:
    """The same config with nothing but backbone, head and ID loss; equal to `settings` if it is that already."""
    model = settings.model.model_copy(
        update={
            "mpfr": settings.model.mpfr.model_copy(update={"enabled": False}),
            "sdce": settings.model.sdce.model_copy(update={"enabled": False}),
            "non_local_blocks": (0, 0, 0, 0),
            "non_local_channels": None,
            "neck_init_std": 0.0,
        }
    )
    loss = settings.loss.model_copy(update={"icg_weight": 0.0, "triplet_weight": 0.0})
    return settings.model_copy(update={"model": model, "loss": loss})


def compare(ours: Measured, baseline: Measured) -> list[Comparison]:
    """Number by number; the times of a step are the last, if steps were run."""
    rows = [
        Comparison("parameters", "", ours.num_parameters, baseline.num_parameters),
        Comparison("training, per image", "FLOPs", ours.training.flops_per_image, baseline.training.flops_per_image),
        Comparison("embedding, per image", "FLOPs", ours.embedding.flops_per_image, baseline.embedding.flops_per_image),
        Comparison(
            "training: activations and scratch, per image",
            "bytes",
            ours.training.temporary_bytes_per_image,
            baseline.training.temporary_bytes_per_image,
        ),
        Comparison(
            "embedding: activations and scratch, per image",
            "bytes",
            ours.embedding.temporary_bytes_per_image,
            baseline.embedding.temporary_bytes_per_image,
        ),
        Comparison(
            "training: everything held, per device", "bytes", ours.training.peak_bytes, baseline.training.peak_bytes
        ),
    ]
    if ours.step_seconds and baseline.step_seconds:
        # The fastest is what other work on the machine has disturbed least.
        for name, choose in (("median", statistics.median), ("fastest", min)):
            times = [choose(measured.step_seconds) for measured in (ours, baseline)]
            rows.append(Comparison(f"step of training, {name}", "s", *times))
    return rows
