"""Parts taken out at test time: which a network has, the command that scores it without them, and what that leaves.

The network is scored as it was trained, with one of its parts taken out: the only difference is the part, so every run
is compared with itself. `icre_jax.evaluate --without` says what takes the place of a part.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icre_jax.evals.results import ProtocolResult, read_results
from icre_jax.settings import differences, parse
from icre_jax.settings.fields import Settings

# Name of a part for `icre_jax.evaluate --without` -> as people read it.
PARTS = {
    "masks": "masks",
    "guide": "identity clues",
    "cross_attention": "cross-attention",
    "self_attention": "self-attention",
    "refinement": "refinement",
    "gate": "gate",
    "enhancement": "enhancement",
}


def parts_of(settings: Settings) -> list[str]:
    """The parts that can be taken out of the network of a config, in order; none without MPFR and SDCE."""
    mpfr, sdce = settings.model.mpfr, settings.model.sdce
    there = {
        "masks": mpfr.enabled,
        "guide": mpfr.enabled or (sdce.enabled and sdce.cross_attention),  # SDCE alone takes them from layer3
        "cross_attention": sdce.enabled and sdce.cross_attention,
        "self_attention": sdce.enabled and sdce.self_attention,
        "refinement": sdce.enabled and sdce.refinement,
        "gate": mpfr.enabled or sdce.enabled,
        "enhancement": mpfr.enabled or sdce.enabled,
    }
    return [part for part in PARTS if there[part]]


def arguments_without(folder: Path, parts: Sequence[str], settings: Settings) -> list[str]:
    """What follows `python` on the command line that scores a finished run without each of these parts.

    It leaves a results.json for every one of them in `folder_without`.

    Args:
      folder: work folder of the run.
      parts: at least one of `parts_of`.
      settings: of the run.
    """
    named = "each" if list(parts) == parts_of(settings) else ",".join(parts)
    return ["-m", "icre_jax.evaluate", "--workdir", str(folder), "--without", named]


def folder_without(folder: Path, part: str) -> Path:
    """Where the results of a run without a part are."""
    return folder / f"without_{part}"


def read_removed(folder: Path, settings: Settings) -> dict[str, tuple[ProtocolResult, dict[str, Any]]]:
    """Part -> headline setting of its results and their provenance, of the parts that were taken out of this network.

    Args:
      folder: work folder of a run.
      settings: of the run; results of other settings are left out.

    Raises:
      InputError: a results.json is damaged.
    """
    removed = {}
    for part in parts_of(settings):
        if (folder_without(folder, part) / "results.json").is_file():
            results, provenance = read_results(folder_without(folder, part))
            if not differences(parse(provenance.get("settings", {})), settings):
                removed[part] = results[0], provenance
    return removed
