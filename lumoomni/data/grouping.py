"""Batches of samples of similar length, so that little of a padded batch is padding.

Knows: a group of consecutive batches is drawn together, sorted by length and cut.
Does not know: what the samples are. Batch i is still a pure function of i.
Costs: the samples of one group are made together and kept until the next group.
"""

import random
import threading
from collections.abc import Callable, Sequence, Sized
from typing import Generic, TypeVar

T = TypeVar("T", bound=Sized)

GROUP = 8
"""Batches of a group. Of `nano`'s conversations an eighth is padding then; with four, a fifth."""


class LengthGroups(Generic[T]):
    """`batch(i)` gives `batch_size` samples; samples come from `make(sample index)`.

    `parts` batches that follow each other make one update (`LoopConfig.accumulate`). Each comes
    from a group of its own, at the same place by length: who learns from every other batch makes
    only those samples, and two who learn from them at the same time take about as long.

    With `echo` above 1 a group comes that many times, in other batches each time (data echoing,
    arXiv 1907.05550): for samples that take longer to make than to learn from. `make_all` makes the
    samples of a group together where that is quicker than one by one; `make` is then not called.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        *,
        batch_size: int,
        group: int = GROUP,
        seed: int = 0,
        parts: int = 1,
        echo: int = 1,
        make_all: Callable[[Sequence[int]], list[T]] | None = None,
    ) -> None:
        self._make_all = make_all or (lambda indices: [make(index) for index in indices])
        self._size = batch_size
        self._group = group
        self._seed = seed
        self._parts = parts
        self._echo = echo
        self._kept: dict[int, tuple[int, list[T]]] = {}
        self._lock = threading.Lock()

    def batch(self, index: int) -> list[T]:
        """Samples of batch number `index`."""
        update, part = divmod(index, self._parts)
        number, place = divmod(update, self._group * self._echo)
        turn, spot = divmod(place, self._group)
        with self._lock:
            kept = self._kept.get(part)
            if kept is None or kept[0] != number:
                kept = self._kept[part] = (number, self._draw(number, part))
            return self._batches(kept[1], number, turn)[spot]

    def _draw(self, number: int, part: int) -> list[T]:
        first = (number * self._parts + part) * self._group * self._size
        return self._make_all(range(first, first + self._group * self._size))

    def _batches(self, samples: list[T], number: int, turn: int) -> list[list[T]]:
        seed = self._seed * 1_000_003 + number + (turn << 40)
        # An echo meets other company: lengths count up to half as much again.
        chance, loose = random.Random(~seed), 0.5 if turn else 0.0
        order = sorted(samples, key=lambda sample: len(sample) * (1 + loose * chance.random()))
        batches = [order[i : i + self._size] for i in range(0, len(order), self._size)]
        # Short batches must not always come first within a group; all parts in the same order.
        random.Random(seed).shuffle(batches)
        return batches
