"""A threshold below which a search says "not in the gallery", and the rates that it was calibrated to.

The threshold belongs to one network, one pair of modalities and a size of gallery. FPIR grows with that size, so that
the rate for another gallery is another one (`Calibration.at`). If all comparisons of a search were independent, a
gallery k times as large would have

    FPIR(k N, T) = 1 - (1 - FPIR(N, T))^k

They are not: some people are taken for others more easily, which makes the true rate of a larger gallery lower than
this (Jensen's inequality: the mean of (1 - p)^k over people is at least the k-th power of the mean of 1 - p). The
formula is thus a bound upwards, and so is, for a smaller gallery, the rate that was measured.
"""

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Literal

import pydantic

from icre_jax.datasets import Modality
from icre_jax.errors import InputError, UnreadableError
from icre_jax.evals.ranking import Embedded
from icre_jax.files.json_files import read_json
from icre_jax.retrieval.open_set import CONFIDENCE, NUM_DRAWS, Operating, Rate, det_curve, operate, run_searches
from icre_jax.sums import seal, unseal

# A bound for a gallery so many times as large as the one that was measured says hardly anything.
LARGEST_FACTOR = 10.0
# Galleries that differ by no more than this share are of one size: the rate differs by less than can be measured.
SAME_SIZE = 0.05
_LARGEST_FILE = 2**20  # bytes
METHOD = (
    "Held-out persons are divided at random into enrolled and strangers, draw by draw. The threshold is the lowest at "
    "which the share of strangers' searches with any candidate, over all draws, is at most the target. FPIR and FNIR "
    "are those of ISO/IEC 19795-1; a candidate is a person at their most similar image. Intervals: Clopper and "
    "Pearson, over persons of one draw."
)


@dataclasses.dataclass(frozen=True)
class Held:
    """What a calibration promises for one gallery.

    Attributes:
      fpir: the rate, or a bound of it.
      how: "measured", "smaller" (the gallery is, so that the measured rate is a bound) or "rescaled" (it is larger).
    """

    fpir: Rate
    how: Literal["measured", "smaller", "rescaled"]


