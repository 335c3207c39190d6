"""A crew: processes of one machine that make the gradients of one update together.

Knows: forking, one shared stretch of memory, sums in the order of the ranks.
Does not know: what is trained. Every member runs the same loop over its own micro-batches and
takes the same step, so that all hold the same weights, bit for bit.
Costs: two passes over the gradients an update. At laptop sizes matrices are too small to be split
among threads, and each member makes its own batches, so two members on two cores are faster than
one process with two threads (`python -m benchmarks.crew`, LOG.md).

Forking copies a whole task for nothing, where the system allows it (Linux); elsewhere, and where
there is one core or one micro-batch, a crew is one member and everything here does nothing.
"""

import contextlib
import ctypes
import json
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from torch import Tensor

from lumoomni.errors import InputError, RunFailure
from lumoomni.runtime import Interrupted

NOTE_BYTES = 1 << 14
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class Crew:
    """One member's view. `rank` 0 is the process that the user started; it alone saves and logs."""

    def __init__(self, rank: int, size: int, memory: "Memory | None" = None) -> None:
        self.rank, self.size, self._memory = rank, size, memory

    def mine(self, count: int) -> range:
        """Which of `count` things this member does."""
        return range(self.rank, count, self.size)

    def add_up(self, parameters: Sequence[Tensor], note: dict[str, Any]) -> list[dict[str, Any]]:
        """Make every `.grad` the sum over the crew, in the order of the ranks; all members' notes.

        A parameter that has a gradient nowhere keeps none. Raises CrewBroken when another member
        has stopped.
        """
        if self._memory is None:
            return [note]
        self._memory.write(self.rank, parameters, note)
        self.meet()
        notes = self._memory.sum_into(parameters)
        self.meet()  # no one writes the next gradients while another still reads these
        return notes

    def share_out(
        self, items: Sequence[Tensor], costs: Sequence[float], work: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """`work` of every item, each done by one member; the shape of an item stays."""
        if self._memory is None:
            return [work(item) for item in items]
        room = self._memory.results(items)
        owners = deal(costs, self.size)
        for item, place, owner in zip(items, room, owners, strict=True):
            if owner == self.rank:
                place.copy_(work(item))
        self.meet()
        return room

    def meet(self) -> None:
        """Wait for the others. Raises CrewBroken when one has stopped."""
        if self._memory is None:
            return
        try:
            self._memory.barrier.wait()
        except threading.BrokenBarrierError as error:
            raise CrewBroken(
                "a process that was training along has stopped; what it said stands above, and "
                "the same command continues from the last checkpoint"
            ) from error


class CrewBroken(RunFailure):
    """Another member of the crew has stopped."""


class Memory:
    """What all members see: their gradients, their notes and the results of shared work."""

    def __init__(self, size: int, parameters: Sequence[Tensor], shared: int) -> None:
        self.barrier: Barrier = multiprocessing.get_context("fork").Barrier(size)
        self._numels = [p.numel() for p in parameters]
        total = sum(self._numels)
        # Anonymous memory: /dev/shm is small in many containers.
        self._grads = _floats(size * total).view(size, total)
        self._there = _floats(size * len(parameters)).view(size, -1)
        self._results = _floats(shared)
        self._notes = mmap.mmap(-1, size * NOTE_BYTES)
        self._size = size

    def write(self, rank: int, parameters: Sequence[Tensor], note: dict[str, Any]) -> None:
        """One member's gradients and note."""
        for place, flag, parameter in zip(
            self._grads[rank].split(self._numels), self._there[rank], parameters, strict=True
        ):
            flag.fill_(parameter.grad is not None)
            if parameter.grad is not None:
                place.copy_(parameter.grad.view(-1))
        text = json.dumps(note).encode()
        if len(text) >= NOTE_BYTES:
            raise RuntimeError(f"a note of {len(text)} bytes does not fit into {NOTE_BYTES}")
        start = rank * NOTE_BYTES
        self._notes[start : start + NOTE_BYTES] = text.ljust(NOTE_BYTES, b" ")

    def sum_into(self, parameters: Sequence[Tensor]) -> list[dict[str, Any]]:
        """Sums of what all wrote, into the gradients; the notes of all."""
        places = [slot.split(self._numels) for slot in self._grads]
        there = self._there.bool().tolist()
        for index, parameter in enumerate(parameters):
            found = [places[r][index] for r in range(self._size) if there[r][index]]
            if found:
                total = found[0].clone()
                for other in found[1:]:
                    total += other
                parameter.grad = total.view_as(parameter)
        starts = range(0, self._size * NOTE_BYTES, NOTE_BYTES)
        return [json.loads(self._notes[start : start + NOTE_BYTES]) for start in starts]

    def results(self, items: Sequence[Tensor]) -> list[Tensor]:
        """Room for the result of each item."""
        numels = [item.numel() for item in items]
        room = self._results[: sum(numels)].split(numels)
        return [place.view(item.shape) for place, item in zip(room, items, strict=True)]


def crew_size(micro_batches: int) -> int:
    """How many members can work on an update here: one a core, one a micro-batch at most."""
    if not sys.platform.startswith("linux"):
        return 1
    cores = min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
    return max(1, min(micro_batches, cores))


def deal(costs: Sequence[float], hands: int) -> list[int]:
    """Whose each thing is, the dear ones first, so that all have about as much."""
    loads, owners = [0.0] * hands, [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        owners[index] = loads.index(min(loads))
        loads[owners[index]] += costs[index]
    return owners


@contextlib.contextmanager
def crew(size: int, parameters: Sequence[Tensor], shared: int) -> Iterator[Crew]:
    """Fork `size` - 1 more processes that all run the body; only rank 0 comes out of it.

    `shared`: elements that one `share_out` may need. Each member has one thread inside.
    """
    if size == 1:
        yield Crew(0, 1)
        return
    memory = Memory(size, parameters, shared)
    threads = torch.get_num_threads()
    sys.stdout.flush()
    sys.stderr.flush()
    children = []
    for rank in range(1, size):
        with warnings.catch_warnings():
            # Python 3.12 warns of forking beside other threads; those here are OpenMP's and rest.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            with _member(memory):
                yield Crew(rank, size, memory)
        children.append(child)
    watchers = [
        threading.Thread(target=_watch, args=(pid, memory), daemon=True) for pid in children
    ]
    for watcher in watchers:
        watcher.start()
    torch.set_num_threads(1)
    try:
        yield Crew(0, size, memory)
    except BaseException:
        memory.barrier.abort()
        raise
    finally:
        for watcher in watchers:
            watcher.join()
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _member(memory: Memory) -> Iterator[None]:
    """The life of a forked process: it never returns to what the parent was doing."""
    status = 1
    try:
        # A killed parent must not leave members waiting for it; Ctrl-C is the parent's to hear.
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # The threads of the parent's OpenMP are not here, and waiting for them would not end.
        torch.set_num_threads(1)
        yield
        status = 0
    except Interrupted:
        status = 0
    except CrewBroken:
        pass  # who stopped first has said why
    except RunFailure:
        status = 0  # all members meet it at once; the first says it, and must not be cut short
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
    except BaseException:  # noqa: BLE001 - nothing may escape into the parent's code
        traceback.print_exc()
    finally:
        if status:
            memory.barrier.abort()
        sys.stderr.flush()
        os._exit(status)


def _watch(pid: int, memory: Memory) -> None:
    _, status = os.waitpid(pid, 0)
    if status:
        memory.barrier.abort()


def _floats(count: int) -> Tensor:
    return torch.frombuffer(mmap.mmap(-1, max(4, 4 * count)), dtype=torch.float32)[:count]
