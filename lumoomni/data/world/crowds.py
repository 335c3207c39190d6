"""Pictures to learn coding from: more and smaller things than scenes have, and more stars.

Knows: scenes and how they are drawn. Does not know: codecs. Costs: 0.4 ms a scene.

Three of four cells of a common picture show nothing but ground, and of what they show, stars are
the finest and rarest. Words play no part, so things may be as many as there is room for. Held-out
pairs stay away: colours that a shape may not have come to it by halves (a star half white and half
red is no white star) and on shapes without a name that are nearly stars.
"""

from dataclasses import dataclass, replace

import numpy as np

from lumoomni.data.world.scene import POINTED, RADII, RGB, Scene, Thing, make_scene
from lumoomni.data.world.split import COLOURS, TRAIN_PAIRS, pick, rng

MOST = 8
TRIES = 60
GAP = 0.01
INKS = (*COLOURS, *["white"] * 5)
"""White differs from a ground by lightness alone, as grounds do from each other: it needs more."""


@dataclass(frozen=True, kw_only=True)
class CrowdConfig:
    """Shares: of pictures that are crowds; of their things that are small, that are stars, and of
    stars of a colour that they may have how many get four or six points all the same; and of all
    things in two inks."""

    crowds: float = 0.8
    small: float = 0.8
    stars: float = 0.6
    nameless: float = 0.5
    two_inks: float = 0.5


def coding_scene(seed: int, index: int, config: CrowdConfig) -> Scene:
    """A crowd, or a scene of the training split; a pure function of its arguments."""
    stream = rng(seed, "to be coded", index)
    crowd = stream.random() < config.crowds
    scene = _crowd(stream, config) if crowd else make_scene(seed, "train", index)
    things = (
        _two_inked(thing, stream) if stream.random() < config.two_inks else thing
        for thing in scene.things
    )
    return replace(scene, things=tuple(things))


def _crowd(stream: np.random.Generator, config: CrowdConfig) -> Scene:
    """Four to eight things that keep apart, wherever there is room."""
    things: list[Thing] = []
    wanted = int(stream.integers(4, MOST + 1))
    for _ in range(TRIES):
        size = "small" if stream.random() < config.small else "large"
        radius = float(stream.uniform(*RADII[size]))
        edge = 0.8 * radius + GAP
        x, y = stream.uniform(edge, 1 - edge, size=2).tolist()
        near = (np.hypot(x - t.x, y - t.y) < radius + t.radius + GAP for t in things)
        if not any(near):
            things.append(_thing(stream, config, size, radius, (x, y)))
        if len(things) == wanted:
            break
    return Scene(tuple(things), "train", int(stream.integers(2**62)))


def _thing(
    stream: np.random.Generator,
    config: CrowdConfig,
    size: str,
    radius: float,
    place: tuple[float, float],
) -> Thing:
    star = stream.random() < config.stars
    # Colours that no star may have come on what is nearly one.
    pair = (pick(stream, INKS), "star") if star else pick(stream, TRAIN_PAIRS)
    nearly = star and (pair not in TRAIN_PAIRS or stream.random() < config.nameless)
    outline = pick(stream, tuple(POINTED)) if nearly else None
    red, green, blue = stream.integers(-10, 11, size=3).tolist()
    turn = float(stream.uniform(-0.2, 0.2))
    tint = (red, green, blue)
    return Thing(*pair, size, *place, radius, turn, tint, outline=outline)


def _two_inked(thing: Thing, stream: np.random.Generator) -> Thing:
    """The thing with another colour on one half."""
    other = pick(stream, [colour for colour in COLOURS if colour != thing.colour])
    change = np.subtract(RGB[other], RGB[thing.colour]) + stream.integers(-10, 11, size=3)
    red, green, blue = change.tolist()
    return replace(thing, other_tint=(red, green, blue), seam=float(stream.uniform(0, 2 * np.pi)))
