"""Scenes of one to three coloured shapes, and how they look.

Knows no words beyond the attribute names. Positions and radii are shares of the picture's side,
with y pointing down. Making a scene costs about 0.1 ms, drawing it at 64 pixels about 0.5 ms.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from lumoomni.data.world.split import (
    COLOURS,
    HELD_OUT_PAIRS,
    SHAPES,
    SIZES,
    check_split,
    pairs_of,
    pick,
    rng,
)
from lumoomni.errors import InputError

RELATIONS = ("above", "below", "left of", "right of")
INVERSE = {
    "above": "below",
    "below": "above",
    "left of": "right of",
    "right of": "left of",
}
RADII = {"small": (0.095, 0.115), "large": (0.18, 0.21)}
TWIN_KINDS = ("colour", "shape", "size", "relation")
MOST_THINGS = 3
OUTLINES = ("bar", "ring", "cross", "half")
POINTED = {"four points": 4, "six points": 6}
"""Outlines without a name that are nearly stars."""

RGB = {
    "red": (214, 34, 40),
    "green": (28, 150, 62),
    "blue": (38, 78, 214),
    "yellow": (246, 222, 44),
    "orange": (246, 136, 26),
    "purple": (132, 48, 160),
    "white": (250, 250, 250),
    "black": (18, 18, 20),
}

_GAP = 0.035  # between the circles around two things
_STEP = 0.12  # least distance from left to right in a scene of three
_LEAN = 1.7  # how much the relation's axis outweighs the other one
_COUNT_SHARES = (0.3, 0.4, 0.3)


@dataclass(frozen=True)
class Thing:
    """One shape: position and radius of the circle around it, turn in radians, tint in levels.

    With `other_tint`, the half beyond a line through the centre at `seam` radians has that tint.
    With `outline` it has a shape without a name, and `shape` no longer holds.
    """

    colour: str
    shape: str
    size: str
    x: float
    y: float
    radius: float
    angle: float = 0.0
    tint: tuple[int, int, int] = (0, 0, 0)
    other_tint: tuple[int, int, int] | None = None
    seam: float = 0.0
    outline: str | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """(colour, shape): what tells the things of a scene apart."""
        return self.colour, self.shape


@dataclass(frozen=True)
class Scene:
    """One to three things from left to right, and the key of the background's random stream.

    With two things, the first is the one that the relation speaks of first.
    """

    things: tuple[Thing, ...]
    split: str
    key: int

    @property
    def relation(self) -> str | None:
        """Where the first of two things is, seen from the second; None for other counts."""
        if len(self.things) != 2:
            return None
        first, second = self.things
        dx, dy = first.x - second.x, first.y - second.y
        if abs(dx) > abs(dy):
            return "left of" if dx < 0 else "right of"
        return "above" if dy < 0 else "below"


def make_scene(seed: int, split: str, index: int, count: int | None = None) -> Scene:
    """The scene of an index; a pure function of its arguments.

    Raises InputError for an unknown split and for a count outside 1..3.
    """
    check_split(split)
    if count is not None and not 1 <= count <= MOST_THINGS:
        raise InputError(f"a scene holds 1 to {MOST_THINGS} things, not {count}: give such a count")
    stream = rng(seed, "scene", split, index, count or 0)
    if count is None:
        count = 1 + int(np.searchsorted(np.cumsum(_COUNT_SHARES)[:-1], stream.random()))
    pairs = _choose_pairs(stream, split, count)
    sizes = [pick(stream, SIZES) for _ in range(count)]
    radii = [float(stream.uniform(*RADII[size])) for size in sizes]
    places = _place(stream, radii)
    things = tuple(
        Thing(
            colour,
            shape,
            size,
            x,
            y,
            radius,
            float(stream.uniform(-0.2, 0.2)),
            (_level(stream), _level(stream), _level(stream)),
        )
        for (colour, shape), size, radius, (x, y) in zip(pairs, sizes, radii, places, strict=True)
    )
    return Scene(things, split, int(stream.integers(2**62)))


def _level(stream: np.random.Generator) -> int:
    """A small change of one colour channel."""
    return int(stream.integers(-10, 11))


def _choose_pairs(stream: np.random.Generator, split: str, count: int) -> list[tuple[str, str]]:
    """Different (colour, shape) pairs; the unseen split gets at least one that is held out."""
    pairs: list[tuple[str, str]] = []
    if split == "unseen":
        pairs.append(pick(stream, HELD_OUT_PAIRS))
    while len(pairs) < count:
        pair = pick(stream, pairs_of(split))
        if pair not in pairs:
            pairs.append(pair)
    order = stream.permutation(count)
    return [pairs[int(i)] for i in order]


def _place(stream: np.random.Generator, radii: list[float]) -> list[tuple[float, float]]:
    """Positions inside the picture that do not overlap and whose relation cannot be mistaken."""
    low = np.array(radii) + 0.02
    wanted = pick(stream, RELATIONS)
    for _ in range(12):
        tries = low[:, None] + stream.random((16, len(radii), 2)) * (1 - 2 * low[:, None])
        for points in tries.tolist():
            if len(radii) == 3:
                points = _swept(points, radii)
            if clear(points, radii, wanted):
                return [(float(x), float(y)) for x, y in points]
    return safe_places(radii, wanted)


def _swept(points: list[list[float]], radii: list[float]) -> list[list[float]]:
    """Spread three points over the width, so that few tries are lost to unclear order."""
    swept = []
    for i, ((x, y), radius) in enumerate(zip(points, radii, strict=True)):
        jitter = (x - 0.5) * 0.3
        centre = (0.2, 0.5, 0.8)[i] + jitter
        swept.append([min(max(centre, radius + 0.02), 0.98 - radius), y])
    return swept


def clear(points: list[list[float]], radii: list[float], wanted: str) -> bool:
    """Whether the places keep apart, and stand as the count of things asks for."""
    for i in range(len(points)):
        for j in range(i):
            dx, dy = points[i][0] - points[j][0], points[i][1] - points[j][1]
            if dx * dx + dy * dy < (radii[i] + radii[j] + _GAP) ** 2:
                return False
    if len(points) == 2:
        dx, dy = points[0][0] - points[1][0], points[0][1] - points[1][1]
        along, across = (dx, dy) if wanted in ("left of", "right of") else (dy, dx)
        if wanted in ("right of", "below"):
            along = -along
        return along < 0 and -along > _LEAN * abs(across)
    return all(b[0] - a[0] >= _STEP for a, b in itertools.pairwise(points))


def safe_places(radii: list[float], wanted: str) -> list[tuple[float, float]]:
    """Places that are always clear, for when chance finds none."""
    if len(radii) == 1:
        return [(0.5, 0.5)]
    if len(radii) == 3:
        return [(0.23, 0.25), (0.5, 0.75), (0.77, 0.25)]
    near, far = (0.25, 0.75) if wanted in ("left of", "above") else (0.75, 0.25)
    if wanted in ("left of", "right of"):
        return [(near, 0.5), (far, 0.5)]
    return [(0.5, near), (0.5, far)]


def twin(scene: Scene, index: int, kind: str) -> Scene:
    """The same scene with exactly one attribute changed: a hard negative.

    ``index`` picks the thing (modulo their number) and the new value; where that thing cannot
    change, the next one does. "relation" mirrors a scene of two things along their axis. Never
    makes a pair that the split may not have. Raises InputError for a kind not in `twin_kinds`.
    """
    if kind not in TWIN_KINDS:
        raise InputError(f"unknown kind of twin {kind!r}: use one of {', '.join(TWIN_KINDS)}")
    if kind == "relation":
        return _mirror(scene)
    place = index % len(scene.things)
    stream = rng(scene.key, "twin", kind, index)
    if kind == "size":
        return _resized(scene, place, stream)
    for step in range(len(scene.things)):
        place = (index + step) % len(scene.things)
        options = _other_pairs(scene, place, kind)
        if options:
            colour, shape = pick(stream, options)
            return _with(scene, place, replace(scene.things[place], colour=colour, shape=shape))
    raise InputError(
        f"no {kind} of this scene's {len(scene.things)} things can change to one that its split "
        "may have: choose another kind"
    )


def twin_kinds(scene: Scene) -> tuple[str, ...]:
    """The kinds of twin that the scene has: three red things may hold every red shape there is."""
    found = [
        kind
        for kind in ("colour", "shape")
        if any(_other_pairs(scene, place, kind) for place in range(len(scene.things)))
    ]
    return (*found, "size", *(("relation",) if scene.relation is not None else ()))


def _other_pairs(scene: Scene, place: int, kind: str) -> list[tuple[str, str]]:
    """(colour, shape) that a thing may take instead, one of both the same."""
    thing = scene.things[place]
    taken = {other.pair for other in scene.things}
    if kind == "colour":
        options = [(colour, thing.shape) for colour in COLOURS]
    else:
        options = [(thing.colour, shape) for shape in SHAPES]
    allowed = pairs_of(scene.split)
    return [pair for pair in options if pair in allowed and pair not in taken]


def _with(scene: Scene, place: int, thing: Thing) -> Scene:
    """The scene with one thing put in the place of another."""
    things = (*scene.things[:place], thing, *scene.things[place + 1 :])
    return replace(scene, things=things)


def _mirror(scene: Scene) -> Scene:
    """Two things, seen in a mirror across the axis of their relation."""
    relation = scene.relation
    if relation is None:
        raise InputError(
            f"a relation twin needs 2 things and this scene has {len(scene.things)}: "
            "choose another kind"
        )
    if relation in ("left of", "right of"):
        return replace(scene, things=tuple(replace(t, x=1 - t.x) for t in scene.things))
    return replace(scene, things=tuple(replace(t, y=1 - t.y) for t in scene.things))


def _resized(scene: Scene, place: int, stream: np.random.Generator) -> Scene:
    """One thing in its other size; the others move aside only where it would not fit."""
    thing = scene.things[place]
    size = SIZES[1 - SIZES.index(thing.size)]
    radius = float(stream.uniform(*RADII[size]))
    resized = replace(thing, size=size, radius=radius)
    things = (*scene.things[:place], resized, *scene.things[place + 1 :])
    radii = [t.radius for t in things]
    points = [[t.x, t.y] for t in things]
    wanted = scene.relation or "above"
    inside = all(r <= v <= 1 - r for r, point in zip(radii, points, strict=True) for v in point)
    if inside and clear(points, radii, wanted):
        return replace(scene, things=things)
    moved = _place_as(stream, radii, wanted)
    return replace(
        scene,
        things=tuple(replace(t, x=x, y=y) for t, (x, y) in zip(things, moved, strict=True)),
    )


def _place_as(
    stream: np.random.Generator, radii: list[float], wanted: str
) -> list[tuple[float, float]]:
    """New places that keep the relation, or the order from left to right."""
    for _ in range(8):
        points = _place(stream, radii)
        if clear([list(point) for point in points], radii, wanted):
            return points
    return safe_places(radii, wanted)


def draw(scene: Scene, size: int = 64) -> np.ndarray:
    """The picture, uint8[size, size, 3], with anti-aliased edges."""
    canvas = _background(scene.key, size)
    for thing in scene.things:
        paint(canvas, thing, size)
    return (np.clip(canvas, 0.0, 255.0) + 0.5).astype(np.uint8)


def _background(key: int, size: int) -> np.ndarray:
    """A dull ground, float32[size, size, 3]: neither white nor black nor any vivid colour."""
    stream = rng(key, "background")
    grey = stream.uniform(120, 186)
    tone = stream.uniform(-12, 12, size=3)
    base = (grey + tone - tone.mean()).astype(np.float32)
    canvas = np.empty((size, size, 3), dtype=np.float32)
    canvas[:] = base
    style = int(stream.integers(4))
    if style in (1, 3):
        turn = stream.uniform(0, 2 * np.pi)
        ramp = np.linspace(-1, 1, size, dtype=np.float32) * np.float32(stream.uniform(5, 13))
        slope = np.float32(np.cos(turn)) * ramp[None, :] + np.float32(np.sin(turn)) * ramp[:, None]
        canvas += slope[:, :, None]
    if style in (2, 3):
        grain = stream.standard_normal((size, size), dtype=np.float32)
        canvas += (grain * np.float32(stream.uniform(1.0, 4.0)))[:, :, None]
    return canvas


def paint(canvas: np.ndarray, thing: Thing, size: int) -> None:
    """Blend one thing into the window of the canvas that it covers."""
    reach = thing.radius * size + 1.5
    cx, cy = thing.x * size - 0.5, thing.y * size - 0.5
    left, right = max(0, int(cx - reach)), min(size, int(cx + reach) + 2)
    top, bottom = max(0, int(cy - reach)), min(size, int(cy + reach) + 2)
    dx = np.arange(left, right, dtype=np.float32) - np.float32(cx)
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(cy)
    cover = np.clip(0.5 - _distance(thing, dx, dy, thing.radius * size), 0.0, 1.0)[:, :, None]
    ink = np.clip(np.add(RGB[thing.colour], thing.tint), 0, 255).astype(np.float32)
    if thing.other_tint is not None:
        other = np.clip(np.add(RGB[thing.colour], thing.other_tint), 0, 255).astype(np.float32)
        beyond = dx * np.float32(np.cos(thing.seam)) + dy * np.float32(np.sin(thing.seam))
        share = np.clip(0.5 + beyond, 0.0, 1.0)[:, :, None]
        ink = ink + share * (other - ink)
    window = canvas[top:bottom, left:right]
    window += cover * (ink - window)


def _distance(thing: Thing, dx: np.ndarray, dy: np.ndarray, radius: float) -> np.ndarray:
    """Pixels outside (+) or inside (-) the outline, float32[h, w].

    Polygons fold the plane into one sector around a corner, where a single edge is left.
    """
    span = np.sqrt(dx * dx + dy * dy)
    if thing.outline is not None:
        return _bent(thing, dx, dy, radius)
    if thing.shape == "circle":
        # A full circle would look larger than any polygon of the same radius.
        return span - np.float32(0.9 * radius)
    corners = {"triangle": 3, "square": 4, "star": 5}[thing.shape]
    return _polygon(thing, dx, dy, radius, corners)


def _polygon(
    thing: Thing, dx: np.ndarray, dy: np.ndarray, radius: float, corners: int
) -> np.ndarray:
    """Pixels outside (+) or inside (-) a polygon or a star, float32[h, w]."""
    span = np.sqrt(dx * dx + dy * dy)
    pointed = thing.outline in POINTED or thing.shape == "star"
    # A corner points up, except that a square stands on its side.
    start = np.pi / 4 if thing.outline is None and thing.shape == "square" else 0.0
    half = np.pi / corners
    turn = np.arctan2(dx, -dy) - np.float32(thing.angle + start)
    folded = np.abs(np.mod(turn + np.float32(half), np.float32(2 * half)) - np.float32(half))
    inner = 0.45 * radius if pointed else radius * np.cos(half)
    # The edge runs from the corner (radius, 0) to the fold (inner, half).
    ex, ey = inner * np.cos(half) - radius, inner * np.sin(half)
    length = float(np.hypot(ex, ey))
    x, y = span * np.cos(folded), span * np.sin(folded)
    along, across = np.float32(ex / length), np.float32(ey / length)
    return (x - np.float32(radius)) * across - y * along


def _bent(thing: Thing, dx: np.ndarray, dy: np.ndarray, radius: float) -> np.ndarray:
    """Pixels outside (+) or inside (-) an outline without a name, float32[h, w]."""
    if thing.outline in POINTED:
        return _polygon(thing, dx, dy, radius, POINTED[thing.outline])
    if thing.outline == "ring":
        return np.abs(np.sqrt(dx * dx + dy * dy) - np.float32(0.7 * radius)) - 0.2 * radius
    u = np.abs(dx * np.float32(np.cos(thing.angle)) + dy * np.float32(np.sin(thing.angle)))
    v = dy * np.float32(np.cos(thing.angle)) - dx * np.float32(np.sin(thing.angle))
    if thing.outline == "half":
        return np.maximum(np.sqrt(dx * dx + dy * dy) - np.float32(0.9 * radius), v)
    long, short, v = 0.95 * radius, 0.3 * radius, np.abs(v)
    bar = np.maximum(u - long, v - short)
    if thing.outline == "bar":
        return bar
    return np.minimum(bar, np.maximum(u - short, v - long))