class Calibration(pydantic.BaseModel):
    """What calibration.json says.

    Attributes:
      model_hash, origin: of the network.
      created: UTC, by ISO 8601.
      query_modality, gallery_modality: who asks, and who is searched.
      flip: whether mirrored images were averaged in.
      target: the FPIR that was asked for.
      threshold: similarity from which on somebody is a candidate.
      fpir, fnir: at this threshold; FNIR without a limit on the rank.
      fnir_first: the same with R = 1: the mate must be the first candidate.
      confidence: of the intervals.
      num_enrolled, num_images: N, persons in the gallery of a draw, and their images on average.
      num_mated, num_strangers: persons of a draw who stand behind FNIR and FPIR.
      num_held_out: persons of all draws.
      num_draws, seed: of the divisions.
      curve: other thresholds with their rates.
      method: how it was done.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    model_hash: str
    origin: str
    created: str
    query_modality: Modality
    gallery_modality: Modality
    flip: bool
    target: float = pydantic.Field(gt=0, lt=1)
    threshold: float = pydantic.Field(allow_inf_nan=False)
    fpir: Rate
    fnir: Rate
    fnir_first: Rate
    confidence: float
    num_enrolled: int = pydantic.Field(ge=1)
    num_images: float = pydantic.Field(ge=1)
    num_mated: int
    num_strangers: int
    num_held_out: int
    num_draws: int
    seed: int
    curve: list[Operating]
    method: str

    def at(self, num_persons: int, num_images: int) -> Held:
        """FPIR for a gallery of another size, by whichever of persons and images has grown more.

        Args:
          num_persons: in the gallery; an image of nobody known counts as a person.
          num_images: of them.

        Raises:
          InputError: the gallery is so much larger than the one that was measured that nothing can be promised.
        """
        factors = num_persons / self.num_enrolled, num_images / self.num_images
        factor = max(factors)
        if factor > LARGEST_FACTOR * (1 + 1e-9):
            raise InputError(
                f"This calibration was measured on galleries of {self.num_enrolled} persons with {self.num_images:.0f} "
                f"images; the gallery holds {num_persons} persons with {num_images} images, more than "
                f"{LARGEST_FACTOR:g} times as many. Nothing is promised for it: calibrate on more held-out people, or "
                "search without a calibration."
            )
        if all(abs(each - 1) <= SAME_SIZE + 1e-9 for each in factors):
            return Held(self.fpir, "measured")
        if factor <= 1 + SAME_SIZE:
            return Held(self.fpir, "smaller")
        return Held(Rate(*(1 - (1 - rate) ** factor for rate in dataclasses.astuple(self.fpir))), "rescaled")

    def require_model(self, model_hash: str, origin: str) -> None:
        """Raise `InputError` unless the network `origin` with this hash is the one that was calibrated."""
        if model_hash != self.model_hash:
            raise InputError(
                f"The calibration was made with another network than {origin}: with {self.origin or 'one'} of hash "
                f"{self.model_hash[:12]}, and {origin} has {model_hash[:12]}. Calibrate this network (`icre_jax "
                "calibrate`)."
            )

    def require_modalities(self, query: Modality, gallery: set[str]) -> None:
        """Raise `InputError` unless these are the modalities that were calibrated."""
        if query != self.query_modality or gallery != {self.gallery_modality}:
            raise InputError(
                f"The calibration is for {self.query_modality} queries and {self.gallery_modality} galleries; these "
                f"are {query} queries and a gallery of {' and '.join(sorted(gallery))} images. Calibrate for them."
            )

    def require_flip(self, flip: bool) -> None:
        """Raise `InputError` unless mirrored images are averaged in, or not, as they were for this calibration."""
        if flip != self.flip:
            raise InputError(
                f"The calibration was made {'with' if self.flip else 'without'} mirrored images averaged in, and the "
                f"index {'with' if flip else 'without'}. Calibrate {'with' if flip else 'without'} --flip."
            )

    def to_json(self) -> str:
        """What stands in its file; inverse of `read`."""
        return json.dumps(seal(self.model_dump(mode="json")), indent=2) + "\n"

    @staticmethod
    def read(path: Path) -> "Calibration":
        """What `to_json` wrote.

        Raises:
          InputError: there is no such file, or it is none of a calibration.
        """
        try:
            return Calibration.model_validate_json(json.dumps(unseal(read_json(path, most_bytes=_LARGEST_FILE))))
        except (UnreadableError, ValueError) as error:  # pydantic's among them
            reason = error.reason if isinstance(error, UnreadableError) else " ".join(str(error).split())[:300]
            raise InputError(
                f"{path} cannot be read as a calibration: {reason}. `icre_jax calibrate` writes one."
            ) from error


def calibrate(
    query: Embedded,
    gallery: Embedded,
    *,
    fpir: float,
    query_modality: Modality,
    gallery_modality: Modality,
    model_hash: str,
    origin: str = "",
    flip: bool = False,
    num_enrolled: int | None = None,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Calibration:
    """Choose the threshold at which a share `fpir` of searches for strangers gives a candidate.

    Args:
      query: images of held-out people to search with.
      gallery: images of held-out people to enrol; both by `icre_jax.retrieval.open_set.run_searches`.
      fpir: the target.
      query_modality, gallery_modality: of the two.
      model_hash, origin: of the network that embedded them.
      flip: whether mirrored images were averaged in.
      num_enrolled, num_draws, seed: as of `run_searches`.

    Raises:
      InputError: too few people to divide, or for so small a rate.
    """
    searches = run_searches(query, gallery, num_enrolled=num_enrolled, num_draws=num_draws, seed=seed)
    chosen = operate(searches, fpir)
    return Calibration(
        model_hash=model_hash,
        origin=origin,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        query_modality=query_modality,
        gallery_modality=gallery_modality,
        flip=flip,
        target=fpir,
        threshold=chosen.threshold,
        fpir=chosen.fpir,
        fnir=chosen.fnir,
        fnir_first=chosen.fnir_first,
        confidence=CONFIDENCE,
        num_enrolled=searches.num_enrolled,
        num_images=searches.num_images,
        num_mated=searches.num_mated,
        num_strangers=searches.num_strangers,
        num_held_out=len({*query.pid.tolist(), *gallery.pid.tolist()}),
        num_draws=num_draws,
        seed=seed,
        curve=det_curve(searches),
        method=METHOD,
    )
