"""An identity: latent attributes as a pure function of (seed, pid).

Shape, cut, pattern, bag and hair are seen by both kinds of camera. The colours are seen by visible cameras only, the
near-infrared reflectances by infrared cameras only, and the two are drawn independently of each other. Thermal cameras
see neither, but how warm things are: skin most, clothing by how much of the body's warmth it lets through.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

from icre_jax.rendering.draws import Draws, Stream


class Slot(IntEnum):
    """Index of a material in the two palettes of a person."""

    SKIN = 0
    HAIR = 1
    UPPER = 2
    UPPER_2 = 3
    UPPER_3 = 4
    INNER = 5
    LOWER = 6
    LOWER_2 = 7
    SHOE = 8
    SOLE = 9
    BAG = 10
    BAG_2 = 11
    HAT = 12
    DARK = 13
    LIPS = 14


@dataclass(frozen=True)
class Body:
    """Lengths in centimetres; widths are half widths."""

    height: float
    head: float
    shoulder: float
    waist: float
    hip: float
    depth: float
    crotch: float  # height above the floor
    arm: float  # shoulder to wrist
    limb: float  # thickness, 1 is average


@dataclass(frozen=True)
class Garment:
    """One piece of clothing; pitch, phase and looseness in centimetres."""

    cut: str
    pattern: str
    pitch: float
    duty: float  # share of the second material within one repeat
    phase: float
    textile: str
    looseness: float


@dataclass(frozen=True)
class Print:
    """A motif on the front or the back of the upper garment, in centimetres; motif "none" is no print."""

    motif: str
    size: float
    down: float  # centre below the collar
    number: int  # the digits of the motif "number"


@dataclass(frozen=True)
class Person:
    """All that stays the same about one identity.

    Per Slot, colours: RGB; reflectances: 0-255 at 850 nm; warmths: 0-255, where about 50 is that of the surroundings.
    """

    pid: int
    body: Body
    hair: str
    hat: str
    glasses: str
    beard: bool
    upper: Garment
    front: Print
    back: Print
    sleeves: str
    lower: Garment
    shoes: str
    bag: str
    bag_size: float
    bag_pattern: str
    scarf: bool
    colours: tuple[tuple[int, int, int], ...]
    reflectances: tuple[int, ...]
    warmths: tuple[int, ...]


# (share of the arm that is covered, hem below the waist in cm, looseness in cm)
UPPER_CUTS = {
    "tank": (0.0, 14, 0.5),
    "t-shirt": (0.34, 16, 1.5),
    "shirt": (1.0, 17, 1.5),
    "sweater": (1.0, 15, 2.5),
    "hoodie": (1.0, 16, 3.0),
    "jacket": (1.0, 13, 3.0),
    "open jacket": (1.0, 15, 3.5),
    "puffer": (1.0, 16, 6.0),
    "vest": (1.0, 14, 3.5),
    "coat": (1.0, 52, 4.0),
    "open coat": (1.0, 48, 4.0),
}
# (share of the leg that is covered, extra radius at the thigh, at the hem, in cm); skirts hang from the waist instead
LOWER_CUTS = {
    "slim": (1.0, 0.3, 1.0),
    "regular": (1.0, 1.2, 3.0),
    "wide": (1.0, 2.2, 6.5),
    "cropped": (0.8, 1.0, 2.2),
    "shorts": (0.42, 2.2, 3.5),
    "short skirt": (0.4, 0.0, 0.0),
    "long skirt": (0.78, 0.0, 0.0),
}
_UPPER_PATTERNS = {
    "plain": 3,
    "hoops": 3,
    "vertical": 2,
    "diagonal": 1,
    "checks": 2,
    "dots": 2,
    "block": 2,
    "band": 2,
    "sides": 1,
    "halves": 1,
    "camouflage": 1,
    "zigzag": 1,
    "diamonds": 1,
    "dipped": 1,
}
# What a thermal camera sees of the body through the cut, lowest and highest; two layers of air keep more than one.
_UPPER_WARMTHS = {
    "tank": (176, 204),
    "t-shirt": (172, 202),
    "shirt": (164, 196),
    "sweater": (142, 176),
    "hoodie": (130, 166),
    "jacket": (108, 148),
    "open jacket": (112, 150),
    "puffer": (84, 116),
    "vest": (90, 124),
    "coat": (96, 134),
    "open coat": (100, 138),
}
_LOWER_PATTERNS = {"plain": 5, "side stripe": 3, "checks": 2, "camouflage": 1, "knees": 2, "hoops": 2, "vertical": 2}
_MOTIFS = {
    "disc": 2,
    "ring": 2,
    "square": 2,
    "cross": 2,
    "triangle": 2,
    "bars": 2,
    "number": 3,
    "chevron": 2,
    "text": 2,
}

_TEXTILE_COLOURS = (
    (28, 28, 32),
    (28, 28, 32),
    (52, 54, 60),
    (96, 98, 104),
    (150, 152, 156),
    (222, 222, 220),
    (230, 228, 220),
    (32, 40, 74),
    (40, 64, 122),
    (70, 112, 176),
    (140, 178, 210),
    (168, 36, 40),
    (106, 28, 38),
    (196, 88, 44),
    (214, 172, 62),
    (52, 92, 60),
    (88, 100, 58),
    (110, 150, 110),
    (186, 164, 128),
    (116, 84, 58),
    (210, 130, 150),
    (104, 62, 118),
    (48, 128, 132),
)
_SKINS = ((232, 190, 164), (222, 174, 142), (200, 148, 114), (166, 114, 82), (118, 78, 56), (86, 58, 44))
_HAIRS = ((24, 20, 20), (34, 26, 22), (58, 40, 28), (96, 66, 40), (150, 112, 66), (196, 160, 104), (140, 136, 132))


def sample_person(seed: int, pid: int) -> Person:
    """The identity `pid` of the world `seed`."""
    draws = Draws(seed, Stream.BODY, pid)
    body = _sample_body(draws)
    hair = draws.pick({"short": 5, "buzz": 2, "bald": 1, "bob": 3, "long": 3, "ponytail": 2, "bun": 2, "afro": 1})
    upper = _sample_upper(draws)
    printed = upper.pattern in ("plain", "sides", "dipped") and not upper.cut.startswith("open")
    person = Person(
        pid=pid,
        body=body,
        hair=hair,
        hat=draws.pick({"none": 14, "cap": 3, "beanie": 2, "brimmed": 1}),
        glasses=draws.pick({"none": 6, "glasses": 2, "sunglasses": 1}),
        beard=draws.chance(0.2) and hair in ("short", "buzz", "bald"),
        upper=upper,
        front=_sample_print(draws, 0.75 if printed else 0.0),
        back=_sample_print(draws, 0.65 if printed else 0.15),
        sleeves=draws.pick({"same": 5, "contrast": 2, "cuffs": 1, "stripe": 1, "band": 1}),
        lower=_sample_lower(draws),
        shoes=draws.pick({"trainers": 4, "shoes": 3, "boots": 2, "high tops": 1}),
        bag=draws.pick({"none": 6, "backpack": 5, "shoulder bag": 3, "handbag": 3, "tote": 2, "carrier": 2}),
        bag_size=draws.uniform(0.75, 1.3),
        bag_pattern=draws.pick({"plain": 3, "pocket": 3, "stripe": 2, "halves": 1, "flap": 2}),
        scarf=draws.chance(0.12),
        colours=_sample_colours(Draws(seed, Stream.COLOUR, pid)),
        reflectances=_sample_reflectances(Draws(seed, Stream.REFLECTANCE, pid)),
        warmths=(),
    )
    return replace(person, warmths=_sample_warmths(Draws(seed, Stream.WARMTH, pid), person))


def _sample_body(draws: Draws) -> Body:
    height = draws.bell(146, 198)
    build = draws.bell(0.78, 1.26)
    frame = draws.bell(0.9, 1.1)
    return Body(
        height=height,
        head=draws.bell(21, 25),
        shoulder=height * 0.128 * frame * (0.8 + 0.2 * build),
        waist=height * 0.083 * build * draws.bell(0.85, 1.15),
        hip=height * 0.097 * draws.bell(0.86, 1.14) * (0.6 + 0.4 * build),
        depth=height * 0.066 * build,
        crotch=height * draws.bell(0.425, 0.505),
        arm=height * draws.bell(0.30, 0.36),
        limb=(0.55 + 0.45 * build) * draws.bell(0.88, 1.12),
    )


def _sample_upper(draws: Draws) -> Garment:
    cut = draws.pick(
        {
            "tank": 1,
            "t-shirt": 6,
            "shirt": 3,
            "sweater": 3,
            "hoodie": 3,
            "jacket": 3,
            "open jacket": 4,
            "puffer": 2,
            "vest": 1,
            "coat": 2,
            "open coat": 2,
        }
    )
    textiles = {"puffer": {"quilt": 1}, "vest": {"quilt": 2, "smooth": 1}}.get(
        cut, {"smooth": 4, "rib": 2, "cable": 2, "fleece": 2, "seams": 2, "leather": 1}
    )
    return Garment(
        cut=cut,
        pattern=draws.pick(_UPPER_PATTERNS),
        pitch=draws.uniform(9, 24),
        duty=draws.uniform(0.25, 0.65),
        phase=draws.uniform(0, 40),
        textile=draws.pick(textiles),
        looseness=UPPER_CUTS[cut][2] * draws.uniform(0.5, 1.5),
    )


def _sample_lower(draws: Draws) -> Garment:
    return Garment(
        cut=draws.pick(
            {"slim": 5, "regular": 6, "wide": 3, "cropped": 2, "shorts": 4, "short skirt": 2, "long skirt": 2}
        ),
        pattern=draws.pick(_LOWER_PATTERNS),
        pitch=draws.uniform(7, 18),
        duty=draws.uniform(0.3, 0.6),
        phase=draws.uniform(0, 40),
        textile=draws.pick({"smooth": 4, "denim": 4, "cargo": 2, "rib": 1, "crease": 2}),
        looseness=draws.uniform(0.4, 1.6),
    )


def _sample_print(draws: Draws, probability: float) -> Print:
    motif = draws.pick(_MOTIFS)
    return Print(
        motif=motif if draws.chance(probability) else "none",
        size=draws.uniform(18, 34),
        down=draws.uniform(20, 30),
        number=draws.integer(10, 99),
    )


def _sample_colours(draws: Draws) -> tuple[tuple[int, int, int], ...]:
    colours = {slot: _textile_colour(draws) for slot in Slot}
    for first, second in ((Slot.UPPER, Slot.UPPER_2), (Slot.LOWER, Slot.LOWER_2), (Slot.BAG, Slot.BAG_2)):
        # A pattern exists for the visible camera: redraw until the two differ in luminance.
        while abs(_luminance(colours[first]) - _luminance(colours[second])) < 70:
            colours[second] = _textile_colour(draws)
    if draws.chance(0.45):
        colours[Slot.LOWER] = _jitter(draws, (34, 42, 66) if draws.chance(0.6) else (64, 84, 120))
        colours[Slot.LOWER_2] = _jitter(draws, (176, 178, 180))
    colours[Slot.SKIN] = _jitter(draws, _SKINS[draws.integer(0, len(_SKINS) - 1)])
    colours[Slot.HAIR] = _jitter(draws, _HAIRS[draws.integer(0, len(_HAIRS) - 1)])
    colours[Slot.SOLE] = _jitter(draws, (214, 212, 206) if draws.chance(0.5) else (44, 42, 42))
    colours[Slot.DARK] = (26, 24, 26)
    red, green, blue = colours[Slot.SKIN]
    colours[Slot.LIPS] = (red * 7 // 8, green * 5 // 8, blue * 5 // 8)
    return tuple(colours[slot] for slot in Slot)


def _sample_reflectances(draws: Draws) -> tuple[int, ...]:
    values = {slot: draws.integer(48, 216) for slot in Slot}
    for first, others in (
        (Slot.UPPER, (Slot.UPPER_2, Slot.UPPER_3)),
        (Slot.LOWER, (Slot.LOWER_2,)),
        (Slot.BAG, (Slot.BAG_2,)),
    ):
        for second in others:
            values[second] = _dye_reflectance(draws, values[first])
    values[Slot.SKIN] = draws.integer(160, 196)
    values[Slot.HAIR] = draws.integer(48, 150)
    values[Slot.DARK] = 40
    values[Slot.LIPS] = values[Slot.SKIN] - 16
    return tuple(values[slot] for slot in Slot)


def _dye_reflectance(draws: Draws, textile: int) -> int:
    """Most dyes are weaker at 850 nm than to the eye, and some are not there at all."""
    contrast = draws.integer(0, 8) if draws.chance(0.12) else draws.integer(60, 130)
    lighter = draws.chance(0.5)
    if textile + contrast > 228:
        lighter = False
    elif textile - contrast < 35:
        lighter = True
    return min(228, textile + contrast) if lighter else max(30, textile - contrast)


def _sample_warmths(draws: Draws, person: Person) -> tuple[int, ...]:
    """Warm where skin is bare or thinly covered; a pattern is nearly as warm as what it is printed on."""
    skin = draws.integer(218, 240)
    upper = draws.integer(*_UPPER_WARMTHS[person.upper.cut])
    lower = draws.integer(120, 172)
    bag = draws.integer(52, 96)
    values = {
        Slot.SKIN: skin,
        Slot.LIPS: skin - 6,
        # Eyes are warm, but glass lets no warmth through.
        Slot.DARK: skin - 10 if person.glasses == "none" else draws.integer(70, 110),
        Slot.HAIR: draws.integer(128, 176),
        Slot.HAT: draws.integer(96, 140),
        Slot.UPPER: upper,
        Slot.UPPER_2: upper + draws.integer(-5, 5),
        Slot.UPPER_3: upper + draws.integer(-8, 8),
        Slot.INNER: upper + draws.integer(14, 34),  # what an open coat shows
        Slot.LOWER: lower,
        Slot.LOWER_2: lower + draws.integer(-5, 5),
        Slot.SHOE: draws.integer(76, 116),
        Slot.SOLE: draws.integer(66, 92),
        Slot.BAG: bag,
        Slot.BAG_2: bag + draws.integer(-6, 6),
    }
    return tuple(values[slot] for slot in Slot)


def _textile_colour(draws: Draws) -> tuple[int, int, int]:
    return _jitter(draws, _TEXTILE_COLOURS[draws.integer(0, len(_TEXTILE_COLOURS) - 1)])


def _jitter(draws: Draws, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (min(245, max(8, value + draws.integer(-9, 9))) for value in colour)
    return red, green, blue


def _luminance(colour: tuple[int, int, int]) -> int:
    red, green, blue = colour
    return (30 * red + 59 * green + 11 * blue) // 100
