"""Protocols, ranking, results. NumPy only."""

from icre_jax.evals import llcm, manifest, regdb, sysu_mm01
from icre_jax.evals.protocol import Protocol
from icre_jax.settings import Evaluation

# Data set, as a config names it -> how it is scored.
PROTOCOLS: dict[str, Protocol] = {
    "sysu_mm01": sysu_mm01.PROTOCOL,
    "llcm": llcm.PROTOCOL,
    "regdb": regdb.PROTOCOL,
    "manifest": manifest.PROTOCOL,
}


def protocol_of(dataset: str, evaluation: Evaluation) -> Protocol:
    """How a data set is scored; what `evaluation` leaves open is None for the published ones, whose rules are fixed."""
    if evaluation.exclude_same_camera is None:
        return PROTOCOLS[dataset]
    return manifest.make_protocol(exclude_same_camera=evaluation.exclude_same_camera)
