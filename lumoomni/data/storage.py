"""Whole files at a path or a URL: local ones directly, all others through fsspec.

Knows: atomic local writes; which package a URL needs. Does not know: what files hold.
Costs: a remote file is in memory while it is read or written; a local one is written twice over
(draft, then a rename) and flushed to the disk.
"""

import contextlib
import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lumoomni.errors import InputError
from lumoomni.runtime import atomic_write_bytes

ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def is_url(path: str | Path) -> bool:
    """Whether fsspec is needed; `file://` is not."""
    text = str(path)
    return "://" in text and not text.startswith("file://")


def local(path: str | Path) -> Path:
    """A path of this machine, with or without `file://`."""
    return Path(str(path).removeprefix("file://"))


def join(folder: str | Path, name: str) -> str:
    """`name` in a folder; a name that is absolute or a URL stands for itself."""
    if is_url(name) or name.startswith(("/", "file://")) or Path(name).is_absolute():
        return name
    return f"{str(folder).rstrip('/')}/{name}" if is_url(folder) else str(local(folder) / name)


def read_bytes(path: str | Path) -> bytes:
    """A whole file. Raises InputError where there is none that may be read."""
    try:
        if is_url(path):
            system, inner = remote(path)
            with _answered(path):
                return system.cat_file(inner)
        return local(path).read_bytes()
    except ABSENT as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}); check the path") from (
            error
        )


def write_bytes(path: str | Path, data: bytes) -> None:
    """A whole file, or none. Raises InputError when the disk is full."""
    if is_url(path):
        system, inner = remote(path)
        system.makedirs(inner.rpartition("/")[0], exist_ok=True)
        system.pipe_file(inner, data)
        return
    try:
        atomic_write_bytes(local(path), data)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InputError(
            f"{path} cannot be written ({type(error).__name__}); give a folder that can be"
        ) from error


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder."""
    if is_url(path):
        system, inner = remote(path)
        with _answered(path):
            return _is_there(system, inner, path)
    return local(path).exists()


def _is_there(system: Any, inner: str, url: str | Path) -> bool:
    """Whether it exists. A web server that is down or refuses is not one without the file, though
    fsspec takes both for the same unless told otherwise."""
    return bool(system.exists(inner) if lists(url) else system.exists(inner, strict=True))


def listing(folder: str | Path) -> dict[str, int]:
    """Bytes of each file in a folder and below it, by its name from there, sorted."""
    if not is_url(folder):
        root = local(folder)
        found = {
            one.relative_to(root).as_posix(): one.stat().st_size
            for one in root.rglob("*")
            if not one.is_dir()
        }
        return dict(sorted(found.items()))
    system, inner = remote(folder)
    if not system.exists(inner):
        return {}
    system.invalidate_cache()
    top = inner.rstrip("/") + "/"
    found = system.find(inner, detail=True)
    return {name.removeprefix(top): int(one["size"]) for name, one in sorted(found.items())}


def lists(folder: str | Path) -> bool:
    """Whether a place says what files it holds. Web servers do not: some send a page for people."""
    return not str(folder).startswith(("http://", "https://"))


def sizes(folder: str | Path, names: Iterable[str]) -> dict[str, int | None]:
    """Bytes of those of the files that are there; None where a server does not say."""
    system, inner = remote(folder)
    found: dict[str, int | None] = {}
    for name in names:
        place = f"{inner.rstrip('/')}/{name}"
        with _answered(folder):
            try:
                found[name] = system.info(place)["size"]
            except FileNotFoundError:
                if _is_there(system, place, folder):  # it says no size, but raises what is wrong
                    found[name] = None
    return found


@contextlib.contextmanager
def _answered(url: str | Path) -> Iterator[None]:
    """Raises InputError where a server does not answer, or answers with an error of its own."""
    failures: tuple[type[Exception], ...] = (OSError,)
    if "aiohttp" in sys.modules:  # what fsspec speaks HTTP with; its errors are its own
        failures = (OSError, sys.modules["aiohttp"].ClientError)
    try:
        yield
    except ABSENT:
        raise
    except failures as error:
        raise InputError(
            f"{url} does not answer ({type(error).__name__}: {error}); check the address and the "
            "network"
        ) from error


def remove(path: str | Path) -> None:
    """Take a file away, if it is there."""
    if is_url(path):
        system, inner = remote(path)
        if system.exists(inner):
            system.rm_file(inner)
    else:
        local(path).unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """Hex of a file's SHA-256. Raises InputError where there is no such file."""
    if is_url(path):
        return hashlib.sha256(read_bytes(path)).hexdigest()
    try:
        with local(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except ABSENT as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}); check the path") from (
            error
        )


def remote(url: str | Path) -> tuple[Any, str]:
    """(file system, path in it). Raises InputError naming what to install."""
    try:
        import fsspec.core
    except ImportError as error:
        raise InputError(f"{url} needs fsspec; `pip install lumoomni[data]`") from error
    try:
        return fsspec.core.url_to_fs(str(url))
    except ImportError as error:
        raise InputError(
            f"{url} needs a package that is not here ({error}); install it with pip"
        ) from error
    except ValueError as error:
        raise InputError(f"{url} is no place that fsspec knows ({error})") from error
