"""The next batches, made in threads of their own while the current one is learned from.

Knows: which micro-batches come, in order, and how to make one. Does not know: what they hold.
Costs: as many batches in memory as are kept ahead.
"""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Prefetch:
    """`make(index)` of every index, in order, `ahead` of them beforehand, by so many `makers`."""

    def __init__(
        self, make: Callable[[int], Any], indices: Iterable[int], *, ahead: int, makers: int
    ) -> None:
        self._batch, self._left = make, iter(indices)
        self._pool = ThreadPoolExecutor(makers, thread_name_prefix="batches")
        self._lock = threading.Lock()
        self._queue: list[Future[Any]] = []
        self._ahead = max(ahead, makers)
        self._made = self._making = self._waited = 0.0

    def __enter__(self) -> "Prefetch":
        self._fill()
        return self

    def next(self) -> Any:
        """The next batch. Raises what making it raised."""
        began = time.monotonic()
        batch = self._queue.pop(0).result()
        self._waited += time.monotonic() - began
        self._fill()
        return batch

    def spent(self, batches: int) -> dict[str, float]:
        """Milliseconds: processor time to make an update's batches, and how long it waited."""
        waited, self._waited = self._waited, 0.0
        each = self._making / max(1.0, self._made)
        return {"data_ms": 1000 * batches * each, "wait_ms": 1000 * waited}

    def _make(self, index: int) -> Any:
        began = time.thread_time()
        batch = self._batch(index)
        with self._lock:
            self._making += time.thread_time() - began
            self._made += 1
        return batch

    def _fill(self) -> None:
        while len(self._queue) < self._ahead:
            index = next(self._left, None)
            if index is None:
                return
            self._queue.append(self._pool.submit(self._make, index))

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
