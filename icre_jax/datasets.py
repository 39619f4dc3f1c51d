"""One card per data set: all that is known of it without opening it.

Every room keeps its own part of a data set (a layout, a check, a protocol, a renderer) under the name on the card.
A test goes over all cards, so that a part that is missing is found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Modality = Literal["visible", "infrared"]
# Stored as its index: 0 is visible, 1 is infrared, in every file and array of the project.
MODALITIES: tuple[Literal["visible"], Literal["infrared"]] = ("visible", "infrared")
VISIBLE, INFRARED = MODALITIES
OTHER: Mapping[Modality, Modality] = {VISIBLE: INFRARED, INFRARED: VISIBLE}


@dataclass(frozen=True)
class Counts:
    """What a part of a data set holds, as published (docs/data_sets/)."""

    identities: int
    visible: int
    infrared: int

    def of(self, modality: str) -> int:
        """Images of one modality."""
        return self.visible if modality == VISIBLE else self.infrared


@dataclass(frozen=True)
class TrackCounts:
    """What the lists of a part hold where images are frames of tracks, as published (docs/data_sets/).

    Attributes:
      frames: named by the list of frames.
      tracks: of any length.
      visible, infrared: tracks that are long enough to be used.
      queries: tracks that ask, of any length.
    """

    frames: int
    tracks: int
    visible: int
    infrared: int
    queries: int = 0


@dataclass(frozen=True)
class Published:
    """Numbers of a paper (fractions) in one setting of the protocol; see docs/protocols.md, section 3.

    Attributes:
      setting: name of the setting of the protocol.
      method: what was scored; "as cited" where the numbers stand in another paper than the method's own.
      rank1, mAP: as printed; None where only one of them is known.
      reranking: whether the ranking was refined, so that only re-ranked numbers compare.
    """

    setting: str
    method: str
    rank1: float
    mAP: float | None  # noqa: N815  (the field's spelling)
    reranking: bool = False


@dataclass(frozen=True, eq=False)
class Card:
    """A data set.

    Attributes:
      name: as configs, flags and folders spell it.
      title: the published name; results carry it only for the real data.
      directions: who asks, in the order in which the protocol scores them; the gallery is of the other modality.
      trials: the ways in which its identities are divided into training and test; empty where there is one.
      counts: "train", "val", "test" -> what is published of that part; empty where nothing is.
      camera_counts: test camera -> (identities, images), where that is published.
      track_counts: "train", "test" -> what is published of its tracks; `counts` are then of the frames in use.
      frames_per_track: where images are frames of tracks, how many of each the field's code compares; None elsewhere.
      published: numbers of papers.
      note: what a reader of these numbers should know.
      official_draws: whether its authors published the gallery draws.
      terms: under which its authors give it away, for whoever passes on a network that was trained on it.
      own_images: whether it is a user's own data: nothing is published, and the config says what the protocol excludes.
      halves_numbered_apart: whether one number may be two people, one of the training and one of the test identities.
    """

    name: str
    title: str
    directions: tuple[Modality, ...]
    trials: tuple[int, ...] = ()
    counts: Mapping[str, Counts] = field(default_factory=dict)
    camera_counts: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    track_counts: Mapping[str, TrackCounts] = field(default_factory=dict)
    frames_per_track: int | None = None
    published: tuple[Published, ...] = ()
    note: str = ""
    official_draws: bool = False
    terms: str = ""
    own_images: bool = False
    halves_numbered_apart: bool = False

    @property
    def has_validation(self) -> bool:
        """Whether there are identities to choose a checkpoint by that are in neither training nor test."""
        return "val" in self.counts

    @property
    def has_tracks(self) -> bool:
        """Whether its images are frames of tracks."""
        return self.frames_per_track is not None

    def describe_trials(self) -> str:
        """The values that `trial` may have, for messages."""
        return f"{self.trials[0]} to {self.trials[-1]}" if self.trials else "None, as it has no trials"


_ON_REQUEST = (
    "Its authors give it on request, for academic research and under an agreement of their own; it shows real people. "
    "Ask them before a network trained on it is passed on or used for anything else."
)
SYSU_MM01 = Card(
    name="sysu_mm01",
    title="SYSU-MM01",
    directions=(INFRARED,),
    counts={
        "train": Counts(296, 20_284, 9_929),
        "val": Counts(99, 1_974, 1_980),
        "test": Counts(96, 6_775, 3_803),
    },
    camera_counts={1: (56, 1_374), 2: (56, 1_565), 3: (93, 1_883), 4: (94, 1_918), 5: (95, 1_918), 6: (96, 1_920)},
    published=(
        Published("all/single", "AGW", 0.4750, 0.4765),
        Published("all/single", "PMT", 0.6753, 0.6498),
        Published("all/single", "CAJ", 0.6988, 0.6689),
        Published("all/single", "DNS", 0.7727, 0.7435),
        Published("all/single", "ICRE (second-hand)", 0.7751, 0.7416),
        Published("all/single", "MDCRNet", 0.7838, 0.7495),
        Published("all/single", "MSCMNet", 0.7853, 0.7420),
        Published("all/single", "IDKL (as cited)", 0.8142, 0.7985),
        Published("all/single", "IDKL", 0.8434, None, reranking=True),
        Published("all/single", "MCJA", 0.8951, 0.8758, reranking=True),
        Published("indoor/single", "MSCMNet", 0.8300, 0.8554),
        Published("indoor/single", "MDCRNet", 0.8376, 0.8624),
        Published("indoor/single", "DNS", 0.8421, 0.8683),
        Published("indoor/single", "IDKL (as cited)", 0.8714, 0.8937),
    ),
    note="The gallery draw moves Rank-1 by about 0.5.",
    official_draws=True,
    terms=_ON_REQUEST,
)
LLCM = Card(
    name="llcm",
    title="LLCM",
    directions=(INFRARED, VISIBLE),
    counts={"train": Counts(713, 16_946, 13_975), "test": Counts(351, 8_680, 7_166)},
    published=(
        Published("infrared_to_visible", "AGW", 0.4913, 0.5580),
        Published("infrared_to_visible", "CAJ", 0.4986, 0.5640),
        Published("infrared_to_visible", "DEEN", 0.5552, 0.6207),
        Published("infrared_to_visible", "CSDN (as cited)", 0.558, 0.635),
        Published("infrared_to_visible", "DNS", 0.5745, 0.6411),
    ),
    terms=_ON_REQUEST,
    halves_numbered_apart=True,
)
REGDB = Card(
    name="regdb",
    title="RegDB",
    directions=(VISIBLE, INFRARED),
    trials=tuple(range(1, 11)),
    # Of each trial; its ten trials halve the same 412 identities.
    counts={"train": Counts(206, 2_060, 2_060), "test": Counts(206, 2_060, 2_060)},
    published=(
        Published("visible_to_infrared", "AGW", 0.7005, 0.6637),
        Published("visible_to_infrared", "CAJ", 0.8503, 0.7914),
        Published("visible_to_infrared", "DNS", 0.9349, 0.8810),
        Published("infrared_to_visible", "DNS", 0.9301, 0.8856),
    ),
    note="Means over the ten trials.",
    terms=_ON_REQUEST,
    halves_numbered_apart=True,
)
HITSZ_VCM = Card(
    name="hitsz_vcm",
    title="HITSZ-VCM",
    directions=(INFRARED, VISIBLE),
    counts={"train": Counts(500, 126_543, 98_214), "test": Counts(427, 118_137, 105_979)},
    track_counts={
        "train": TrackCounts(232_496, 11_061, 5_460, 4_291),
        "test": TrackCounts(230_763, 10_802, 5_099, 4_584, queries=5_159),
    },
    frames_per_track=6,
    published=(
        Published("infrared_to_visible", "DDAG (image method, as cited)", 0.5462, 0.3926),
        Published("infrared_to_visible", "CAJ (image method, as cited)", 0.5659, 0.4149),
        Published("infrared_to_visible", "MITML (video method, as cited)", 0.6374, 0.4531),
        Published("infrared_to_visible", "FA-Net (video method)", 0.6813, 0.5115),
        Published("infrared_to_visible", "M3-ReID (video method)", 0.7321, 0.5902),
        Published("visible_to_infrared", "DDAG (image method, as cited)", 0.5903, 0.4150),
        Published("visible_to_infrared", "CAJ (image method, as cited)", 0.6013, 0.4281),
        Published("visible_to_infrared", "MITML (video method, as cited)", 0.6454, None),
        Published("visible_to_infrared", "FA-Net (video method)", 0.7001, 0.5246),
        Published("visible_to_infrared", "M3-ReID (video method)", 0.7531, 0.6051),
    ),
    note="Video methods look at the frames of a track together; ours is the mean of frames embedded one by one.",
    terms=(
        "Its licence, which whoever downloads it agrees to, is for academic use only and forbids passing the data on; "
        "it shows real people. A network trained on it may be passed on for non-commercial use only."
    ),
)
MANIFEST = Card(
    name="manifest",
    title="own images",
    directions=(INFRARED, VISIBLE),
    terms="They belong to whoever trained it, who alone can say what the people shown have agreed to.",
    own_images=True,
)

# A tree whose people were rendered says so by this file in its root, with how; no config can then call them real.
RENDERED_MARK = "synthetic.json"

CARDS: Mapping[str, Card] = {card.name: card for card in (SYSU_MM01, LLCM, REGDB, HITSZ_VCM, MANIFEST)}
