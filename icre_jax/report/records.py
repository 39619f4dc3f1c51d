"""What a run hands to its report, besides plain dicts of numbers."""

from dataclasses import dataclass

import numpy as np

from icre_jax.evals.results import ProtocolResult


@dataclass(frozen=True)
class Evaluation:
    """The scores of one state of the network.

    Attributes:
      label: "untrained", "last" or "best".
      step, epoch: when in the training; epoch may be a fraction.
      results: one per setting of the protocol.
    """

    label: str
    step: int
    epoch: float
    results: list[ProtocolResult]


@dataclass(frozen=True, eq=False)
class RankedImage:
    """One image of a rank list.

    Attributes:
      image: [H, W, 3] uint8, sRGB.
      pid, camid: who is seen by which camera.
      similarity: to the query; None for the query itself.
      correct: whether it shows the person of the query; None for the query itself.
      name: of the file, where people would know it; "" for none.
      person: the name of who is seen; "" for none.
    """

    image: np.ndarray
    pid: int
    camid: int
    similarity: float | None = None
    correct: bool | None = None
    name: str = ""
    person: str = ""


@dataclass(frozen=True, eq=False)
class RankedQuery:
    """A query and the gallery images most similar to it, best first."""

    query: RankedImage
    ranked: list[RankedImage]


@dataclass(frozen=True, eq=False)
class ExplainedPair:
    """Where in two images of one identity their similarity comes from.

    Attributes:
      similarity: the cosine of their embeddings.
      infrared, visible: the images.
      heat: [2, h, w], at least 0, of the infrared and of the visible image.
    """

    similarity: float
    infrared: RankedImage
    visible: RankedImage
    heat: np.ndarray
