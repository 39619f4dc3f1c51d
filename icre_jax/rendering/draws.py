"""Randomness as an index: a number is a function of (seed, stream, who, where, which), never of earlier draws.

Only `random`, `integers` and `permutation` of NumPy's generator are used, as the others go through the platform's math
library.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a sequence of draws decides. Numbers are part of the pixels: add at the end, never renumber."""

    BODY = 0
    COLOUR = 1
    REFLECTANCE = 2
    IMAGE = 3
    PLACE = 4
    SPLIT = 5
    CAMERAS = 6
    FOLDS = 7
    NOISE = 8
    JPEG = 9
    WARMTH = 10


class Draws:
    """Uniform draws with names that read like the model they describe."""

    def __init__(self, *index: int) -> None:
        # What `default_rng(index)` gives, in half the time.
        self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(index)))

    def uniform(self, low: float, high: float) -> float:
        """A real number in [low, high)."""
        return low + (high - low) * float(self.rng.random())

    def bell(self, low: float, high: float) -> float:
        """A real number in [low, high), the middle more likely: the mean of three uniform draws."""
        a, b, c = self.rng.random(3)
        return low + (high - low) * float((a + b + c) / 3)

    def integer(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return float(self.rng.random()) < probability

    def pick(self, weights: dict[str, int]) -> str:
        """A key, with probability in proportion to its weight."""
        ticket = self.integer(0, sum(weights.values()) - 1)
        for name, weight in weights.items():
            ticket -= weight
            if ticket < 0:
                return name
        raise AssertionError("the ticket is below the sum of the weights")
