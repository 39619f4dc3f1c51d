"""The texture atlas of a person: which material, and which relief, lies where on each part of the body.

Pages are [128, 128]: rows are centimetres from the top of the part (head: 128 rows from crown to chin), columns the
angle around it, 64 at the front, growing towards the person's left.
"""

from enum import IntEnum

import numpy as np

from icre_jax.rendering.patterns import ANGLE, ROW, SIDE, blots, cover, motif
from icre_jax.rendering.person import LOWER_CUTS, UPPER_CUTS, Garment, Person, Slot
from icre_jax.rendering.raster import PAGE


class Page(IntEnum):
    """Index of a part in the atlas."""

    HEAD = 0
    TORSO = 1
    SLEEVE = 2
    LEG = 3
    SKIRT = 4
    SHOE = 5
    BAG = 6
    HAIR = 7
    HAT = 8
    SKIN = 9
    SCARF = 10
    HOOD = 11


def make_atlas(person: Person) -> np.ndarray:
    """All pages of a person: uint16 [pages * 128 * 128], slot << 8 | relief, the brightness with 128 as one.

    Takes about a millisecond, so keep it for all images of the person.
    """
    slots = np.zeros((len(Page), PAGE, PAGE), np.uint8)
    relief = np.full((len(Page), PAGE, PAGE), 128, np.int32)
    _paint_head(person, slots[Page.HEAD], relief[Page.HEAD])
    _paint_torso(person, slots[Page.TORSO], relief[Page.TORSO])
    _paint_sleeve(person, slots[Page.SLEEVE], relief[Page.SLEEVE])
    _paint_lower(person, slots, relief)
    _paint_shoe(person, slots[Page.SHOE])
    _paint_bag(person, slots[Page.BAG], relief[Page.BAG])
    slots[Page.HAIR] = Slot.HAIR
    relief[Page.HAIR] += ((blots(person.pid % 64).astype(np.int32) - 96) // 3).T
    slots[Page.HAT] = np.where(ROW > 88, Slot.BAG_2 if person.hat == "cap" else Slot.HAT, Slot.HAT) + 0 * SIDE
    if person.hat == "beanie":
        relief[Page.HAT] += ((ANGLE % 8 < 4) * 20 - 10).astype(np.int32)
    slots[Page.SKIN] = Slot.SKIN
    slots[Page.SCARF] = np.where((ROW + ANGLE / 4) % 8 < 4, Slot.HAT, Slot.UPPER_3)
    slots[Page.HOOD] = Slot.UPPER
    return (slots.astype(np.uint16) << 8 | np.clip(relief, 0, 255).astype(np.uint16)).reshape(-1)


def _pattern_slots(garment: Garment, circumference: float, blot: int, slots: tuple[Slot, Slot, Slot]) -> np.ndarray:
    return np.array(slots, np.uint8)[cover(garment, circumference, blot)]


def _textile_relief(textile: str, blot: int) -> np.ndarray:
    """What the weave does to brightness in every spectrum: int32 [128, 128] around 0."""
    if textile == "rib":
        return ((ANGLE % 6 < 3) * 34 - 17 + 0 * ROW).astype(np.int32)
    if textile == "cable":
        return ((ANGLE % 14 < 6) * 22 + ((ROW + ANGLE) % 8 < 4) * 18 - 20).astype(np.int32)
    if textile == "quilt":
        depth = np.abs(ROW % 10 - 5)
        return np.where(ROW % 10 < 2, -48, 16 - depth * 8 + 0 * SIDE).astype(np.int32)
    if textile == "fleece":
        return (blots(blot).astype(np.int32) - 96) // 2
    if textile == "leather":
        # Streaks of reflected light, whatever the material's own brightness.
        return ((blots(blot).astype(np.int32) - 110) * 3 // 4).clip(-12, 60)
    if textile == "seams":
        return -52 * (((SIDE - 21) ** 2 < 3) | ((ROW - 19) ** 2 < 2)).astype(np.int32)
    return np.zeros((PAGE, PAGE), np.int32)


def _paint_torso(person: Person, slots: np.ndarray, relief: np.ndarray) -> None:
    upper, cut = person.upper, person.upper.cut
    around = 4.6 * person.body.shoulder
    slots[:] = _pattern_slots(upper, around, person.pid % 64, (Slot.UPPER, Slot.UPPER_2, Slot.UPPER_3))
    slots[motif(person.front, around, at_back=False)] = Slot.UPPER_3
    slots[motif(person.back, around, at_back=True)] = Slot.UPPER_3
    relief += _textile_relief(upper.textile, person.pid % 61)
    if cut.startswith("open"):
        gap = 7 + ROW * (0.12 if cut == "open jacket" else 0.05)
        slots[gap > SIDE] = Slot.INNER
        relief[(gap <= SIDE) & (gap + 3 > SIDE)] -= 46
        if upper.duty < 0.45:  # an inner layer with hoops of its own
            slots[(gap > SIDE) & (ROW % 10 < 4)] = Slot.UPPER_3
    elif cut in ("jacket", "puffer", "vest", "coat"):
        relief[(SIDE < 2) & (ROW >= 0)] -= 60
        relief[(np.abs(ROW - 44) < 1.5) & (np.abs(SIDE - 18) < 6)] -= 60
    elif cut == "hoodie":
        pocket = (np.abs(ROW - 50) < 9) & (SIDE < 18)
        relief[pocket] -= 12
        relief[pocket & ((np.abs(ROW - 50) > 7) | (SIDE > 15))] -= 44
    elif cut == "shirt":
        relief[(np.abs(SIDE - 2) < 1) & (ROW >= 0)] -= 40
        slots[(SIDE < 1.5) & (ROW % 9 < 1.5)] = Slot.DARK
    relief[ROW[:, 0] < 2.5] -= 24  # the collar's edge
    if cut in ("tank", "t-shirt") or (cut == "sweater" and upper.duty < 0.4):
        # A neckline: round or pointed.
        depth = 9 - SIDE * (0.5 if upper.phase < 20 else 0.9)
        slots[depth > ROW] = Slot.SKIN
    if cut == "tank":
        slots[(ROW < 17) & (np.abs(SIDE - 32) < 9)] = Slot.SKIN
    if person.bag == "backpack":
        strap = np.abs(SIDE - 15) < 3.2
        slots[strap & (ROW < 42)] = Slot.BAG
        relief[strap & (ROW < 42) & (np.abs(SIDE - 15) > 2)] -= 40
    if person.bag == "shoulder bag":
        # From the right shoulder to the left hip in front, and back up behind.
        line = np.where(SIDE <= 32, ANGLE + 20, -20 - np.where(ANGLE > 0, 64 - ANGLE, -64 - ANGLE))
        strap = np.abs(line - ROW * 0.9) < 3.6
        slots[strap & (ROW < 60)] = Slot.BAG


def _paint_sleeve(person: Person, slots: np.ndarray, relief: np.ndarray) -> None:
    """The row is centimetres from the shoulder joint, to the wrist at `body.arm`."""
    upper, body = person.upper, person.body
    if upper.cut == "vest":
        slots[:] = Slot.INNER
    else:
        slots[:] = _pattern_slots(upper, 40, person.pid % 64, (Slot.UPPER, Slot.UPPER_2, Slot.UPPER_3))
        if upper.pattern in ("block", "band", "dipped", "sides", "halves"):
            slots[:] = Slot.UPPER
        relief += _textile_relief(upper.textile, person.pid % 61)
    length = UPPER_CUTS[upper.cut][0] * body.arm
    if person.sleeves == "contrast":
        slots[:] = Slot.UPPER_2
    elif person.sleeves == "cuffs":
        slots[(ROW[:, 0] > length - 6), :] = Slot.UPPER_2
    elif person.sleeves == "stripe":
        slots[:, (np.abs(SIDE[0] - 32) < 8)] = Slot.UPPER_2
    elif person.sleeves == "band":
        slots[np.abs(ROW[:, 0] - 0.55 * length) < 4.5, :] = Slot.UPPER_3
    if upper.cut == "vest":
        return
    relief[np.abs(ROW[:, 0] - length) < 1.2, :] -= 44
    slots[ROW[:, 0] > length + 0.5, :] = Slot.SKIN


def _paint_lower(person: Person, slots: np.ndarray, relief: np.ndarray) -> None:
    """Legs and skirt; the row is centimetres below the waist."""
    lower = person.lower
    materials = (Slot.LOWER, Slot.LOWER_2, Slot.LOWER_2)
    leg, skirt = slots[Page.LEG], slots[Page.SKIRT]
    leg[:] = _pattern_slots(lower, 52, person.pid % 64, materials)
    skirt[:] = _pattern_slots(lower, 110, person.pid % 64, materials)
    bumps = _textile_relief(lower.textile, person.pid % 59)
    if lower.textile == "denim":
        bumps = bumps + ((SIDE < 16) & (np.abs(ROW - 36) < 18)) * 26 - 8 * (np.abs(SIDE - 32) < 2)
    elif lower.textile == "cargo":
        pocket = (np.abs(ROW - 42) < 9) & (np.abs(SIDE - 30) < 11)
        bumps = bumps - 12 * pocket - 34 * (pocket & ((np.abs(ROW - 42) > 7) | (np.abs(ROW - 37) < 1.5)))
    elif lower.textile == "crease":
        bumps = bumps + 34 * (SIDE < 2) - 18 * (np.abs(SIDE - 4) < 2)
    relief[Page.LEG] += bumps.astype(np.int32)
    pleats = ((ANGLE % 12 < 5) * 30 - 12) * (lower.looseness > 0.9)
    relief[Page.SKIRT] += (bumps + pleats).astype(np.int32)
    length = LOWER_CUTS[lower.cut][0] * person.body.crotch + 10
    if "skirt" in lower.cut:
        bare = person.upper.duty < 0.5  # else tights in the second material
        leg[:] = Slot.SKIN if bare else Slot.LOWER_2
        relief[Page.LEG] = 128
    elif LOWER_CUTS[lower.cut][0] < 1:
        leg[ROW[:, 0] > length, :] = Slot.SKIN
        relief[Page.LEG][ROW[:, 0] > length, :] = 128
        relief[Page.LEG][np.abs(ROW[:, 0] - length) < 1.2, :] -= 44


def _paint_shoe(person: Person, slots: np.ndarray) -> None:
    """Rows run from heel to toe."""
    slots[:] = Slot.SHOE
    if person.shoes in ("trainers", "high tops"):
        slots[np.abs(ROW[:, 0] - 60) < 26, :] = Slot.SOLE
        slots[np.abs(ROW[:, 0] - 60) < 12, :] = Slot.SHOE
        slots[ROW[:, 0] > 104, :] = Slot.SOLE


def _paint_bag(person: Person, slots: np.ndarray, relief: np.ndarray) -> None:
    """Bags are drawn over rows 0-127 whatever their size."""
    slots[:] = Slot.BAG
    # Flat sides: only the angle within the visible half matters, so decorate front and back alike.
    side = np.minimum(SIDE, 64 - SIDE)
    if person.bag_pattern == "pocket":
        pocket = (np.abs(ROW - 86) < 28) & (side < 20)
        slots[pocket] = Slot.BAG_2
        relief[pocket & (np.abs(ROW - 86) > 24)] -= 50
    elif person.bag_pattern == "stripe":
        slots[np.abs(ROW[:, 0] - 60) < 14, :] = Slot.BAG_2
    elif person.bag_pattern == "halves":
        slots[ROW[:, 0] > 64, :] = Slot.BAG_2
    elif person.bag_pattern == "flap":
        slots[ROW[:, 0] < 52, :] = Slot.BAG_2
        relief[np.abs(ROW[:, 0] - 54) < 4, :] -= 60
    relief[ROW[:, 0] < 6, :] -= 40


def _paint_head(person: Person, slots: np.ndarray, relief: np.ndarray) -> None:
    """Rows 0-127 from crown to chin; eyes at row 66."""
    hairline = {"bald": 0, "buzz": 30, "short": 34, "bob": 40, "long": 36, "ponytail": 30, "bun": 30, "afro": 40}
    line = hairline[person.hair]
    # The hair's edge: hairline at the forehead, sideburns, nape.
    jaw = {"bob": 132, "long": 132}.get(person.hair, 92)
    hair = (line > ROW) | ((SIDE > 30) & (jaw > ROW)) | (SIDE > 48)
    if person.hair in ("bob", "long"):
        hair |= SIDE > 25
    slots[:] = Slot.SKIN
    if person.hair == "bald":
        hair = (SIDE > 34) & (ROW > 52) & (ROW < 96)
    slots[hair] = Slot.HAIR
    relief[hair] += ((blots(person.pid % 64).astype(np.int32) - 96) // 4)[hair]
    if person.beard:
        slots[(ROW > 92) & (SIDE < 34) & ~((SIDE < 6) & (np.abs(ROW - 100) < 4))] = Slot.HAIR
    else:
        slots[(np.abs(ROW - 101) < 4) & (SIDE < 7)] = Slot.LIPS
    slots[(np.abs(ROW - 55) < 3) & (np.abs(SIDE - 10) < 5)] = Slot.HAIR
    eyes = (np.abs(ROW - 66) < 5) & (np.abs(SIDE - 10) < 4)
    slots[eyes] = Slot.DARK
    relief[(np.abs(ROW - 64) < 9) & (np.abs(SIDE - 10) < 7)] -= 22
    relief[(np.abs(ROW - 78) < 12) & (np.abs(ANGLE - 3) < 2)] -= 26
    relief[(ROW > 118) & (SIDE < 40)] -= 30
    if person.glasses != "none":
        lens = (np.abs(ROW - 66) < 9) & (np.abs(SIDE - 10) < 8)
        rim = lens & ~((np.abs(ROW - 66) < 6) & (np.abs(SIDE - 10) < 6))
        slots[lens if person.glasses == "sunglasses" else rim] = Slot.DARK
        slots[(np.abs(ROW - 63) < 3) & (SIDE < 36) & (SIDE > 17)] = Slot.DARK
