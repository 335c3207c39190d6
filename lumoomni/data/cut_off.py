"""Sounds that stop before their own headers say so: decoders play what is there without a word.

Knows: where WAV, MP3 and Ogg files say how long they are. Does not know: other formats (a FLAC that
is cut off cannot be decoded to its end), or what a sound is used for.
Costs: the first and the last 64 KB of a file.

Half a sound with all of its words teaches a recogniser to make words up, so data that is learned
from must be whole. Where no length is promised (streams, MP3 without a Xing header), none is asked.
"""

import struct
from pathlib import Path

ENDS = 1 << 16
UNKNOWN = (0, 0xFFFFFFFF)
"""What a WAV says that was written as a stream."""
PADDING = 4
"""Frames that an MP3's encoder adds and counts, and a decoder leaves out."""
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Of MPEG-1, 2 and 2.5, as an MP3's frames number them."""


def cut_off(path: Path, seconds: float) -> str:
    """Why a file that gave so many seconds of sound cannot be whole; "" where nothing says so.

    Raises OSError when it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(ENDS)
        file.seek(max(0, size - ENDS))
        last = file.read(ENDS)
    if first.startswith(b"RIFF") and first[8:12] == b"WAVE":
        return _wav(first, size)
    if first.startswith(b"OggS"):
        return _ogg(last)
    frames, each = _mp3_frames(first)
    if frames and seconds < (frames - PADDING) * each:
        return f"is cut off: it promises {frames * each:.1f} s of sound and gives {seconds:.1f}"
    return ""


def _wav(first: bytes, size: int) -> str:
    """Chunks follow each other, each after its name and length."""
    place = 12
    while place + 8 <= len(first):
        name, length = struct.unpack_from("<4sI", first, place)
        place += 8
        if name == b"data":
            there = size - place
            if length not in UNKNOWN and there < length:
                return f"is cut off: it promises {length:,} bytes of sound and has {there:,}"
            return ""
        place += length + length % 2
    return ""


def _ogg(last: bytes) -> str:
    """The last page says by its table how far it goes."""
    start = last.rfind(b"OggS")
    if start < 0 or len(last) < start + 27:
        return "is cut off inside its last page"
    table = last[start + 27 : start + 27 + last[start + 26]]
    end = start + 27 + last[start + 26] + sum(table)
    if len(table) < last[start + 26] or end > len(last):
        return f"is cut off: its last page lacks {max(1, end - len(last)):,} bytes"
    return ""


def _mp3_frames(first: bytes) -> tuple[int, float]:
    """(frames that the Xing or Info header in the first one promises, seconds of each); 0 where
    there is none."""
    place = 0
    if first.startswith(b"ID3") and len(first) > 10:
        a, b, c, d = first[6:10]
        place = 10 + (a << 21 | b << 14 | c << 7 | d)
    frame = first[place : place + 200]
    if len(frame) < 60 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return 0, 0.0  # no layer III frame
    version, number = frame[1] >> 3 & 3, frame[2] >> 2 & 3
    found = max(frame.find(b"Xing"), frame.find(b"Info"))
    if found < 0 or version not in RATES or number > 2 or not frame[found + 7] & 1:
        return 0, 0.0
    (frames,) = struct.unpack_from(">I", frame, found + 8)
    return frames, (1152 if version == 3 else 576) / RATES[version][number]
