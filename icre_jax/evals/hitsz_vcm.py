"""The HITSZ-VCM protocol: all test tracks of one modality against all of the other, in both directions.

  1. Query: every infrared test track of 12 frames or more; gallery: every visible one. Back, the roles are changed.
  2. A track is the mean of the embeddings of its frames, or of some spread evenly over it.
  3. A gallery track of the query's id and the query's camera is dropped.
  4. CMC of tracks (an id counts as often as it has tracks), mAP and mINP over the same list; only queries with a true
     match left count.

Nothing is drawn. The same with one frame in the place of each track ("_frames") is another protocol, of images: no
published number stands beside it.
"""

from icre_jax.datasets import HITSZ_VCM, OTHER, Modality
from icre_jax.evals.protocol import Protocol, Setting
from icre_jax.evals.ranking import exclude_same_id_and_camera

CAMERAS = tuple(range(1, 13))


def _setting(query: Modality, *, frames: str, single: bool) -> Setting:
    return Setting(
        name=f"{query}_to_{OTHER[query]}" + ("_frames" if single else ""),
        query=query,
        excluded=exclude_same_id_and_camera,
        deduplicate_ids=False,
        gallery_source=f"all tracks, {frames}",
        single_frames=single,
    )


def make_protocol(*, frames_per_track: int | None) -> Protocol:
    """The protocol; `frames_per_track` (None for all) are what a mean is of, which every result says."""
    mean = "mean of all frames" if frames_per_track is None else f"mean of {frames_per_track} frames"
    return Protocol(
        name=HITSZ_VCM.title,
        settings=(
            *(_setting(query, frames=mean, single=False) for query in HITSZ_VCM.directions),
            *(_setting(query, frames="one frame of each", single=True) for query in HITSZ_VCM.directions),
        ),
        cameras={"visible": CAMERAS, "infrared": CAMERAS},
    )


PROTOCOL = make_protocol(frames_per_track=HITSZ_VCM.frames_per_track)
