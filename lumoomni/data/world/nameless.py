"""Things without a name, and names without a thing, for training alone.

Knows scenes. In pictures there are inks and outlines that no word of the world covers: a shape in
inks without a name, a colour on a shape without one. In text there are colours and shapes that no
picture shows. No colour can then be guessed from a shape, or a shape from a colour, which is what
fails on pairs that training never shows. Costs a few microseconds a thing.

Which ink or outline comes is independent of everything else: leaving out those near a held-out
pair taught which colours never go with which shapes (LOG.md). None is near one: a thing half red
and half blue is no red thing, and a bar, a ring, a cross and a half disc are no named shape.
"""

from dataclasses import replace

import numpy as np

from lumoomni.data.world.scene import OUTLINES, RGB, Scene
from lumoomni.data.world.split import COLOURS, SHAPES, pick

STRANGE_COLOURS = ("pink", "brown", "grey", "golden", "silver", "violet")
STRANGE_SHAPES = ("heart", "moon", "ring", "arrow", "kite", "bell")
LEAST_DIFFERENCE = 100
"""Levels of 255 by which two inks of a thing differ in some channel: more than any two shades of
one named colour."""


def dye(scene: Scene, stream: np.random.Generator) -> Scene:
    """The scene with each thing in two inks: only shapes, sizes and places are told by words.

    The names of its colours no longer hold. Inks stay clear of the dull ground.
    """
    things = []
    for thing in scene.things:
        named, one, other = np.array(RGB[thing.colour]), _ink(stream), _ink(stream)
        while alike(one, other):
            other = _ink(stream)
        tints, seam = [_levels(ink - named) for ink in (one, other)], stream.uniform(0, 2 * np.pi)
        things.append(replace(thing, tint=tints[0], other_tint=tints[1], seam=float(seam)))
    return replace(scene, things=tuple(things))


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether a thing in these two inks might be called by one colour."""
    table = np.array([RGB[colour] for colour in COLOURS])
    nearest = [int(np.square(table - ink).sum(1).argmin()) for ink in (one, other)]
    return nearest[0] == nearest[1] or int(np.abs(other - one).max()) < LEAST_DIFFERENCE


def bend(scene: Scene, stream: np.random.Generator) -> Scene:
    """The scene in outlines without a name: only colours, sizes and places are told by words.

    The names of its shapes no longer hold.
    """
    things = []
    for thing in scene.things:
        outline, turn = pick(stream, OUTLINES), float(stream.uniform(0, 2 * np.pi))
        things.append(replace(thing, outline=outline, angle=turn))
    return replace(scene, things=tuple(things))


def rename(scene: Scene, stream: np.random.Generator) -> Scene:
    """The scene, for text alone, with colours or with shapes that no picture shows.

    Things that shared a colour (or shape) still do, and no others. A reader learns that the word
    after "white" is what was said, and not one of the shapes that white things mostly have.
    """
    recolour = bool(stream.random() < 0.5)
    strange, known = (STRANGE_COLOURS, COLOURS) if recolour else (STRANGE_SHAPES, SHAPES)
    order = stream.permutation(len(strange))
    used: dict[str, str] = {}
    for thing in scene.things:
        word = thing.colour if recolour else thing.shape
        assert word in known, f"{word} has been renamed already"
        used.setdefault(word, strange[int(order[len(used)])])
    things = [
        replace(thing, colour=used[thing.colour])
        if recolour
        else replace(thing, shape=used[thing.shape])
        for thing in scene.things
    ]
    return replace(scene, things=tuple(things))


def _ink(stream: np.random.Generator) -> np.ndarray:
    """Red, green and blue, clear of the dull ground."""
    while True:
        ink = stream.integers(0, 256, size=3)
        if np.abs(ink - 153).max() > 70:
            return ink


def _levels(change: np.ndarray) -> tuple[int, int, int]:
    """A change of the three channels."""
    red, green, blue = change.tolist()
    return red, green, blue
