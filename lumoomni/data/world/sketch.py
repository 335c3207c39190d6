"""Scenes as one draws them: on a grey sheet of squared paper, upright, in just the colours that
have names.

Knows: how a scene is laid out on squares and painted. Does not know: words, or who learns from it.
Costs: a search of the nearest clear places for each scene; less than `draw` to paint it.

Pictures that are looked at have grounds, grain, tints, tilts, and things of any size anywhere, so
that eyes do not mind them. No request names any of these. Whoever learns to draw from such pictures
learns their chance first (LOG.md); a sketch keeps what can be asked for, and says the rest one way:
each size has one radius, and the middle of a thing stands where lines of the paper cross.
"""

from dataclasses import replace

import numpy as np

from lumoomni.data.world.scene import RADII, Scene, Thing, clear, paint, safe_places

SHEET = 153.0
SQUARES = 4
"""Along each side of the paper."""
MARGIN = 0.01
FULL = 0.85
"""How far into the radii of its size the one of a sketch is: small stars are fine enough."""
NEAREST = {1: 1, 2: 9, 3: 9}
"""Crossings that each thing may move to, by the count of things."""


def sketch(scene: Scene, size: int = 64) -> np.ndarray:
    """The picture, uint8[size, size, 3]."""
    canvas = np.full((size, size, 3), SHEET, dtype=np.float32)
    for thing in laid_out(scene).things:
        paint(canvas, thing, size)
    return (np.clip(canvas, 0.0, 255.0) + 0.5).astype(np.uint8)


def laid_out(scene: Scene) -> Scene:
    """The scene with each thing on the crossing that moves all of them least, and yet keeps them
    apart, in their relation and in their order from left to right."""
    radii = [_radius(*RADII[thing.size]) for thing in scene.things]
    choices = [
        _crossings(thing.x, thing.y, radius, NEAREST[len(radii)])
        for thing, radius in zip(scene.things, radii, strict=True)
    ]
    picks = np.indices([len(one) for one in choices]).reshape(len(choices), -1)
    places = np.stack([one[pick] for one, pick in zip(choices, picks, strict=True)], 1)
    moved = np.square(places - [[one.x, one.y] for one in scene.things]).sum((1, 2))
    wanted = scene.relation or ""
    nearest = (places[k].tolist() for k in np.argsort(moved, kind="stable"))
    best = next((points for points in nearest if clear(points, radii, wanted)), None)
    if best is None:
        best = np.round(np.array(safe_places(radii, wanted)) * SQUARES) / SQUARES
    things = (
        replace(_neat(thing), x=float(x), y=float(y), radius=radius)
        for thing, radius, (x, y) in zip(scene.things, radii, best, strict=True)
    )
    return replace(scene, things=tuple(things))


def _neat(thing: Thing) -> Thing:
    """Upright, in the colour that its name says, or in two inks of any kind, side by side or one
    above the other."""
    if thing.other_tint is None:
        return replace(thing, angle=0.0, tint=(0, 0, 0))
    return replace(thing, angle=0.0, seam=round(thing.seam / (np.pi / 2)) * np.pi / 2)


def _radius(least: float, most: float) -> float:
    return least + FULL * (most - least)


def _crossings(x: float, y: float, radius: float, most: int) -> np.ndarray:
    """The nearest crossings [M, 2] where a thing of the radius is inside of the sheet."""
    line = np.arange(SQUARES + 1) / SQUARES
    line = line[np.abs(line - 0.5) <= 0.5 - radius - MARGIN]
    points = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    return points[np.argsort(np.square(points - [x, y]).sum(1), kind="stable")[:most]]
