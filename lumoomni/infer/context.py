"""The context budget: what fits, what is dropped, and saying so.

Knows: positions that turns cost, and the order in which things give way: the oldest turns first,
never the system text, never a part of one picture or clip. Does not know: models or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")

SHARE_FOR_SOUND = 0.5
"""Most of the context that one clip may take."""


@dataclass(frozen=True)
class Kept(Generic[T]):
    """What fits, in order, and sentences for the user about what did not."""

    turns: tuple[T, ...]
    notes: tuple[str, ...]
    overflow: int
    """Positions by which even the newest turn is too long; 0 when all is well."""


def fit_turns(
    turns: Sequence[T], costs: Sequence[int], *, budget: int, fixed: Sequence[bool]
) -> Kept[T]:
    """Drop the oldest turns that are not `fixed` until the costs meet the budget.

    The newest turn always stays; if it alone is too long, `overflow` says by how much.
    """
    if not len(turns) == len(costs) == len(fixed):
        raise ValueError(f"{len(turns)} turns, {len(costs)} costs and {len(fixed)} flags must pair")
    keep = [True] * len(turns)
    total, dropped = sum(costs), 0
    for i in range(len(turns) - 1):
        if total <= budget:
            break
        if not fixed[i]:
            keep[i] = False
            total -= costs[i]
            dropped += 1
    notes = []
    if dropped:
        notes.append(
            f"the {dropped} oldest turns were left out: the conversation exceeds the context of "
            f"{budget} positions"
        )
    kept = tuple(turn for turn, stays in zip(turns, keep, strict=True) if stays)
    return Kept(kept, tuple(notes), max(0, total - budget))


@dataclass(frozen=True)
class Cut:
    """samples float32[T], cut at the end if need be, and a sentence about it or ""."""

    samples: np.ndarray
    note: str


def fit_sound(samples: np.ndarray, *, rate: int, positions: int, per_second: float) -> Cut:
    """Keep as many seconds as `positions` can hold at `per_second` features a second."""
    most = int(positions / per_second * rate)
    if len(samples) <= most:
        return Cut(samples, "")
    given, kept = len(samples) / rate, most / rate
    note = f"the sound is {given:.1f} s long; only its first {kept:.1f} s fit and were heard"
    return Cut(samples[:most], note)
