"""What a source yields: a text conversation, a spoken sentence, or a picture with its caption.

Knows: the fields that training and measuring need. Does not know: where items come from.
"""

import itertools
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np

from lumoomni.data.world.scene import Scene
from lumoomni.data.world.speech import WordTime

UNTOLD = "_"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Region:
    """Words for a part of a picture: centre and radius as shares of the sides, y down.

    UNTOLD in the text stands for a word that nobody told: it is not learned, and keeps its place.
    """

    x: float
    y: float
    radius: float
    text: str

    def centre(self, grid: int) -> int:
        """The cell of a grid x grid picture, row by row, that its centre lies in."""
        return min(int(self.y * grid), grid - 1) * grid + min(int(self.x * grid), grid - 1)

    def cells(self, grid: int) -> list[int]:
        """Cells of a grid x grid picture, row by row, whose centre it covers: at least its own."""
        found = {self.centre(grid)}
        for row in range(grid):
            for column in range(grid):
                dx, dy = (column + 0.5) / grid - self.x, (row + 0.5) / grid - self.y
                if dx * dx + dy * dy <= self.radius * self.radius:
                    found.add(row * grid + column)
        return sorted(found)


@dataclass(frozen=True)
class Sensed:
    """Words in the place of a picture or a sound, as a connector would say them.

    Sound takes `spread` positions for each id of its words; a picture takes as many as it always
    does. What the words leave over is silence. It stands before the text of its `turn`.
    """

    kind: Literal["image", "audio"]
    words: str
    spread: float = 1.0
    turn: int = 0


@dataclass(frozen=True)
class TextItem:
    """Turns of (role, text), the assistant's last; `accepted` are right last answers.

    `sensed` comes before the first turn's text.
    """

    turns: tuple[tuple[str, str], ...]
    accepted: tuple[str, ...] = ()
    kind: str = ""
    sensed: tuple[Sensed, ...] = ()


@dataclass(frozen=True)
class SpeechItem:
    """samples float32[T] at 16 kHz; `words` is None where no alignment is known."""

    text: str
    samples: np.ndarray
    words: tuple[WordTime, ...] | None
    name: str


@dataclass(frozen=True)
class PictureItem:
    """image uint8[H, W, 3]; `scene` is the ground truth where there is one, `regions` what is
    known of where things are."""

    image: np.ndarray
    caption: str
    scene: Scene | None
    name: str
    regions: tuple[Region, ...] = ()
    told: str = ""
    """Words for the picture, for who learns to spell it; UNTOLD holds the place of each word that
    is left out. Empty: the caption's."""
    turns: tuple[tuple[str, str], ...] = ()
    """The conversation about it as (role, text), the caption last; empty: a caption is all."""
    others: tuple[np.ndarray, ...] = ()
    """The pictures after the first, in the order in which they are shown."""
    places: tuple[tuple[int, int], ...] = ()
    """For each picture its turn and the offset in that turn's text where it stands; empty: all at
    the head of the user's first turn."""
    text_only: bool = False
    """A conversation without a picture; `image` is then UNSEEN and stands for nothing."""

    @property
    def pictures(self) -> tuple[np.ndarray, ...]:
        """All pictures in the order in which they are shown."""
        return () if self.text_only else (self.image, *self.others)


UNSEEN = np.zeros((0, 0, 3), np.uint8)
"""Stands for a picture in an outline."""


class Source(Protocol[T_co]):
    """An index-addressable source; `item` is a pure function of split and index."""

    def item(self, split: str, index: int) -> T_co:
        """Any index works: finite data starts over in a new order."""
        ...

    def size(self, split: str) -> int | None:
        """How many different items there are; None when unlimited."""
        ...


class PictureSource(Source[PictureItem], Protocol):
    """A source of pictures that also tells what is said about them without looking at them."""

    def outline(self, split: str, index: int) -> PictureItem:
        """The item with UNSEEN in the place of each picture: nothing is decoded or drawn."""
        ...

    def fingerprints(self, split: str, index: int) -> tuple[str, ...]:
        """SHA-256 of each of the item's pictures: equal only for equal pictures."""
        ...


def take_shown(source: Source[PictureItem], split: str, count: int) -> list[PictureItem]:
    """As `take`, without conversations that have no picture."""
    size, found = source.size(split), list[PictureItem]()
    for index in itertools.count() if size is None else range(size):
        if len(found) == count:
            break
        item = source.item(split, index)
        if not item.text_only:
            found.append(item)
    return found


def take(source: Source[T], split: str, count: int) -> list[T]:
    """The first `count` items of a split, or all of them when there are fewer: none twice.

    Finite data starts over past its end; measuring the same item again would inflate `n`.
    """
    size = source.size(split)
    return [source.item(split, i) for i in range(count if size is None else min(count, size))]
