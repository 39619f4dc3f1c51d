"""Open-set identification: how often a search names somebody although the person is not there, or misses who is.

Terms and rates of ISO/IEC 19795-1, for a gallery of N enrolled persons, a threshold T, and the R best candidates:

    FPIR(N, T)      share of the searches for persons who are not enrolled that give any candidate at or above T
    FNIR(N, R, T)   share of the searches for enrolled persons whose mate is not within rank R at or above T

A candidate is a person, at the most similar of their images; rank counts persons. FPIR grows with N: whoever is not
there has more people to be taken for. Without a limit on the rank (R = N) FNIR does not depend on N, as the similarity
to one's own images does not.

The rates are measured on people whom the network was not trained on, divided at random into enrolled and strangers,
again and again (`run_searches`). Images of one person are not independent: what counts for an interval is how many
persons stand behind a rate.

Shape letters: Q searches (query images), G images of the gallery, P persons of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context

import numpy as np

from icre_jax.errors import InputError
from icre_jax.evals.ranking import Embedded, Exclusion, check_feature_sizes, exclude_nothing, normalize
from icre_jax.evals.ranks import Float32Array, IntArray

NUM_DRAWS = 20
CONFIDENCE = 0.95
RATES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)  # FPIR of the curves that are shown
_BLOCK_ELEMENTS = 2**22  # of [queries, gallery] at a time


@dataclass(frozen=True)
class Rate:
    """A share of searches, and the interval that holds the true one with the confidence `CONFIDENCE`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Searches:
    """What searches gave, all draws together.

    Attributes:
      mate: [M] float32, similarity to the mate, of every search for an enrolled person.
      mate_rank: [M] int64, from 1; persons as similar as the mate stand before it.
      other: [S] float32, largest similarity to anybody, of every search for a person who is not enrolled.
      num_enrolled: N, persons in the gallery of a draw.
      num_images: of them, on average of the draws.
      num_mated: persons of a draw who are enrolled and searched for, and of whom a search may see an image: behind FNIR
        stand no others. Of the draw that has fewest of them, as an interval may rather be too wide; a draw that has
        none says nothing of FNIR and does not count here.
      num_strangers: persons of a draw who are searched for and not enrolled.
      num_draws: how often people were divided.
    """

    mate: Float32Array
    mate_rank: IntArray
    other: Float32Array
    num_enrolled: int
    num_images: float
    num_mated: int
    num_strangers: int
    num_draws: int

    def fpir(self, threshold: float) -> Rate:
        """FPIR(N, T)."""
        return interval(float((self.other >= threshold).mean()), self.num_strangers)

    def fnir(self, threshold: float, rank: int | None = None) -> Rate:
        """FNIR(N, R, T); `rank` R is None for no limit."""
        found = self.mate >= threshold
        if rank is not None:
            found &= self.mate_rank <= rank
        return interval(float(1 - found.mean()), self.num_mated)

    def threshold(self, fpir: float) -> float:
        """The lowest T with FPIR(N, T) at most `fpir`; float32, as similarities are.

        Raises:
          InputError: so few strangers cannot show so small a rate.
        """
        require_rate(fpir, self.num_strangers)
        ordered = np.sort(self.other)[::-1]
        allowed = int(fpir * len(ordered) + 1e-9)
        # Just above the first one that is too many.
        return float(np.nextafter(ordered[allowed], np.float32(np.inf), dtype=np.float32))


@dataclass(frozen=True)
class Operating:
    """One point of the DET curve (detection error trade-off): a threshold and its rates."""

    target: float
    threshold: float
    fpir: Rate
    fnir: Rate
    fnir_first: Rate  # with R = 1


