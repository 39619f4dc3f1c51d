"""The protocol of a user's own images: all queries of one modality against all of the gallery of the other.

Nothing is drawn. The list says who asks and who is searched: an image of the gallery never asks. Both directions are
scored where the list has images for both. The CMC counts images, as RegDB's does. Gallery images of the query's
identity *and* camera may be left out (`evaluation.exclude_same_camera`), as the field does where two images of one
camera are moments of one walk.
"""

from icre_jax.datasets import MANIFEST, OTHER
from icre_jax.evals.protocol import Protocol, Setting
from icre_jax.evals.ranking import exclude_nothing, exclude_same_id_and_camera


def make_protocol(*, exclude_same_camera: bool) -> Protocol:
    """The protocol; `exclude_same_camera` leaves out gallery images of the query's identity and camera."""
    settings = tuple(
        Setting(
            name=f"{query}_to_{OTHER[query]}",
            query=query,
            excluded=exclude_same_id_and_camera if exclude_same_camera else exclude_nothing,
            deduplicate_ids=False,
            gallery_source="all but the query's camera" if exclude_same_camera else "all images",
            by_split=True,
        )
        for query in MANIFEST.directions
    )
    # Any number of cameras, each of any modality.
    return Protocol(name=MANIFEST.title, settings=settings, cameras={})


PROTOCOL = make_protocol(exclude_same_camera=True)
