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
    """`batch(i)` gives `batch_size` samples; samples come from `make(sample index)`."""

    def __init__(
        self, make: Callable[[int], T], *, batch_size: int, group: int = 4, seed: int = 0
    ) -> None:
        self._make = make
        self._size = batch_size
        self._group = group
        self._seed = seed
        self._kept: tuple[int, list[list[T]]] = (-1, [])
        self._lock = threading.Lock()

    def batch(self, index: int) -> list[T]:
        """Samples of batch number `index`."""
        number, place = divmod(index, self._group)
        with self._lock:
            if self._kept[0] != number:
                self._kept = (number, self._draw(number))
            return self._kept[1][place]

    def _draw(self, number: int) -> list[list[T]]:
        first = number * self._group * self._size
        samples = [self._make(first + i) for i in range(self._group * self._size)]
        samples.sort(key=len)
        batches = [samples[i : i + self._size] for i in range(0, len(samples), self._size)]
        # Short batches must not always come first within a group.
        random.Random(self._seed * 1_000_003 + number).shuffle(batches)
        return batches
