"""Batches of samples of similar length, so that little of a padded batch is padding.

Knows: a group of consecutive batches is drawn together, sorted by length and cut.
Does not know: what the samples are. Batch i is still a pure function of i.
Costs: the samples of one group are made together and kept until the next group.
"""

import random
import threading
from collections.abc import Callable, Sized
from typing import Generic, TypeVar

T = TypeVar("T", bound=Sized)


class LengthGroups(Generic[T]):
    """`batch(i)` gives `batch_size` samples; samples come from `make(sample index)`.

    `parts` batches that follow each other make one update (`LoopConfig.accumulate`). Each comes
    from a group of its own, at the same place by length: who learns from every other batch makes
    only those samples, and two who learn from them at the same time take about as long.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        *,
        batch_size: int,
        group: int = 4,
        seed: int = 0,
        parts: int = 1,
    ) -> None:
        self._make = make
        self._size = batch_size
        self._group = group
        self._seed = seed
        self._parts = parts
        self._kept: dict[int, tuple[int, list[list[T]]]] = {}
        self._lock = threading.Lock()

    def batch(self, index: int) -> list[T]:
        """Samples of batch number `index`."""
        update, part = divmod(index, self._parts)
        number, place = divmod(update, self._group)
        with self._lock:
            kept = self._kept.get(part)
            if kept is None or kept[0] != number:
                kept = self._kept[part] = (number, self._draw(number, part))
            return kept[1][place]

    def _draw(self, number: int, part: int) -> list[list[T]]:
        first = (number * self._parts + part) * self._group * self._size
        samples = [self._make(first + i) for i in range(self._group * self._size)]
        samples.sort(key=len)
        batches = [samples[i : i + self._size] for i in range(0, len(samples), self._size)]
        # Short batches must not always come first within a group; all parts in the same order.
        random.Random(self._seed * 1_000_003 + number).shuffle(batches)
        return batches
