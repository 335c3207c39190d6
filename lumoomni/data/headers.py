"""Is a media file worth keeping in a listing? A look at its size and header, without decoding.

Knows: sound headers through soundfile, then PyAV; picture headers through Pillow.
Does not know: whether the whole file decodes; `data/bodies.py` reads every one to its end.
Costs: about 0.1 ms a file that the disk cache holds; a picture in Parquet is unpacked with its
neighbours.
"""

from pathlib import Path
from typing import BinaryIO, Literal

import av
import soundfile
from av.error import FFmpegError
from PIL import Image, UnidentifiedImageError

from lumoomni.data.stored import Stored
from lumoomni.media.container import open_media

Kind = Literal["sound", "picture"]


def header_problem(media: Path | Stored, kind: Kind) -> str:
    """Why the file cannot be used, or an empty string; only pictures lie inside other files."""
    try:
        if not isinstance(media, Path):
            if media.size == 0:
                return "the picture is empty (0 bytes)"
            with media.open() as file:
                return _picture(file)
        if not media.is_file():
            return "there is no such file"
        if media.stat().st_size == 0:
            return "the file is empty (0 bytes)"
        return _sound(media) if kind == "sound" else _picture(media)
    except (OSError, ValueError) as error:
        return f"cannot be opened ({error})"


def _sound(path: Path) -> str:
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError:
        return _sound_by_av(path)
    return "" if info.frames > 0 else "holds no samples (0 s of sound)"


def sound_seconds(path: Path) -> float | None:
    """The length of a sound by its header; None where the header does not tell."""
    try:
        info = soundfile.info(path)
        return info.frames / info.samplerate
    except soundfile.LibsndfileError:
        pass
    try:
        with open_media(path) as container:
            return container.duration / av.time_base if container.duration else None
    except FFmpegError:
        return None


def _sound_by_av(path: Path) -> str:
    try:
        with open_media(path) as container:
            return "" if container.streams.audio else "holds no audio track"
    except FFmpegError:
        return "has no sound header that can be read"


def _picture(file: Path | BinaryIO) -> str:
    try:
        # `Image.open` reads the header alone; pixels are decoded when they are asked for.
        with Image.open(file) as picture:
            return "" if picture.width * picture.height else "has no pixels"
    except (UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        return f"has no picture header that can be read ({type(error).__name__})"
