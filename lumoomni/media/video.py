"""Video files to a few frames a second.

Knows: decoding with PyAV, and picking the frame nearest after each tick.
Does not know: models. Costs: the whole file is decoded up to the last wanted frame.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from lumoomni.errors import InputError
from lumoomni.media.container import open_media


@dataclass(frozen=True)
class Video:
    """frames uint8 [H, W, 3] with their times in seconds; `dropped` came after the last one."""

    frames: tuple[np.ndarray, ...]
    times: tuple[float, ...]
    dropped: int = 0


def load_video(source: str | Path, fps: float = 1.0, max_frames: int = 64) -> Video:
    """The first frame and then `fps` frames a second, at most `max_frames`.

    Raises InputError for anything that holds no moving picture.
    """
    path = Path(source)
    if path.is_dir():
        raise InputError(f"{path} is a directory; give a video file")
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the path of the video")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); give a video file")
    frames: list[np.ndarray] = []
    times: list[float] = []
    dropped = 0
    try:
        with open_media(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} holds no picture track; give a video file")
            stream = container.streams.video[0]
            begin: float | None = None
            for number, frame in enumerate(container.decode(stream)):
                rate = float(stream.average_rate or 25)
                now = float(frame.time) if frame.time is not None else number / rate
                begin = now if begin is None else begin
                # A frame is due when its time has reached the next tick.
                if now - begin + 1e-6 < (len(frames) + dropped) / fps:
                    continue
                if len(frames) >= max_frames:
                    dropped += 1
                    continue
                frames.append(frame.to_ndarray(format="rgb24"))
                times.append(now - begin)
    except FFmpegError as error:
        if not frames:
            raise InputError(
                f"{path} cannot be read as a video ({error}); convert it to MP4"
            ) from error
        raise InputError(
            f"{path} is damaged after {times[-1]:.1f} s ({error}); get a whole copy"
        ) from error
    if not frames:
        raise InputError(f"{path} is a video without frames; give another file")
    return Video(tuple(frames), tuple(times), dropped)
