"""The RVQ speech codec as a tokenizer: sound to codes and back.

Knows: the one mel definition, resampling, Griffin-Lim. Does not know: ids or sequences.
Costs: encoding a hundredth of real time, decoding about a twentieth (the vocoder).

In fp32 and evaluation mode. A clip's codes never depend on its company: clips of like lengths are
encoded together, and alone where rounding could tell (codecs/company.py).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from lumoomni.codecs.company import NEAR, ROOM, in_company
from lumoomni.codecs.exact import exactly
from lumoomni.codecs.facts import CodecFacts, Coded
from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.codecs.vocoder import vocode
from lumoomni.config import config_hash
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio
from lumoomni.media.mel import MelConfig, log_mel

MOST = 30
"""Seconds of a batch, filled up: of long clips there is nothing to gain."""


class SpeechTokens:
    """samples float32 [S] at the mel's rate <-> codes int64 [F, Q]. `weights` is their SHA-256."""

    def __init__(self, codec: SpeechCodec, mel: MelConfig, weights: str) -> None:
        if codec.training:
            raise ValueError("a codec must be in evaluation mode to give the same codes twice")
        self._codec, self._mel = codec, mel
        shape = codec.config
        self.facts = CodecFacts(
            kind="audio",
            name="lumo-speech-rvq",
            weights=weights,
            codebooks=shape.codebooks,
            codebook_size=shape.codebook_size,
            frame_rate=mel.rate / mel.hop / shape.stride,
            sample_rate=mel.rate,
            preprocessing=config_hash(mel),
        )

    @property
    def rate(self) -> int:
        """Samples a second that it reads and gives."""
        return self._mel.rate

    def encode(self, samples: np.ndarray) -> Coded:
        """Raises InputError for sound shorter than one frame, ValueError in training mode."""
        self._refuse_no_sound(samples)
        with exactly(self._codec, self.facts.name):
            return Coded(self._codec.encode(self._heard(samples))[0].cpu().numpy())

    def margins(self, samples: np.ndarray) -> np.ndarray:
        """float64 [F, Q]: how far the next code was behind the chosen one."""
        with exactly(self._codec, self.facts.name):
            return self._codec.margins(self._heard(samples))[0].cpu().numpy()

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        """`encode` of each, bit for bit; several at a time where torch has several threads."""
        for samples in media:
            self._refuse_no_sound(samples)
        order = sorted(range(len(media)), key=lambda i: len(media[i]))
        groups = alike([len(media[i]) for i in order], MOST * self.rate)
        sounds = [[media[order[i]] for i in group] for group in groups]
        made = in_company(sounds, self._together, self.encode, self._codec)
        found = dict(zip(order, made, strict=True))
        return [found[i] for i in range(len(media))]

    def _together(self, media: Sequence[np.ndarray]) -> list[Coded | None]:
        with exactly(self._codec, self.facts.name):
            heard = [self._heard(samples)[0] for samples in media]
            lengths = torch.tensor([len(one) for one in heard], device=heard[0].device)
            mel = pad_sequence(heard, batch_first=True)
            codes, clear = self._codec.encode_clear(mel, lengths, NEAR)
        frames = [-(-len(one) // self._codec.config.stride) for one in heard]
        found = zip(codes.cpu().numpy(), frames, clear.tolist(), strict=True)
        return [Coded(one[:count].copy()) if sure else None for one, count, sure in found]

    def _refuse_no_sound(self, samples: np.ndarray) -> None:
        least = self._mel.hop
        if samples.ndim != 1 or len(samples) < least:
            raise InputError(
                f"sound of shape {samples.shape} holds no frame; give at least {least} samples of "
                f"one channel at {self.rate} Hz"
            )

    def decode(self, coded: Coded) -> Audio:
        """Raises InputError for codes out of range."""
        self.facts.check(coded)
        with exactly(self._codec, self.facts.name):
            codes = torch.from_numpy(np.ascontiguousarray(coded.codes, dtype=np.int64))
            mel = self._codec.decode(codes).cpu()
        return Audio(np.asarray(vocode(mel, self._mel), dtype=np.float32), self.rate)

    def _heard(self, samples: np.ndarray) -> torch.Tensor:
        """samples [S] -> [1, M, n_mels] where the codec is; the mel itself is made on the CPU."""
        wave = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        return log_mel(wave[None], self._mel).to(self._device())

    def _device(self) -> torch.device:
        return self._codec.quantiser.codebooks.device


def alike(lengths: Sequence[int], most: int) -> list[range]:
    """Which of rising `lengths` are put together: at most ROOM, and `most` when all are filled up
    to the last; one that is longer stays alone."""
    groups, start = [], 0
    for place, length in enumerate(lengths):
        count = place + 1 - start
        if count > 1 and (count > ROOM or count * length > most):
            groups.append(range(start, place))
            start = place
    return [*groups, range(start, len(lengths))] if lengths else []
