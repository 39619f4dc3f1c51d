"""The exceptions whose message is meant for the user.

Raised anywhere below the commands, caught only by `icre_jax.machine.command`, which prints the message without a
traceback and exits with a non-zero code. The message names the value, what is allowed and the fix.
"""

from pathlib import Path

_LONGEST = 1000  # characters of a finding
_LONGEST_MESSAGE = 50_000  # characters; what a damaged file gives as a name may have megabytes


class InputError(Exception):
    """A path, file, setting or checkpoint given by the user cannot be used."""

    def __str__(self) -> str:
        """The message; what it repeats of a file or a name cannot move the cursor of a terminal."""
        text = super().__str__()
        cut = f"... ({len(text):,} characters)" if len(text) > _LONGEST_MESSAGE else ""
        return printable(text[:_LONGEST_MESSAGE]) + cut


class UnreadableError(InputError):
    """A file cannot be read, or passes a limit; see `icre_jax.files`.

    Attributes:
      reason: why, without the name of the file.
    """

    def __init__(self, path: str | Path, reason: str):
        self.reason = reason
        super().__init__(f"{path} cannot be read: {reason}.")


class UnusableImagesError(InputError):
    """Images that cannot be used; all that were looked at are named.

    Attributes:
      findings: a line for each of them, its path first.
    """

    def __init__(self, findings: list[str], num_images: int):
        self.findings = findings
        super().__init__(
            f"{len(findings)} of {num_images} images cannot be used:\n{join_findings(findings, limit=50)}\n"
            "Nothing was left out: repair or remove these, and start again."
        )


class DivergenceError(Exception):
    """Training left the finite numbers; the message names the step and what was not finite."""


class NotSavedError(Exception):
    """A checkpoint, or the log up to it, could not be written; older ones are intact, a later try may do better."""


class HostError(Exception):
    """Another process of the run is lost; the message says that all must be started again."""


def join_findings(findings: list[str], limit: int = 20) -> str:
    """One line per finding; past `limit` the rest is counted, and long ones are cut: a message stays readable."""
    shown = [f"  - {finding[:_LONGEST]}{'...' if len(finding) > _LONGEST else ''}" for finding in findings[:limit]]
    if len(findings) > limit:
        shown.append(f"  ... and {len(findings) - limit} more")
    return "\n".join(shown)


def printable(text: str) -> str:
    """`text` with an escape (as "\\x1b") for every character but line feeds that does not print."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)
