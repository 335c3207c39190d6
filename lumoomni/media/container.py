"""Files that FFmpeg reads, opened by whichever PyAV is installed.

Knows: that titles in another encoding than UTF-8 are no fault of a sound or a film. Does not know:
tracks. Costs: reading the header.
"""

from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import InputContainer

_MAJOR = int(av.__version__.split(".")[0])
# From PyAV 19 on what cannot be decoded is replaced unasked, and asking is an error.
_TITLES: dict[str, Any] = {"metadata_errors": "replace"} if _MAJOR < 19 else {}


def open_media(source: str | Path | BinaryIO) -> InputContainer:
    """An open container, to be closed by who asked. Raises FFmpegError for what is none."""
    return av.open(source, mode="r", **_TITLES)
