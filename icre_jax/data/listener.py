"""Who is told how long work goes on."""

from typing import Protocol


class Listener(Protocol):
    """Who is told how it goes: `icre_jax.machine.screen.Screen`, or anything like it."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def advance(self, title: str, done: int, total: int) -> None:
        """How far one activity is."""
