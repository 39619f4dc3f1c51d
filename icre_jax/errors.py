"""The one exception that means: what the user gave cannot be used.

Raised anywhere below the entry points, caught only by `icre_jax.command`, which prints the message without a traceback
and exits with a non-zero code. The message names the value, what is allowed and the fix.
"""


class InputError(Exception):
    """A path, file, setting or checkpoint given by the user cannot be used."""


def join_findings(findings: list[str], limit: int = 20) -> str:
    """One line per finding; past `limit` the rest is counted, so that a message stays readable."""
    shown = [f"  - {finding}" for finding in findings[:limit]]
    if len(findings) > limit:
        shown.append(f"  ... and {len(findings) - limit} more")
    return "\n".join(shown)
