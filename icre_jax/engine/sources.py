"""The data that a network has learned from, its own and that of the networks it started from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from icre_jax.engine.provenance import RENDERED
from icre_jax.settings.fields import Settings


@dataclasses.dataclass(frozen=True)
class Source:
    """Data that a network has learned from.

    Attributes:
      dataset, trial: as its config says them.
      data: what it is called: the name of a real data set only for the real one.
      data_fingerprint: of all its splits.
      rendered_seed: on which it depends who the rendered people are; None for real people, or where it is not known.
      train_splits: those that were trained on.
    """

    dataset: str
    trial: int | None
    data: str
    data_fingerprint: str
    rendered_seed: int | None
    train_splits: tuple[str, ...]

    def to_facts(self) -> dict[str, Any]:
        """JSON-able; inverse of `Source.from_facts`."""
        return dataclasses.asdict(self) | {"train_splits": list(self.train_splits)}

    @staticmethod
    def from_facts(facts: Mapping[str, Any]) -> "Source":
        """What `to_facts` gave."""
        return Source(**{**facts, "train_splits": tuple(facts["train_splits"])})

    def describe(self) -> str:
        """For example "RegDB trial 2" or "synthetic people (seed 0)"."""
        trial = "" if self.trial is None else f" trial {self.trial}"
        seed = f" (seed {self.rendered_seed})" if self.data == RENDERED else ""
        return f"{self.data}{trial}{seed}"


def sources_of(settings: Settings, about: Mapping[str, Any]) -> list[Source]:
    """The data of a network, and of those that it started from, its own first.

    Args:
      settings: of the run that trained it.
      about: what is known of how it was made, see `icre_jax.engine.provenance.describe_run`.
    """
    data = settings.data
    seed = data.synthetic.seed if data.synthetic is not None else about.get("rendered_seed")
    names = ("dataset", "trial", "data", "data_fingerprint")
    own = Source(**{name: about[name] for name in names}, rendered_seed=seed, train_splits=data.train_splits)
    before = (about.get("init_from") or {"sources": []})["sources"]
    return [own, *(Source.from_facts(facts) for facts in before)]
