"""Who does the jobs of tokenizing: this process, a pool of processes, or a Ray cluster.

Knows: handing out jobs one at a time, stopping, and naming the job of a worker that died.
Does not know: what a job is made of, or where shards are written: the process that asks does that.
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
from typing import Any

import torch

from lumoomni.data.tokenizing import Job, Made, Tick, tokenize_shard
from lumoomni.errors import InputError
from lumoomni.runtime import Interrupted
from lumoomni.uti.interface import UTI

THREADS = 1
LOOK = 0.2
"""Seconds between two looks at whether to stop."""


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


Engine = Callable[[Sequence[Job], Crew], Generator[Made, None, None]]


def processes(jobs: Sequence[Job], crew: Crew) -> Generator[Made, None, None]:
    """Shards as they are done. Raises Interrupted when asked to stop, InputError naming the job of
    a worker that died, RuntimeError with the trace of one that failed."""
    count = min(crew.workers, len(jobs))
    return here(jobs, crew) if count <= 1 else _pool(jobs, crew, count)


def here(jobs: Sequence[Job], crew: Crew) -> Generator[Made, None, None]:
    """In this process, one after the other."""

    def tick(count: int) -> None:
        crew.tick(count)
        if crew.stop.is_set():
            raise Interrupted("tokenizing was stopped; run the same command to continue")

    with exact_threads():
        uti = UTI.load(crew.space)
        for job in jobs:
            yield tokenize_shard(uti, job, tick)


def on_ray(jobs: Sequence[Job], crew: Crew) -> Generator[Made, None, None]:
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


ENGINES: dict[str, Engine] = {"processes": processes, "ray": on_ray}


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
    job: Job | None = None

    def give(self, waiting: deque[Job]) -> None:
        """The next job, or the sign that there is none."""
        self.job = waiting.popleft() if waiting else None
        # A worker that died meanwhile is found when its pipe is read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(self.job)


def _pool(jobs: Sequence[Job], crew: Crew, count: int) -> Generator[Made, None, None]:
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


def _heard(worker: _Worker, tick: Tick) -> Made | None:
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
                made = tokenize_shard(opened(space), job, lambda done: pipe.send(("done", done)))
                pipe.send(("made", made.data))
            except InputError as error:
                pipe.send(("refused", str(error)))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception:  # noqa: BLE001 - whatever it is, the process that asks must hear it
                pipe.send(("failed", traceback.format_exc()))


def _on_cluster(ray: Any, jobs: Sequence[Job], crew: Crew) -> Generator[Made, None, None]:
    """Twice as many tasks as processors are under way: none waits, and memory stays small."""
    task = ray.remote(num_cpus=1, max_retries=3, scheduling_strategy="SPREAD")(_remotely)
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = deque(jobs)
    running: dict[Any, Job] = {}
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
                crew.tick(len(job.records))
                yield made
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _fetched(ray: Any, reference: Any, job: Job) -> Made:
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


def _remotely(space: str, job: Job) -> tuple[str, bytes]:
    """(why not, the shard): one of them is empty."""
    with exact_threads():
        try:
            return "", tokenize_shard(opened(space), job, lambda done: None).data
        except InputError as error:
            return str(error), b""
