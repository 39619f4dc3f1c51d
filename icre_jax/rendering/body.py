"""Draw a person into a canvas, part by part, from the farthest to the nearest."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from icre_jax.rendering.person import LOWER_CUTS, UPPER_CUTS, Person
from icre_jax.rendering.pose import Point, Pose, Skeleton, View, bend
from icre_jax.rendering.raster import PAGE, Canvas, cut_stencil, stamp_column, stamp_limb
from icre_jax.rendering.textiles import Page

# (height, half width across, half depth, centre's z, texture row), from the top down, cm
Ring = tuple[float, float, float, float, float]


@dataclass
class _Stage:
    """Collects parts with their distance, then paints the nearest last."""

    canvas: Canvas
    view: View
    turn: int
    table: np.ndarray
    parts: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    stencils: dict[tuple[Page, int], np.ndarray] = field(default_factory=dict)

    def limb(
        self,
        key: float,
        ends: tuple[Point, Point],
        radii: tuple[float, float],
        page: Page,
        rows: tuple[float, float],
        shadow: float = 0.0,
    ) -> None:
        start, end = self.view.project(ends[0]), self.view.project(ends[1])
        size = (radii[0] * self.view.scale_at(ends[0][1]), radii[1] * self.view.scale_at(ends[1][1]))
        width, stencil = shadow * self.view.scale, self._stencil(page, self.turn)
        self.parts.append((key, lambda: stamp_limb(self.canvas, start, end, size, rows, stencil, width)))

    def column(
        self,
        key: float,
        rings: list[Ring],
        page: Page,
        shadow: float = 0.0,
        box: bool = False,
        x: float = 0.0,
        turn: int | None = None,
    ) -> None:
        width_of = self.view.box_width if box else self.view.half_width
        nodes = []
        for y, across, deep, z, row in rings:
            centre, line = self.view.project((x, y, z))
            nodes.append((line, centre, width_of(across, deep) * self.view.scale_at(y), row))
        width, stencil = shadow * self.view.scale, self._stencil(page, self.turn if turn is None else turn)
        self.parts.append((key, lambda: stamp_column(self.canvas, nodes, stencil, width)))

    def _stencil(self, page: Page, turn: int) -> np.ndarray:
        """`cut_stencil` in this light, once for all parts that share it."""
        if (page, turn) not in self.stencils:
            self.stencils[page, turn] = cut_stencil(page, turn, self.table)
        return self.stencils[page, turn]

    def paint(self) -> None:
        for _, draw in sorted(self.parts, key=lambda part: part[0]):
            draw()


def draw_person(canvas: Canvas, person: Person, pose: Pose, view: View, table: np.ndarray) -> None:
    """Adds a person to the canvas; table: `light_table` of the image."""
    stage = _Stage(canvas, view, -pose.yaw, table)
    skeleton = bend(person.body, pose)
    _add_legs(stage, person, skeleton)
    _add_torso(stage, person, skeleton)
    _add_arms(stage, person, skeleton)
    _add_head(stage, person, skeleton, -(pose.yaw + pose.head_turn))
    _add_bag(stage, person, skeleton)
    stage.paint()


def _add_legs(stage: _Stage, person: Person, skeleton: Skeleton) -> None:
    body, cut = person.body, person.lower.cut
    covered, thigh_extra, hem_extra = LOWER_CUTS[cut]
    loose = person.lower.looseness
    thigh, knee, ankle = 8.4 * body.limb, 5.4 * body.limb, 3.7 * body.limb
    hip_row = skeleton.waist - skeleton.hips[0][1]
    half = (skeleton.hips[0][1] - 8.0) * 0.53
    for side in (0, 1):
        key = -6 + 0.01 * stage.view.near(skeleton.ankles[side])
        hip, joint, foot = skeleton.hips[side], skeleton.knees[side], skeleton.ankles[side]
        rows = (hip_row, hip_row + half, hip_row + 2 * half * 0.94)
        bare = covered < 1 or "skirt" in cut
        widen = (
            (0.0, 0.0, 0.0) if bare else (thigh_extra * loose, (thigh_extra + hem_extra) * loose / 2, hem_extra * loose)
        )
        stage.limb(key, (hip, joint), (thigh + widen[0], knee + widen[1]), Page.LEG, rows[:2], 0.8)
        heel = (foot[0], foot[1] - 4.0, foot[2] - 4.0)
        radius = 4.6 if person.shoes != "boots" else 4.9
        stage.limb(key, (heel, skeleton.toes[side]), (radius, radius * 0.78), Page.SHOE, (20, 118))
        if person.shoes in ("boots", "high tops"):
            top = tuple(f + (j - f) * 0.3 for f, j in zip(foot, joint, strict=True))
            stage.limb(key, ((top[0], top[1], top[2]), foot), (ankle + 2.0, ankle + 1.4), Page.SHOE, (20, 28))
        stage.limb(key, (joint, foot), (knee + widen[1], ankle + widen[2]), Page.LEG, rows[1:])
        if bare and "skirt" not in cut:
            _add_short_legs(stage, person, skeleton, side, key, (hip_row, half))
    pelvis_deep = 0.95 * body.depth + 1.2
    stage.column(
        -4,
        [
            (skeleton.waist + 3, body.waist, body.depth * 0.95, 0, 0),
            (skeleton.waist - 8, body.hip * 0.96, pelvis_deep, 0, 8),
            (body.crotch + 4, body.hip + 0.5, pelvis_deep, 0, skeleton.waist - body.crotch - 4),
            (body.crotch - 3, body.hip * 0.9, pelvis_deep * 0.85, 0, skeleton.waist - body.crotch + 3),
        ],
        Page.LEG,
    )
    if "skirt" in cut:
        hem = body.crotch * (1 - covered)
        stride = max(abs(skeleton.knees[0][2]), abs(skeleton.knees[1][2])) * 0.8
        flare = body.hip * (1.12 + 0.22 * loose)
        stage.column(
            -3,
            [
                (skeleton.waist + 4, body.waist + 1, body.depth, 0, 0),
                (skeleton.waist - 12, body.hip + 1.5, pelvis_deep + 1, 0, 12),
                (hem, flare, pelvis_deep * 1.15 + stride, 0, skeleton.waist - hem),
            ],
            Page.SKIRT,
            shadow=1.5,
        )


def _add_short_legs(
    stage: _Stage, person: Person, skeleton: Skeleton, side: int, key: float, rows: tuple[float, float]
) -> None:
    """Shorts or cropped trousers: a wider tube over the bare leg, down to the hem."""
    covered, thigh_extra, hem_extra = LOWER_CUTS[person.lower.cut]
    limb, loose = person.body.limb, person.lower.looseness
    hip, knee, ankle = skeleton.hips[side], skeleton.knees[side], skeleton.ankles[side]
    start, half = rows
    length = covered * person.body.crotch + 10 - start
    upper = min(1.0, length / half)
    middle = _between(hip, knee, upper)
    knee_radius = 5.4 * limb + hem_extra * loose
    if upper >= 1:
        end = _between(knee, ankle, min(1.0, (length - half) / half))
        stage.limb(
            key,
            (knee, end),
            (knee_radius, 4.6 * limb + hem_extra * loose),
            Page.LEG,
            (start + half, start + length),
            0.6,
        )
    radii = (8.4 * limb + thigh_extra * loose, knee_radius + (1 - upper) * 2.6)
    stage.limb(key, (hip, middle), radii, Page.LEG, (start, start + min(length, half)), 0.6)


def _add_torso(stage: _Stage, person: Person, skeleton: Skeleton) -> None:
    body, height = person.body, person.body.height
    loose = person.upper.looseness
    top = skeleton.shoulder + 0.038 * height
    hem = skeleton.waist - UPPER_CUTS[person.upper.cut][1]
    stride = max(abs(skeleton.knees[0][2]), abs(skeleton.knees[1][2]))
    # A long hem must reach around the legs.
    swing = stride * 0.75 * min(1.0, max(0.0, UPPER_CUTS[person.upper.cut][1] - 18) / 34)
    wide = max(body.hip, body.waist)
    rings: list[Ring] = [
        (top, 0.041 * height, 0.042 * height, 0, 0),
        (skeleton.shoulder + 0.02 * height, body.shoulder * 0.54, body.depth * 0.7, 0, 3),
        (skeleton.shoulder + 0.004 * height, body.shoulder * 0.84, body.depth * 0.85, 0, 6),
        (skeleton.shoulder - 0.02 * height, body.shoulder * 0.96 + loose * 0.4, body.depth + loose * 0.4, 0, 10),
        (skeleton.shoulder - 0.08 * height, body.shoulder * 0.86 + loose, body.depth * 1.1 + loose * 0.8, 0, 21),
        (skeleton.waist, body.waist + 1 + loose, body.depth + 0.6 + loose, 0, top - skeleton.waist),
        (skeleton.waist - 11, wide + 0.6 + loose, body.depth + 1.4 + loose, 0, top - skeleton.waist + 11),
    ]
    if hem < skeleton.waist - 13:
        rings.append((hem, wide + 0.8 + loose + swing * 0.1, body.depth + 1.6 + loose + swing, 0, top - hem))
    stage.limb(-1, ((0, skeleton.chin + 4, 1.0), (0, top - 3, -0.5)), (5.4, 6.0), Page.SKIN, (60, 70))
    stage.column(0, rings, Page.TORSO, shadow=0.9)
    back = -(body.depth * 0.6 + loose)
    if person.upper.cut == "hoodie":
        ends = ((-7.5, top - 2, back), (7.5, top - 2, back))
        stage.limb(-7 * stage.view.cosine + 0.5, ends, (5.5, 5.5), Page.HOOD, (10, 40), 0.8)
    if person.scarf:
        stage.limb(6, ((-5, top - 1, 2), (5, top - 1, 2)), (5.2, 5.2), Page.SCARF, (20, 60), 0.8)
        front = body.depth + loose
        ends = ((3.0, top - 4, front * 0.8), (5.0, top - 34, front + 1))
        stage.limb(7 * stage.view.cosine, ends, (4.0, 4.8), Page.SCARF, (4, 40), 0.6)


def _add_arms(stage: _Stage, person: Person, skeleton: Skeleton) -> None:
    body, limb = person.body, person.body.limb
    covered = UPPER_CUTS[person.upper.cut][0]
    loose = 0.45 * person.upper.looseness + 0.7
    skin = (4.5 * limb, 3.8 * limb, 2.9 * limb)
    half = 0.5 * body.arm
    for side in (0, 1):
        shoulder, elbow = skeleton.shoulders[side], skeleton.elbows[side]
        wrist, finger = skeleton.wrists[side], skeleton.fingers[side]
        depth = stage.view.near(_between(shoulder, wrist, 0.6))
        # An arm is behind the torso only if it is clearly so: arms hang beside the body in front and back views.
        key = -20.0 if depth < -7 else 10.0 + 0.01 * depth
        radii = skin if covered < 1 else (skin[0] + loose, skin[1] + loose, skin[2] + loose)
        stage.limb(key, (wrist, finger), (3.0 * limb, 3.5), Page.SKIN, (60, 70))
        stage.limb(key, (elbow, wrist), radii[1:], Page.SLEEVE, (half, body.arm), 0.9)
        stage.limb(key, (shoulder, elbow), radii[:2], Page.SLEEVE, (0, half), 0.9)
        if 0 < covered < 1:
            share = covered * body.arm / half
            ends = (shoulder, _between(shoulder, elbow, share))
            stage.limb(key, ends, (skin[0] + loose, skin[0] + loose), Page.SLEEVE, (0, covered * body.arm), 0.5)


def _add_head(stage: _Stage, person: Person, skeleton: Skeleton, turn: int) -> None:
    head, hair = person.body.head, person.hair
    crown = skeleton.chin + head
    volume = {"bald": 0.0, "buzz": 0.0, "short": 0.03, "bob": 0.1, "long": 0.06, "afro": 0.06}.get(hair, 0.02)
    lower = 0.1 if hair in ("bob", "long") else 0.0
    outline = (
        (-volume, 0.12, 0),
        (0.025, 0.46 + volume, 5),
        (0.09, 0.73 + volume, 13),
        (0.2, 0.93 + volume, 26),
        (0.36, 1.02 + volume, 46),
        (0.54, 1.0 + volume, 68),
        (0.74, 0.86 + lower * 2, 95),
        (0.9, 0.6 + lower * 2.5, 114),
        (1.0, 0.3 + lower * 3, 127),
    )
    rings: list[Ring] = [
        (crown - down * head, size * 0.365 * head, size * 0.44 * head, 1.0, row) for down, size, row in outline
    ]
    if hair == "afro":
        middle = (0.0, crown - 0.3 * head, 0.0)
        stage.limb(4.8, (middle, (0.0, crown - 0.38 * head, 0.0)), (0.6 * head, 0.58 * head), Page.HAIR, (10, 90))
    stage.column(5, rings, Page.HEAD, shadow=0.8, turn=turn)
    behind = -8 * stage.view.cosine
    nape = -0.3 * head
    if hair == "long":
        strands: list[Ring] = [
            (crown - 0.3 * head, 0.36 * head, 0.2 * head, nape, 20),
            (skeleton.chin, 0.42 * head, 0.2 * head, nape, 60),
            (skeleton.shoulder - 8, 0.46 * head, 0.18 * head, nape - 4, 90),
            (skeleton.shoulder - 20, 0.3 * head, 0.1 * head, nape - 5, 120),
        ]
        stage.column(behind if abs(behind) > 2 else 4.5, strands, Page.HAIR, shadow=0.8)
    elif hair == "ponytail":
        ends = ((0.0, crown - 0.25 * head, nape - 3.0), (0.0, skeleton.chin - 10, nape - 6.0))
        stage.limb(behind + 5.5, ends, (3.6, 2.4), Page.HAIR, (10, 110), 0.5)
    elif hair == "bun":
        ends = ((0.0, crown + 1.0, nape), (0.0, crown + 0.5, nape - 1.0))
        stage.limb(5.5, ends, (4.8, 4.8), Page.HAIR, (10, 80), 0.5)
    _add_hat(stage, person, crown, turn)


def _add_hat(stage: _Stage, person: Person, crown: float, turn: int) -> None:
    head, hat = person.body.head, person.hat
    if hat == "none":
        return
    rise, edge = {"cap": (1.5, 0.3), "beanie": (3.5, 0.36), "brimmed": (4.0, 0.28)}[hat]
    wide, deep = 0.37 * head, 0.45 * head
    rings: list[Ring] = [
        (crown + rise, wide * 0.35, deep * 0.35, 1, 0),
        (crown + rise * 0.6, wide * 0.72, deep * 0.72, 1, 12),
        (crown - 0.1 * head, wide * 1.02, deep * 1.02, 1, 60),
        (crown - edge * head, wide * 1.1, deep * 1.08, 1, 126),
    ]
    stage.column(6.2, rings, Page.HAT, shadow=0.5, turn=turn)
    line = crown - (edge - 0.02) * head
    if hat == "cap":
        ends = ((0.0, line, 0.25 * head), (0.0, line - 1.5, 0.45 * head + 8))
        stage.limb(6.3 if stage.view.cosine > -0.3 else 4.9, ends, (0.26 * head, 0.2 * head), Page.HAT, (100, 126), 0.6)
    if hat == "brimmed":
        rim: list[Ring] = [(line + 1, wide + 5, deep + 5, 1, 110), (line - 1.6, wide + 7, deep + 7, 1, 126)]
        stage.column(6.3, rim, Page.HAT, shadow=0.8)


def _add_bag(stage: _Stage, person: Person, skeleton: Skeleton) -> None:
    body, bag, size = person.body, person.bag, person.bag_size
    if bag == "none":
        return
    if bag == "backpack":
        deep = 7.5 * size
        z = -(body.depth + person.upper.looseness + deep * 0.9)
        top = skeleton.shoulder + 1
        rings = _box(top, top - 43 * size, 14.5 * size, deep, z)
        stage.column(-15 * stage.view.cosine, rings, Page.BAG, shadow=1.2, box=True)
        return
    if bag == "shoulder bag":
        x, top, low, deep = body.hip + 5, skeleton.waist - 2, skeleton.waist - 2 - 23 * size, 15 * size
        z = 2.0
    elif bag == "tote":
        x, top, low, deep = -(body.shoulder + 4), skeleton.shoulder - 26, skeleton.shoulder - 26 - 34 * size, 15 * size
        z = -3.0
        ends = ((-(body.shoulder - 4), skeleton.shoulder + 2.5, 0.0), (x, top, z))
        stage.limb(-x * stage.view.sine * 0.9 + 11, ends, (1.4, 1.4), Page.BAG, (64, 64))
    else:
        side = 1 if bag == "handbag" else 0
        hand = skeleton.fingers[side]
        drop = 10 if bag == "handbag" else 7
        length = (22 if bag == "handbag" else 33) * size
        x, top, deep = hand[0], hand[1] - drop, (15 if bag == "handbag" else 13) * size
        z, low = hand[2], hand[1] - drop - length
        for forward in (-0.5, 0.5):
            ends = (hand, (x, top, z + forward * deep))
            stage.limb(-x * stage.view.sine * 0.9 + 11, ends, (1.0, 1.0), Page.BAG, (64, 64))
    near = stage.view.near((x, 0.0, z))
    stage.column(
        -21 if near < -8 else 11 + 0.01 * near, _box(top, low, 5.5, deep, z), Page.BAG, shadow=1.2, box=True, x=x
    )


def _box(top: float, low: float, across: float, deep: float, z: float) -> list[Ring]:
    """Rings of a box with slightly rounded ends; texture rows cover the whole page."""
    tall = top - low
    return [
        (top, across * 0.72, deep * 0.72, z, 0.0),
        (top - 0.08 * tall, across * 0.95, deep * 0.95, z, 10.0),
        (top - 0.5 * tall, across, deep, z, 64.0),
        (low + 0.08 * tall, across, deep, z, 118.0),
        (low, across * 0.9, deep * 0.9, z, PAGE - 1.0),
    ]


def _between(start: Point, end: Point, share: float) -> Point:
    return (
        start[0] + (end[0] - start[0]) * share,
        start[1] + (end[1] - start[1]) * share,
        start[2] + (end[2] - start[2]) * share,
    )
