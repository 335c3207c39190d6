"""How much of a scene was read rightly off a picture that ought to show it.

Knows: scenes and readings. Does not know: pixels, or who made the picture. Costs: a tenth of a
millisecond.

Where things stand is asked only as far as words say it: which of two is above the other, or the
order of three from left to right. What could not be read is not right.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from lumoomni.data.world.reading import Reading, Seen, relation
from lumoomni.data.world.scene import MOST_THINGS, Scene

ATTRIBUTES: tuple[str, ...] = ("count", "colour", "shape", "size", "relation")


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Questions asked and answered rightly, by attribute (ATTRIBUTES)."""

    right: dict[str, int]
    asked: dict[str, int]

    @property
    def whole(self) -> bool:
        """Whether everything was right."""
        return self.right == self.asked


def mark(reading: Reading, scene: Scene) -> Marks:
    """The marks of the best assignment of what was read to the things of the scene."""
    asked = {name: len(scene.things) for name in ("colour", "shape", "size")}
    asked = {"count": 1, **asked, "relation": len(scene.things) - 1}
    none: dict[str, int] = dict.fromkeys(ATTRIBUTES, 0)
    if len(reading.things) > 2 * MOST_THINGS:  # nothing but crumbs
        return Marks(right=none, asked=asked)
    padded = [*reading.things, *[None] * len(scene.things)]
    ways = itertools.permutations(padded, len(scene.things))
    best = max((_right(way, scene) for way in ways), key=lambda right: sum(right.values()))
    count = int(reading.count == len(scene.things))
    return Marks(right={**none, "count": count, **best}, asked=asked)


def add_up(marks: Iterable[Marks]) -> Marks:
    """The sums over many pictures."""
    every = list(marks)
    return Marks(
        right={name: sum(one.right[name] for one in every) for name in ATTRIBUTES},
        asked={name: sum(one.asked[name] for one in every) for name in ATTRIBUTES},
    )


def _right(way: tuple[Seen | None, ...], scene: Scene) -> dict[str, int]:
    """Right answers when the things of the scene are taken for those read, in this order."""
    pairs = list(zip(way, scene.things, strict=True))
    right = {
        name: sum(seen is not None and getattr(seen, name) == getattr(t, name) for seen, t in pairs)
        for name in ("colour", "shape", "size")
    }
    if len(way) == 2:
        first, second = way
        told = None if first is None or second is None else relation(first, second)
        return {**right, "relation": int(told == scene.relation)}
    order = [a is not None and b is not None and a.x < b.x for a, b in itertools.pairwise(way)]
    return {**right, "relation": sum(order)}
