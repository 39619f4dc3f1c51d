"""Where the joints of a walking person are, and how they project into the image. Lengths in centimetres."""

import math
from dataclasses import dataclass

from icre_jax.rendering.draws import Draws
from icre_jax.rendering.person import Body
from icre_jax.rendering.raster import TURN, cos_turn, sin_turn
from icre_jax.rendering.settings import Difficulty

Point = tuple[float, float, float]  # x to the person's left, y up from the floor, z forward
ANKLE = 8.0


@dataclass(frozen=True)
class Pose:
    """Angles in 1/1024 turns, index 0 is the person's right side."""

    yaw: int  # 0 faces the camera, 256 faces the right edge of the image
    head_turn: int
    swing: tuple[int, int]  # thigh, forward positive
    knee: tuple[int, int]
    arm: tuple[int, int]  # upper arm, forward positive
    elbow: tuple[int, int]
    spread: tuple[int, int]  # arms away from the body


def sample_pose(draws: Draws, difficulty: Difficulty) -> Pose:
    """Viewpoint, moment of the gait, and what the arms do."""
    if draws.chance(difficulty.off_axis):
        yaw = draws.integer(0, TURN - 1)
    else:
        yaw = draws.integer(-90, 90) + (TURN // 2 if draws.chance(0.5) else 0)
    stride = 0.0 if draws.chance(0.2) else difficulty.gait * draws.uniform(0.5, 1.0)
    phase = draws.integer(0, TURN - 1)
    swing, knee, arm, elbow = [], [], [], []
    for side in (0, 1):
        angle = phase + side * (TURN // 2)
        swing.append(round(72 * stride * sin_turn(angle)))
        # The leg that travels forward is the bent one.
        knee.append(round(6 + 110 * stride * max(0.0, cos_turn(angle))))
        arm.append(round(-62 * stride * sin_turn(angle)))
        elbow.append(draws.integer(10, 60))
        if draws.chance(0.15 * difficulty.gait):  # a telephone, a strap, folded arms
            arm[-1], elbow[-1] = draws.integer(20, 90), draws.integer(150, 360)
    return Pose(
        yaw=yaw % TURN,
        head_turn=draws.integer(-60, 60),
        swing=(swing[0], swing[1]),
        knee=(knee[0], knee[1]),
        arm=(arm[0], arm[1]),
        elbow=(elbow[0], elbow[1]),
        spread=(draws.integer(14, 42), draws.integer(14, 42)),
    )


@dataclass(frozen=True)
class View:
    """An orthographic camera that looks slightly down; a person's head is nearer to it than the feet."""

    scale: float  # pixels per centimetre
    foot: tuple[float, float]  # pixel (x, y) below the person's axis
    height: float  # of the person, cm
    perspective: float  # relative difference in scale from feet to head
    pitch: float  # pixels down per pixel towards the camera
    sine: float
    cosine: float

    def project(self, point: Point) -> tuple[float, float]:
        """Pixel (x, y) of a point."""
        x, y, z = point
        side = x * self.cosine + z * self.sine
        return (
            self.foot[0] + side * self.scale_at(y),
            self.foot[1] - self.lift(y) + self.near(point) * self.scale * self.pitch,
        )

    def near(self, point: Point) -> float:
        """Distance towards the camera from the person's axis, cm."""
        return point[2] * self.cosine - point[0] * self.sine

    def lift(self, y: float) -> float:
        """Pixels above the foot of a height y."""
        return self.scale * y * (1 + self.perspective / 2 * (y / self.height - 1))

    def scale_at(self, y: float) -> float:
        """Pixels per centimetre across, at a height y."""
        return self.scale * (1 + self.perspective * (y / self.height - 0.5))

    def half_width(self, across: float, deep: float) -> float:
        """Half width, in centimetres, of an ellipse with these half axes as seen from here."""
        a, b = across * self.cosine, deep * self.sine
        return math.sqrt(a * a + b * b)

    def box_width(self, across: float, deep: float) -> float:
        """Half width, in centimetres, of a box with these half sides as seen from here."""
        return abs(across * self.cosine) + abs(deep * self.sine)


def look(pose: Pose, body: Body, scale: float, foot: tuple[float, float], perspective: float) -> View:
    """The view of a person whose height is scaled by `scale` pixels per centimetre."""
    return View(
        scale=scale,
        foot=foot,
        height=body.height,
        perspective=perspective,
        pitch=0.12,
        sine=sin_turn(pose.yaw),
        cosine=cos_turn(pose.yaw),
    )


@dataclass(frozen=True)
class Skeleton:
    """Joints; pairs are (right, left)."""

    chin: float  # heights on the axis
    shoulder: float
    waist: float
    hips: tuple[Point, Point]
    knees: tuple[Point, Point]
    ankles: tuple[Point, Point]
    toes: tuple[Point, Point]
    shoulders: tuple[Point, Point]
    elbows: tuple[Point, Point]
    wrists: tuple[Point, Point]
    fingers: tuple[Point, Point]


def bend(body: Body, pose: Pose) -> Skeleton:
    """The joints of a body in a pose; the lower foot stands on the floor."""
    height = body.height
    length = body.crotch + 0.03 * height - ANKLE
    reach = []
    for side in (0, 1):
        thigh, shin = pose.swing[side], pose.swing[side] - pose.knee[side]
        knee = (-0.53 * length * cos_turn(thigh), 0.53 * length * sin_turn(thigh))
        ankle = (knee[0] - 0.47 * length * cos_turn(shin), knee[1] + 0.47 * length * sin_turn(shin))
        reach.append((knee, ankle, shin))
    # The hips sink as the legs spread; the head does not, as a detector's box is drawn around the whole person.
    hip_y = ANKLE - min(reach[0][1][0], reach[1][1][0])
    joints: dict[str, list[Point]] = {
        name: [] for name in ("hips", "knees", "ankles", "toes", "shoulders", "elbows", "wrists", "fingers")
    }
    chin = height - body.head
    shoulder = chin - 0.055 * height
    for side, sign in ((0, -1), (1, 1)):
        knee, ankle, shin = reach[side]
        x = sign * 0.5 * body.hip
        joints["hips"].append((x, hip_y, 0.0))
        joints["knees"].append((x, hip_y + knee[0], knee[1]))
        joints["ankles"].append((x * 0.9, hip_y + ankle[0], ankle[1]))
        # The heel lifts with the shin.
        tilt = min(0, shin) // 2
        toe = (16 * cos_turn(tilt), 16 * sin_turn(tilt))
        joints["toes"].append((x * 1.1, hip_y + ankle[0] - 3.5 + toe[1], ankle[1] + toe[0]))
        joint = (sign * (body.shoulder - 4.0 * body.limb), shoulder - 4.8, 0.0)
        out = sign * sin_turn(pose.spread[side])
        upper, fore = 0.5 * body.arm, 0.5 * body.arm
        angle = pose.arm[side]
        elbow = (
            joint[0] + upper * out,
            joint[1] - upper * cos_turn(angle) * cos_turn(pose.spread[side]),
            joint[2] + upper * sin_turn(angle),
        )
        angle += pose.elbow[side]
        wrist = (elbow[0] + fore * out * 0.3, elbow[1] - fore * cos_turn(angle), elbow[2] + fore * sin_turn(angle))
        share = 8.5 / fore
        finger = tuple(w + (w - e) * share for e, w in zip(elbow, wrist, strict=True))
        joints["shoulders"].append(joint)
        joints["elbows"].append(elbow)
        joints["wrists"].append(wrist)
        joints["fingers"].append((finger[0], finger[1], finger[2]))
    pairs = {name: (points[0], points[1]) for name, points in joints.items()}
    return Skeleton(chin=chin, shoulder=shoulder, waist=body.crotch + 0.13 * height, **pairs)
