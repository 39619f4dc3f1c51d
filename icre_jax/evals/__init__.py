"""Protocols, ranking, results. NumPy only."""

from icre_jax.evals import llcm, regdb, sysu_mm01
from icre_jax.evals.protocol import Protocol

# Data set, as a config names it -> how it is scored.
PROTOCOLS: dict[str, Protocol] = {
    "sysu_mm01": sysu_mm01.PROTOCOL,
    "llcm": llcm.PROTOCOL,
    "regdb": regdb.PROTOCOL,
}