def require_rate(fpir: float, num_strangers: int) -> None:
    """Refuse a rate FPIR that is none, or that so few strangers in a draw cannot show.

    Raises:
      InputError: naming the smallest rate that they can.
    """
    if not 0 < fpir < 1:
        raise InputError(f"The rate FPIR is {fpir:g}; it must be between 0 and 1, for example 0.05.")
    if not _can_show(fpir, num_strangers):
        # In decimals and upwards: 1 / 6 rounded to 0.17, as 0.16 would be refused again.
        smallest = Context(prec=2, rounding=ROUND_CEILING).divide(1, num_strangers)
        raise InputError(
            f"A rate FPIR of {fpir:g} cannot be measured on {num_strangers} strangers at a time: it is less than one "
            f"of them. Ask for {smallest:f} or more, or give more people."
        )


def _can_show(fpir: float, num_strangers: int) -> bool:
    return fpir * num_strangers >= 1 - 1e-9


def interval(rate: float, num_persons: int, confidence: float = CONFIDENCE) -> Rate:
    """Clopper and Pearson's interval of a share, as if every person had been searched for once.

    Several images of a person say more than one and less than as many persons; the interval is that of the persons
    alone, hence rather too wide than too narrow. Shares between whole numbers of persons are taken as they are.

    Args:
      rate: the share that was measured.
      num_persons: who stand behind it.
      confidence: of the interval.
    """
    from scipy.special import betaincinv  # here: a search has no rates

    tail, errors = (1 - confidence) / 2, rate * num_persons
    low = 0.0 if errors < 1e-9 else float(betaincinv(errors, num_persons - errors + 1, tail))
    high = 1.0 if errors > num_persons - 1e-9 else float(betaincinv(errors + 1, num_persons - errors, 1 - tail))
    return Rate(rate, low, high)


