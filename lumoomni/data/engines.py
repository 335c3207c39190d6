"""Who makes shards: this process, a pool of processes, or a Ray cluster.

Knows: handing out jobs one at a time, stopping, and naming the job of a worker that died.
Does not know: how a job is done, or where shards are written: the process that asks does that.
Costs: a worker of the pool imports torch and opens the codecs once (some seconds); finished shards
come back through a pipe, or through Ray's object store.

All encode with one thread of torch: sums over several threads differ in their last bits, so that
codes would depend on the machine, and workers would fight for cores.
"""

import contextlib
import multiprocessing
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

import torch

from lumoomni.errors import InputError
from lumoomni.runtime import Interrupted
from lumoomni.uti.interface import UTI

THREADS = 1
LOOK = 0.2
"""Seconds between two looks at whether to stop."""
Tick = Callable[[int], None]


class Work(Protocol):
    """A shard to be made, by whoever has the token space: the bytes depend on nothing else.

    `name` is the shard's, `size` how many records are read. `make` tells `tick` of records as they
    are done, which may raise to stop; it raises InputError where it would make other bytes.
    """

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def make(self, uti: UTI, tick: Tick) -> bytes: ...


W = TypeVar("W", bound=Work)


@dataclass(frozen=True)
class Made(Generic[W]):
    """A job's shard: the whole file."""

    job: W
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Crew:
    """Who works: `workers` processes, or the cluster at `address` (empty: one of this machine).

    `stop` is looked at between groups; `tick` is told of finished records.
    """

    space: str
    stop: threading.Event
    tick: Tick
    workers: int = 1
    address: str = ""


Engine = Callable[[Sequence[W], Crew], Generator[Made[W], None, None]]


def processes(jobs: Sequence[W], crew: Crew) -> Generator[Made[W], None, None]:
    """Shards as they are done. Raises Interrupted when asked to stop, InputError naming the job of
    a worker that died, RuntimeError with the trace of one that failed."""
    count = min(crew.workers, len(jobs))
    return here(jobs, crew) if count <= 1 else _pool(jobs, crew, count)


def here(jobs: Sequence[W], crew: Crew) -> Generator[Made[W], None, None]:
    """In this process, one after the other."""

    def tick(count: int) -> None:
        crew.tick(count)
        if crew.stop.is_set():
            raise Interrupted("tokenizing was stopped; run the same command to continue")

    with exact_threads():
        uti = UTI.load(crew.space)
        for job in jobs:
            yield Made(job, job.make(uti, tick))


def on_ray(jobs: Sequence[W], crew: Crew) -> Generator[Made[W], None, None]:
    """A task of a Ray cluster for each job; as `processes`, with progress by the shard.

    Every node needs this package, the token space and the media at the same paths, or at URLs.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("the Ray engine needs `pip install lumoomni[cluster]`") from error
    mine = not ray.is_initialized()
    if mine:
        ray.init(address=crew.address or None, log_to_driver=False, include_dashboard=False)
    try:
        yield from _on_cluster(ray, jobs, crew)
    finally:
        if mine:
            ray.shutdown()


ENGINES: dict[str, Engine[Any]] = {"processes": processes, "ray": on_ray}


@contextlib.contextmanager
def exact_threads() -> Iterator[None]:
    """Inside, torch works with THREADS threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def opened(space: str) -> UTI:
    """A token space, opened once in a process."""
    return UTI.load(space)


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    job: Any = None

    def give(self, waiting: deque[Any]) -> None:
        """The next job, or the sign that there is none."""
        self.job = waiting.popleft() if waiting else None
        # A worker that died meanwhile is found when its pipe is read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(self.job)


def _pool(jobs: Sequence[W], crew: Crew, count: int) -> Generator[Made[W], None, None]:
    waiting = deque(jobs)
    workers = [_hire(crew.space) for _ in range(count)]
    try:
        for worker in workers:
            worker.give(waiting)
        while any(worker.job is not None for worker in workers):
            if crew.stop.is_set():
                raise Interrupted("tokenizing was stopped; run the same command to continue")
            busy = {worker.pipe: worker for worker in workers if worker.job is not None}
            for pipe in wait(list(busy), timeout=LOOK):
                made = _heard(busy[pipe], crew.tick)  # type: ignore[index]
                if made is not None:
                    busy[pipe].give(waiting)  # type: ignore[index]
                    yield made
    finally:
        for worker in workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _hire(space: str) -> _Worker:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, space), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends when the worker does
    return _Worker(process, mine)


def _heard(worker: _Worker, tick: Tick) -> Made[Any] | None:
    """What a worker said: records done, a shard, or what went wrong."""
    job = worker.job
    assert job is not None
    try:
        kind, what = worker.pipe.recv()
    except (EOFError, OSError) as error:
        worker.process.join()
        raise InputError(
            f"the worker that made {job.name} died (exit code {worker.process.exitcode}); run the "
            "same command to continue, with fewer workers if memory ran out"
        ) from error
    if kind == "refused":
        raise InputError(what)
    if kind == "failed":
        raise RuntimeError(f"a worker failed at {job.name}:\n{what}")
    if kind == "made":
        return Made(job, what)
    tick(what)
    return None


def _serve(pipe: Connection, space: str) -> None:
    """A worker's life: jobs come in, ticks and shards go out, until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    with exact_threads(), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (job := pipe.recv()) is not None:
            try:
                data = job.make(opened(space), lambda done: pipe.send(("done", done)))
                pipe.send(("made", data))
            except InputError as error:
                pipe.send(("refused", str(error)))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception:  # noqa: BLE001 - whatever it is, the process that asks must hear it
                pipe.send(("failed", traceback.format_exc()))


def _on_cluster(ray: Any, jobs: Sequence[W], crew: Crew) -> Generator[Made[W], None, None]:
    """Twice as many tasks as processors are under way: none waits, and memory stays small."""
    task = ray.remote(num_cpus=1, max_retries=3, scheduling_strategy="SPREAD")(_remotely)
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = deque(jobs)
    running: dict[Any, W] = {}
    try:
        while waiting or running:
            while waiting and len(running) < most:
                job = waiting.popleft()
                running[task.remote(crew.space, job)] = job
            if crew.stop.is_set():
                raise Interrupted("tokenizing was stopped; run the same command to continue")
            done, _ = ray.wait(list(running), timeout=LOOK)
            for reference in done:
                job = running.pop(reference)
                made = _fetched(ray, reference, job)
                crew.tick(job.size)
                yield made
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _fetched(ray: Any, reference: Any, job: W) -> Made[W]:
    try:
        refusal, data = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise RuntimeError(f"a worker failed at {job.name}:\n{error}") from error
    except ray.exceptions.RayError as error:
        raise InputError(
            f"the worker that made {job.name} died ({type(error).__name__}); run the same command "
            "to continue, with fewer processors a node if memory ran out"
        ) from error
    if refusal:
        raise InputError(refusal)
    return Made(job, data)


def _remotely(space: str, job: Work) -> tuple[str, bytes]:
    """(why not, the shard): one of them is empty."""
    with exact_threads():
        try:
            return "", job.make(opened(space), lambda done: None)
        except InputError as error:
            return str(error), b""
