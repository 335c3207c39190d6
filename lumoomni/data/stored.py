"""Pictures that lie inside other files: what a row may name in the place of a file of its own.

Knows: how such a picture is opened, read, decoded and told from another.
Does not know: tar or Arrow; those who read them bring the handles.
Costs: a handle is about 100 bytes; bytes are read when they are asked for.
"""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from lumoomni.errors import InputError
from lumoomni.media.image import load_image

ENDS = 4096


class Stored(Protocol):
    """A picture inside another file; `str` of it is its place, and can be printed."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def container(self) -> Path:
        """The file that it lies in."""
        ...

    def open(self) -> BinaryIO:
        """Its bytes as a file that the caller closes. Raises OSError when it cannot be reached."""
        ...


def load_picture(media: Path | Stored) -> np.ndarray:
    """uint8 [H, W, 3]. Raises InputError for anything that cannot be used as a picture."""
    if isinstance(media, Path):
        return load_image(media)
    return load_image(read_media(media), str(media))


def read_media(media: Path | Stored) -> bytes:
    """All its bytes. Raises InputError when they cannot be read, or are not all there any more."""
    try:
        if isinstance(media, Path):
            return media.read_bytes()
        with media.open() as file:
            data = file.read()
    except OSError as error:
        said = f"{media} cannot be read ({error}); get a whole copy"
        raise InputError(said.encode("utf-8", "backslashreplace").decode()) from error
    if len(data) != media.size:
        raise InputError(
            f"{media} has {len(data):,} of its {media.size:,} bytes; its file changed since it was "
            "opened, so run the command again"
        )
    return data


def identity(media: Stored) -> str:
    """The same text for the same bytes, wherever they lie: size, first and last bytes, hashed.

    Two different pictures that agree in all of these would count as one, which a split can bear.
    Raises OSError when it cannot be reached.
    """
    with media.open() as file:
        ends = file.read(ENDS)
        file.seek(max(0, media.size - ENDS))
        ends += file.read(ENDS)
    return hashlib.blake2b(f"{media.size}\x1f".encode() + ends, digest_size=16).hexdigest()


class Window(io.RawIOBase):
    """`size` bytes as a file: `fetch` gives up to `count` of them from `start` on.

    `source` is closed with it.
    """

    def __init__(
        self, size: int, fetch: Callable[[int, int], Any], source: BinaryIO | None = None
    ) -> None:
        self._size, self._fetch, self._source, self._place = size, fetch, source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._place))
        data = self._fetch(self._place, count)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        super().close()