def best_per_person(
    query: Embedded, gallery: Embedded, excluded: Exclusion = exclude_nothing
) -> tuple[IntArray, Float32Array]:
    """How similar each query is to each person of the gallery, at the best of their images.

    The gallery is rounded to float16 as in an index, so that a threshold holds there.

    Args:
      query: Q images.
      gallery: G images.
      excluded: which of them a query may not see.

    Returns:
      pid [P], ascending, and similarities [Q, P]; -inf where a query may see no image of the person.
    """
    check_feature_sizes(query, gallery)
    order = np.argsort(gallery.pid, kind="stable")
    pid, camid = gallery.pid[order], gallery.camid[order]
    starts = np.flatnonzero(np.append(True, pid[1:] != pid[:-1]))
    asking = normalize(query.features)
    asked = normalize(gallery.features)[order].astype(np.float16).astype(np.float32)
    best = np.empty((len(query), len(starts)), np.float32)
    step = max(1, _BLOCK_ELEMENTS // len(gallery))
    for start in range(0, len(query), step):
        rows = slice(start, start + step)
        block = asking[rows] @ asked.T
        block[excluded(query.pid[rows], query.camid[rows], pid, camid)] = -np.inf
        best[rows] = np.maximum.reduceat(block, starts, axis=1)
    return pid[starts], best


@dataclass(frozen=True, eq=False)
class Division:
    """How many people of what kind every draw has.

    Attributes:
      both: [B] int64, ascending, who has images on both sides: the only ones who are drawn.
      num_drawn: how many of them a draw enrols; the others are its strangers.
      num_always: persons with gallery images only, who are always enrolled.
      num_strangers: of a draw, with those who have query images only.
    """

    both: IntArray
    num_drawn: int
    num_always: int
    num_strangers: int

    @property
    def num_enrolled(self) -> int:
        """N, persons in the gallery of a draw."""
        return self.num_always + self.num_drawn


def divide(query: IntArray, gallery: IntArray, num_enrolled: int | None = None) -> Division:
    """How `run_searches` will divide people, which labels alone decide.

    Args:
      query: persons of the images to search with.
      gallery: persons of the images to enrol.
      num_enrolled: as of `run_searches`.

    Raises:
      InputError: fewer than two enrolled persons or two strangers.
    """
    both = np.intersect1d(query, gallery)
    always, only_strangers = len(np.setdiff1d(gallery, query)), len(np.setdiff1d(query, gallery))
    num_drawn = len(both) // 2 if num_enrolled is None else num_enrolled - always
    num_strangers = len(both) - num_drawn + only_strangers
    if num_drawn < 2 or num_drawn > len(both) or num_strangers < 2:
        raise InputError(
            f"{always + num_drawn} enrolled persons and {num_strangers} strangers: both must be at least 2. There are "
            f"{len(both)} persons with query and gallery images, {always} with gallery images only (always enrolled), "
            f"{only_strangers} with query images only (always strangers)."
        )
    return Division(both, num_drawn, always, num_strangers)


def run_searches(
    query: Embedded,
    gallery: Embedded,
    *,
    excluded: Exclusion = exclude_nothing,
    num_enrolled: int | None = None,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Searches:
    """Divide people into enrolled and strangers, `num_draws` times, and search for all of them.

    Who has images on both sides is enrolled or a stranger, by a random order that depends on the seed and the number of
    the draw alone. Who has gallery images only is always enrolled, and who has query images only is always a stranger.

    Args:
      query: images to search with; those of nobody in the gallery are strangers.
      gallery: images to enrol.
      excluded: which gallery images a query may not see.
      num_enrolled: N; None for half of the people with images on both sides, and all with gallery images only.
      num_draws: how often.
      seed: of the draws.

    Raises:
      InputError: fewer than two enrolled persons or two strangers, or a negative seed.
    """
    if seed < 0:
        raise InputError(f"The seed is {seed}; it must be 0 or more.")
    division = divide(query.pid, gallery.pid, num_enrolled)
    both = division.both
    persons, best = best_per_person(query, gallery, excluded)
    images = np.unique(gallery.pid, return_counts=True)[1]
    own = np.searchsorted(persons, query.pid)
    has_own = persons[np.minimum(own, len(persons) - 1)] == query.pid
    mates, ranks, others, sizes, num_mated = [], [], [], [], []
    for draw in range(num_draws):
        drawn = np.random.default_rng((seed, draw)).permutation(both)[: division.num_drawn]
        enrolled = np.isin(persons, drawn) | ~np.isin(persons, both)
        is_mated = has_own & enrolled[np.minimum(own, len(persons) - 1)]
        seen = best[:, enrolled]
        others.append(seen[~is_mated].max(axis=1))
        mate = best[is_mated, own[is_mated]]
        rank = np.count_nonzero(seen[is_mated] >= mate[:, None], axis=1)
        visible = np.isfinite(mate)  # a search whose mate the query may not see is none
        mates.append(mate[visible])
        ranks.append(rank[visible])
        num_mated.append(len(np.unique(query.pid[is_mated][visible])))
        sizes.append(int(images[enrolled].sum()))
    mate, other = np.concatenate(mates), np.concatenate(others)
    if not mate.size:
        raise InputError("No query may see an image of its own person: nothing can be said of enrolled persons.")
    return Searches(
        mate,
        np.concatenate(ranks),
        other,
        num_enrolled=division.num_enrolled,
        num_images=float(np.mean(sizes)),
        num_mated=min(number for number in num_mated if number),
        num_strangers=division.num_strangers,
        num_draws=num_draws,
    )


def operate(searches: Searches, fpir: float) -> Operating:
    """The point of the curve at the largest FPIR that is at most `fpir`; errors as of `Searches.threshold`."""
    threshold = searches.threshold(fpir)
    return Operating(
        fpir, threshold, searches.fpir(threshold), searches.fnir(threshold), searches.fnir(threshold, rank=1)
    )


def det_curve(searches: Searches, rates: Sequence[float] = RATES) -> list[Operating]:
    """The points of the curve at several FPIR; those that so few strangers cannot show are left out."""
    return [operate(searches, rate) for rate in rates if _can_show(rate, searches.num_strangers)]
