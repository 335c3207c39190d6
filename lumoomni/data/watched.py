"""Work on many items that shows a bar once it has taken a while.

Knows: nothing of the items. Costs: two looks at the clock an item until the bar is there.
"""

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from lumoomni.runtime import Progress

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that pass before a bar is shown: most data is read in less."""


def watched(items: Sequence[T], name: str, unit: str) -> Iterator[T]:
    """The items in their order."""
    began = time.monotonic()
    done = 0
    while done < len(items) and time.monotonic() - began <= PATIENCE:
        yield items[done]
        done += 1
    if done == len(items):
        return
    with Progress().task(name, total=len(items), unit=unit, start=done) as bar:
        for place in range(done, len(items)):
            yield items[place]
            bar.update(1)
