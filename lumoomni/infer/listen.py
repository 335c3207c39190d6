"""Transcription and alignment: sound to text, and text to times, through the CTC head.

Knows: the recogniser's symbols are tokenizer ids of normalised text with a leading space; what is
long is heard in parts, cut where it is quietest: an hour takes no more memory than a minute.
Costs: one mel and one tower forward for a batch of clips, or for each part of a long one.
"""

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np
import torch

from lumoomni.codecs.text import TextCodec
from lumoomni.data.world.language import normalise
from lumoomni.data.world.speech import WordTime
from lumoomni.media.mel import MelConfig, log_mel
from lumoomni.model.audio import DOWNSAMPLE, AudioTower, ctc_greedy

LONGEST = 4.0
"""Seconds that users' sound is heard at once: the micro-world's longest sentence. Of more than it
was trained with, a recogniser gets every second word wrong (LOG.md, "Heard in parts")."""
QUIET = 0.1
"""Seconds of a moment whose loudness is measured; pauses between words are about as long."""
WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


@torch.inference_mode()
def transcribe(
    tower: AudioTower,
    text_codec: TextCodec,
    mel: MelConfig,
    clips: Sequence[np.ndarray],
    longest: float = math.inf,
) -> list[str]:
    """What is said in each clip (float32[T] at the mel's rate), in the recogniser's spelling.

    What lasts more than `longest` seconds, or than the tower has positions, is heard in parts.
    """
    most = (tower.config.max_frames - 1) * DOWNSAMPLE * mel.hop
    most = int(min(most, longest * mel.rate))
    if any(len(clip) > most for clip in clips):
        parts = [quiet_parts(clip, most, mel.rate) for clip in clips]
        heard = [[transcribe(tower, text_codec, mel, [one])[0] for one in part] for part in parts]
        return [" ".join(filter(None, said)) for said in heard]
    mels = [log_mel(torch.from_numpy(clip)[None], mel)[0] for clip in clips]
    if not mels:
        return []
    lengths = torch.tensor([len(one) for one in mels])
    padded = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True)
    out = tower(padded, lengths)
    symbols = ctc_greedy(tower.log_probs(out.features), out.lengths)
    return [text_codec.decode(row).strip() for row in symbols]


def quiet_parts(samples: np.ndarray, most: int, rate: int) -> list[np.ndarray]:
    """A clip float32[T] in parts of at most `most` samples that are the clip when joined.

    Each ends at the quietest moment of the second half of what it may hold.
    """
    moment = max(1, int(rate * QUIET))
    parts = []
    while len(samples) > most:
        half = most // 2
        count = max(1, (most - half) // moment)
        blocks = samples[half : half + count * moment].reshape(count, -1)
        place = int((blocks.astype(np.float64) ** 2).mean(1).argmin())
        cut = half + place * moment + moment // 2
        parts.append(samples[:cut])
        samples = samples[cut:]
    return [*parts, samples]


@torch.inference_mode()
def word_times(
    tower: AudioTower, text_codec: TextCodec, mel: MelConfig, text: str, samples: np.ndarray
) -> tuple[WordTime, ...] | None:
    """When each word of a known text is said, by the recogniser's own best alignment.

    For speech without word times. A word lasts from halfway between the naming of the word before
    and its own, to halfway to the next. None when the text does not fit into the sound.
    """
    spots = [match.span() for match in WORD.finditer(text)]
    spelled = " " + normalise(text)
    if not spots or len(spots) != len(spelled.split()):
        return None
    symbols = text_codec.encode(spelled)
    frames = log_mel(torch.from_numpy(samples)[None], mel)
    out = tower(frames, torch.tensor([frames.shape[1]]))
    named = ctc_alignment(tower.log_probs(out.features)[0].numpy(), [s + 1 for s in symbols])
    if named is None:
        return None
    # A word is named when its last symbol is.
    ends = [i for i, (_, end) in enumerate(text_codec.offsets(spelled)) if _is_end(spelled, end)]
    seconds = DOWNSAMPLE * mel.hop / mel.rate
    peaks = [(named[i] + 0.5) * seconds for i in ends]
    if len(peaks) != len(spots):
        return None
    middles = [(a + b) / 2 for a, b in itertools.pairwise(peaks)]
    starts, stops = [0.0, *middles], [*middles, len(samples) / mel.rate]
    return tuple(
        WordTime(begin, end, start, stop)
        for (begin, end), start, stop in zip(spots, starts, stops, strict=True)
    )


def _is_end(spelled: str, end: int) -> bool:
    return end == len(spelled) or spelled[end] == " "


def ctc_alignment(log_probs: np.ndarray, symbols: Sequence[int]) -> list[int] | None:
    """Viterbi: the first frame of each symbol on the best CTC path through log_probs [F, K].

    Class 0 is the blank. None when there are too few frames.
    """
    frames, states = len(log_probs), 2 * len(symbols) + 1
    classes = np.zeros(states, dtype=np.int64)
    classes[1::2] = symbols
    skips = np.zeros(states, dtype=bool)
    skips[3::2] = classes[3::2] != classes[1:-2:2]
    best = np.full(states, -np.inf)
    best[:2] = log_probs[0, classes[:2]]
    back = np.zeros((frames, states), dtype=np.int64)
    for t in range(1, frames):
        one = np.concatenate([[-np.inf], best[:-1]])
        two = np.where(skips, np.concatenate([[-np.inf, -np.inf], best[:-2]]), -np.inf)
        choices = np.stack([best, one, two])
        back[t] = choices.argmax(0)
        best = choices.max(0) + log_probs[t, classes]
    state = states - 1 if states == 1 or best[-1] >= best[-2] else states - 2
    if not np.isfinite(best[state]):
        return None
    path = [state]
    for t in range(frames - 1, 0, -1):
        path.append(path[-1] - int(back[t, path[-1]]))
    path.reverse()
    return [path.index(2 * i + 1) for i in range(len(symbols))]
