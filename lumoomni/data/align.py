"""Which token is being said when: word times of an utterance laid over token and frame grids.

Knows: word times in characters and seconds, token offsets in characters.
Does not know: where the times came from (the synthesiser, or a recogniser's own alignment).
Costs: linear in tokens and frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lumoomni.data.world.speech import WordTime


@dataclass(frozen=True)
class FrameOwners:
    """owner int64[F]: index of the token said in each frame; progress int64[F]: frames since."""

    owner: np.ndarray
    progress: np.ndarray


def token_starts(
    offsets: Sequence[tuple[int, int]], spoken: Sequence[bool], words: Sequence[WordTime]
) -> list[float | None]:
    """Start time in seconds of each spoken token, None for silent ones or without a timed word.

    A word of several tokens is shared out in proportion to their characters.
    """
    starts: list[float | None] = []
    for (begin, end), aloud in zip(offsets, spoken, strict=True):
        word = next((w for w in words if w.start_char < end and begin < w.end_char), None)
        if not aloud or word is None:
            starts.append(None)
            continue
        share = max(0, begin - word.start_char) / max(1, word.end_char - word.start_char)
        starts.append(word.start_s + share * (word.end_s - word.start_s))
    return starts


def frame_owners(
    offsets: Sequence[tuple[int, int]],
    spoken: Sequence[bool],
    words: Sequence[WordTime],
    *,
    frames: int,
    rate: float,
) -> FrameOwners | None:
    """Owners of `frames` frames at `rate` a second; every spoken token gets at least one frame.

    None when a spoken token has no time, or there are fewer frames than spoken tokens: such an
    utterance cannot teach an alignment and the caller must count it.
    """
    starts = token_starts(offsets, spoken, words)
    said = [i for i, aloud in enumerate(spoken) if aloud]
    if not said or len(said) > frames or any(starts[i] is None for i in said):
        return None
    begin = [round((starts[i] or 0.0) * rate) for i in said]
    begin[0] = 0
    for k in range(1, len(begin)):  # forward: strictly later than the one before
        begin[k] = max(begin[k], begin[k - 1] + 1)
    limit = frames
    for k in reversed(range(len(begin))):  # backward: leave room for those that follow
        begin[k] = min(begin[k], limit - 1)
        limit = begin[k]
    owner = np.zeros(frames, dtype=np.int64)
    progress = np.zeros(frames, dtype=np.int64)
    for k, first in enumerate(begin):
        stop = begin[k + 1] if k + 1 < len(begin) else frames
        owner[first:stop] = said[k]
        progress[first:stop] = np.arange(stop - first)
    return FrameOwners(owner, progress)


def symbol_frames(
    starts: Sequence[float | None], *, frames: int, rate: float, end_s: float, within: float = 0.75
) -> list[int]:
    """For each symbol the one frame (at `rate`) in which a recogniser should name it.

    That is `within` of the way through the symbol: late enough to have heard it, before the next.
    -1 where the time is unknown.
    """
    out = []
    for k, start in enumerate(starts):
        if start is None:
            out.append(-1)
            continue
        later = (s for s in starts[k + 1 :] if s is not None)
        end = next(later, end_s)
        out.append(min(frames - 1, int((start + within * max(0.0, end - start)) * rate)))
    return out
