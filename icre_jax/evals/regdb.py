"""The RegDB protocol: all test images of one modality against all of the other, in both directions.

Nothing is drawn and nothing excluded. "Infrared" is thermal here. The CMC counts images (as AGW and its descendants do;
the default) or every id once ("deduplicated", as the other half of the field does); Rank-1, mAP and mINP agree, the
later ranks do not.

The ten trials of RegDB are ten ways to halve its identities, hence ten trained networks. A result is of one; the field
reports their mean.
"""

from icre_jax.datasets import OTHER, REGDB, Modality
from icre_jax.evals.protocol import Protocol, Setting
from icre_jax.evals.ranking import exclude_nothing


def _setting(query: Modality, *, deduplicate_ids: bool) -> Setting:
    return Setting(
        name=f"{query}_to_{OTHER[query]}" + ("_deduplicated" if deduplicate_ids else ""),
        query=query,
        excluded=exclude_nothing,
        deduplicate_ids=deduplicate_ids,
        gallery_source="all images",
    )


PROTOCOL = Protocol(
    name=REGDB.title,
    settings=(
        *(_setting(query, deduplicate_ids=False) for query in REGDB.directions),
        *(_setting(query, deduplicate_ids=True) for query in REGDB.directions),
    ),
    cameras={"visible": (1,), "infrared": (2,)},
)
