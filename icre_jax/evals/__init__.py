"""Protocols, ranking, results. NumPy only."""

from collections.abc import Mapping, Sequence

from icre_jax.datasets import HITSZ_VCM, LLCM, MANIFEST, REGDB, SYSU_MM01
from icre_jax.errors import InputError
from icre_jax.evals import hitsz_vcm, llcm, manifest, regdb, sysu_mm01
from icre_jax.evals.galleries import OFFICIAL, PYTHON_RANDOM, make_official_source
from icre_jax.evals.protocol import Protocol

# Data set, as a config names it -> how it is scored.
PROTOCOLS: dict[str, Protocol] = {
    SYSU_MM01.name: sysu_mm01.PROTOCOL,
    LLCM.name: llcm.PROTOCOL,
    REGDB.name: regdb.PROTOCOL,
    HITSZ_VCM.name: hitsz_vcm.PROTOCOL,
    MANIFEST.name: manifest.PROTOCOL,
}
# Those that have validation identities, and how these are scored.
VALIDATION: dict[str, Protocol] = {SYSU_MM01.name: sysu_mm01.VALIDATION}
# Those whose authors published gallery draws, and how they are scored on galleries of another source.
_WITH_OFFICIAL_DRAWS = {SYSU_MM01.name: sysu_mm01.make_protocol}


def choose_protocol(
    dataset: str,
    permutations: Mapping[tuple[int, int], Sequence[Sequence[int]]] | None = None,
    gallery_source: str | None = None,
    *,
    exclude_same_camera: bool | None = None,
    frames_per_track: int | None = None,
) -> Protocol:
    """The protocol of a data set, on its official galleries where they are known.

    Args:
      dataset: a key of `PROTOCOLS`.
      permutations: the official draws, see `make_official_source`; None where they are not at hand.
      gallery_source: "official" or "python-random"; None for the first of these that there is.
      exclude_same_camera: for own images, see `manifest.make_protocol`; None for the published ones, whose rules are
        fixed.
      frames_per_track: of tracks, what a track is the mean of, see `hitsz_vcm.make_protocol`.

    Raises:
      InputError: a source that this data set does not have.
    """
    if dataset not in _WITH_OFFICIAL_DRAWS:
        if gallery_source is not None:
            raise InputError(
                f"The gallery source {gallery_source!r} cannot be chosen for {PROTOCOLS[dataset].name}: only "
                f"{SYSU_MM01.title} has two. Leave it out."
            )
        if dataset == HITSZ_VCM.name:
            return hitsz_vcm.make_protocol(frames_per_track=frames_per_track)
        if exclude_same_camera is None:
            return PROTOCOLS[dataset]
        return manifest.make_protocol(exclude_same_camera=exclude_same_camera)
    if gallery_source == OFFICIAL and permutations is None:
        raise InputError(
            "The official galleries need exp/rand_perm_cam.mat in the data set's folder, and it is not there. Fetch it "
            f"from the official repository of SYSU-MM01, or use the {PYTHON_RANDOM.name} galleries."
        )
    if permutations is None or gallery_source == PYTHON_RANDOM.name:
        return PROTOCOLS[dataset]
    return _WITH_OFFICIAL_DRAWS[dataset](make_official_source(permutations))
