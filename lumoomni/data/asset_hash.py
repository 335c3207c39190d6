"""SHA-256 of many media files, and whether each has a header that can be read, in threads.

Knows: files and their headers. Does not know: listings or splits.
Costs: every byte is read once, about 1 s a gigabyte and thread where the disk keeps up. A file that
has not changed (path, size, time of change) is not read again while the object lives; nothing is
kept between runs.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lumoomni.data.headers import Kind, header_problem
from lumoomni.data.watched import watched
from lumoomni.errors import InputError

THREADS = min(8, os.cpu_count() or 1)
BATCH = 256
"""Files handed to the threads at once: a million waiting jobs would take a gigabyte."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The SHA-256 of a file's bytes, or why it cannot be used."""

    sha256: str = ""
    problem: str = ""


class AssetHashes:
    """What files hold. Raises InputError for fewer threads than one."""

    def __init__(self, threads: int = THREADS) -> None:
        if threads < 1:
            raise InputError(f"threads is {threads}; it must be at least 1")
        self.threads = threads
        self._kept: dict[tuple[str, int, int, Kind], Seen] = {}

    def look(self, files: Iterable[tuple[Path, Kind]]) -> dict[Path, Seen]:
        """What each file holds; a bar is shown after two seconds."""
        wanted = sorted(set(files))
        jobs = self._seen(wanted)
        return {path: next(jobs) for path, _ in watched(wanted, "looking at files", "file")}

    def _seen(self, wanted: list[tuple[Path, Kind]]) -> Iterator[Seen]:
        with ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(wanted), BATCH):
                yield from pool.map(self._one, wanted[start : start + BATCH])

    def _one(self, file: tuple[Path, Kind]) -> Seen:
        path, kind = file
        try:
            facts = path.stat()
        except FileNotFoundError:
            return Seen(problem="there is no such file")
        except (OSError, ValueError) as error:
            return Seen(problem=f"cannot be opened ({error})")
        key = (str(path), facts.st_size, facts.st_mtime_ns, kind)
        if key not in self._kept:
            self._kept[key] = _read(path, kind)
        return self._kept[key]


def _read(path: Path, kind: Kind) -> Seen:
    problem = header_problem(path, kind)
    if problem:
        return Seen(problem=problem)
    try:
        with path.open("rb") as file:
            return Seen(hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        return Seen(problem=f"cannot be read ({error})")
