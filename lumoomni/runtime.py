"""The machine under a run: seeds, device, threads, atomic writes, progress bars, clean stops.

Does not know: models, stages or data. Costs: torch is imported only by the calls that need it.
"""

import contextlib
import errno
import importlib.util
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lumoomni.errors import InputError

if TYPE_CHECKING:
    import torch

MOST_WORKERS = 8
EXTRAS = {"data": ("pyarrow", "fsspec", "grain"), "hf": ("transformers", "peft")}
"""What a stage may need beyond the package's own requirements: an extra's name and its modules."""


class Interrupted(RuntimeError):
    """The user asked to stop; everything needed to continue has been saved."""


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def refuse_missing(extras: dict[str, tuple[str, ...]]) -> None:
    """Raises InputError when the extras that stages need (by stage) are not installed."""
    for stage, names in extras.items():
        for name in names:
            gone = [module for module in EXTRAS[name] if importlib.util.find_spec(module) is None]
            if gone:
                raise InputError(
                    f"{stage} needs {', '.join(gone)}, which this environment lacks; install the "
                    f"extra with pip install 'lumoomni[{name}]' (in a clone: '.[{name}]'), or stop "
                    "before it with --until"
                )


def worker_count() -> int:
    """Processes that share the making of data here: one a processor, at most MOST_WORKERS."""
    allowed = getattr(os, "sched_getaffinity", None)
    return min(MOST_WORKERS, len(allowed(0)) if allowed else os.cpu_count() or 1)


@contextlib.contextmanager
def flushing() -> Iterator[None]:
    """Within, this thread and those that it starts compute with zero for float32 below 1.2e-38.

    Processors compute with such numbers in software: gradients of convolutions in float32 come to
    hold many of them, and their backward took ten times as long (LOG.md).
    """
    import torch

    before = float(torch.tensor(1e-38) * torch.tensor(0.1)) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def resolve_device(name: str) -> "torch.device":
    """`auto`, `cpu`, `cuda` or `mps` to a device. Raises InputError if it is not there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(name, False):
        usable = [kind for kind, there in available.items() if there]
        raise InputError(f"device {name!r} is not available here; use one of {', '.join(usable)}")
    return torch.device(name)


def environment() -> dict[str, Any]:
    """Facts about this machine for the record; they never decide whether a stage is rebuilt."""
    import torch

    from lumoomni import __version__

    return {
        "lumoomni": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write beside `path`, flush to disk, then move over it.

    Raises InputError when the disk is full; the previous file stays whole.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)  # noqa: PTH105 - the name says what matters
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if is_full(error):
            raise disk_full(path.parent, len(data)) from error
        raise


def is_full(error: BaseException) -> bool:
    """Whether a disk was full. safetensors tells only in words what the system's error was."""
    number = getattr(error, "errno", None)
    return number == errno.ENOSPC or f"(os error {errno.ENOSPC})" in str(error)


def refuse_output(*paths: Path | None) -> None:
    """Before long work: raises InputError for the first where no file could be written."""
    for path in paths:
        if path is not None:
            _refuse_output(path)


def _refuse_output(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a directory; give the name of a file to write")
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, so {path} cannot be written; give another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"nothing may be written in {folder}; give another place for {path}")


def disk_full(folder: Path, needed: int) -> InputError:
    """The sentence for a full disk."""
    return InputError(
        f"the disk that holds {folder} is full (could not write {needed:,} bytes); "
        "free some space and run the same command again, nothing saved so far is lost"
    )


def atomic_write_text(path: Path, text: str) -> None:
    """UTF-8 text, atomically."""
    atomic_write_bytes(path, text.encode())


def atomic_write_json(path: Path, data: Any) -> None:
    """Indented JSON, atomically."""
    atomic_write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def append_line(path: Path, data: Any) -> None:
    """One JSON line more, on a line of its own even where a kill tore the one before it."""
    with path.open("ab+") as file:
        torn = False
        if file.tell():
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        line = json.dumps(data, ensure_ascii=False) + "\n"
        file.write(("\n" if torn else "").encode() + line.encode())


def read_lines(path: Path) -> list[Any]:
    """The rows of a JSON Lines file but those that a kill tore; texts may hold separators at which
    `splitlines` would cut."""
    rows = []
    for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):  # of text cut inside a character, too
            rows.append(json.loads(line.decode()))
    return rows


@contextlib.contextmanager
def whole_folder(out: Path, what: str) -> Iterator[Path]:
    """A hidden folder beside `out` to write into; it becomes `out` when all went well.

    Killed on the way, nothing is at `out`, and the next call sweeps what was left.
    Raises InputError when something is at `out`; `what` says what was to be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty; give a new folder to write {what} to")
    out = out.absolute()
    draft = out.parent / f".{out.name}.part"
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.replace(out)
    except Exception as error:
        if is_full(error):
            raise disk_full(out.parent, 0) from error
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C (or SIGTERM) sets the event, the second one kills."""
    stop = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("stopping after this step (again to kill)", file=sys.stderr, flush=True)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Bar(Protocol):
    """One running task."""

    def update(self, advance: int = 1, **numbers: float) -> None:
        """Move on and show the latest numbers."""
        ...


class Progress:
    """Progress of long work: live bars on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, *, silent: bool = False, every: float = 10.0) -> None:
        self.silent = silent
        self.every = every
        self.live = not silent and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """One line for the user, on stderr, so that stdout stays for results."""
        if not self.silent:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def task(self, name: str, *, total: int, unit: str = "step", start: int = 0) -> Iterator[Bar]:
        """A bar over `total` units of which `start` are done already."""
        if self.live:
            with _live_bar(name, total, unit, start) as bar:
                yield bar
        else:
            bar = _Lines(self, name, total, unit, start)
            yield bar
            bar.finish()


class _Lines:
    """Plain lines, at most one every `every` seconds and one at the end."""

    def __init__(self, progress: Progress, name: str, total: int, unit: str, start: int) -> None:
        self._progress, self._name, self._total, self._unit = progress, name, total, unit
        self._start = self._done = start
        self._began = self._last = time.monotonic()
        self._numbers: dict[str, float] = {}

    def update(self, advance: int = 1, **numbers: float) -> None:
        self._done += advance
        self._numbers.update(numbers)
        if time.monotonic() - self._last >= self._progress.every:
            self._print()

    def finish(self) -> None:
        if self._done > self._start and time.monotonic() - self._began > 2:
            self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        rate = (self._done - self._start) / max(self._last - self._began, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        numbers = "".join(f"  {k} {v:.4g}" for k, v in self._numbers.items())
        self._progress.say(
            f"{self._name:>20} {self._done}/{self._total} {self._unit}s"
            f"  {rate:.1f}/s  ETA {left:.0f} s{numbers}"
        )


@contextlib.contextmanager
def _live_bar(name: str, total: int, unit: str, start: int) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description:>20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "s  {task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as rich:
        task = rich.add_task(name, total=total, completed=start, numbers="", rate="")
        began, done = time.monotonic(), 0

        class Live:
            def update(self, advance: int = 1, **numbers: float) -> None:
                nonlocal done
                done += advance
                rate = f"{done / max(time.monotonic() - began, 1e-9):.1f}/s"
                text = "  ".join(f"{k} {v:.4g}" for k, v in numbers.items())
                fields: dict[str, Any] = {"numbers": text} if text else {}
                fields["rate"] = rate
                rich.update(task, advance=advance, **fields)

        yield Live()
