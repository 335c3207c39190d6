"""The RVQ speech codec as a tokenizer: sound to codes and back.

Knows: the one mel definition, resampling, Griffin-Lim. Does not know: ids or sequences.
Costs: encoding a hundredth of real time, decoding about a twentieth (the vocoder).

In fp32 and evaluation mode. A clip's codes never depend on its company: clips are encoded one after
the other in one row, and alone where rounding could tell (codecs/company.py).
"""

from collections.abc import Sequence

import numpy as np
import torch

from lumoomni.codecs.company import NEAR, Steps, in_company, product
from lumoomni.codecs.exact import exactly
from lumoomni.codecs.facts import CodecFacts, Coded
from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.codecs.vocoder import vocode
from lumoomni.config import config_hash
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio
from lumoomni.media.mel import MelConfig, magnitude, mel_filterbank, mel_of

ROOM = 16
"""Clips that are encoded together, and..."""
MOST = 30
"""... how many seconds they may have in all: of long ones there is nothing to gain."""


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
            return self._alone(self._heard(samples))

    def margins(self, samples: np.ndarray) -> np.ndarray:
        """float64 [F, Q]: how far the next code was behind the chosen one."""
        with exactly(self._codec, self.facts.name):
            return self._codec.margins(self._mels(self._heard(samples)))[0].cpu().numpy()

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        """`encode` of each, bit for bit; several at a time where torch has several threads."""
        for samples in media:
            self._refuse_no_sound(samples)
        groups = [[media[i] for i in group] for group in packs([*map(len, media)], self._most())]
        steps = Steps(self._heard, self._alone, self._together)
        return in_company(groups, steps, self._codec, self.facts.name)

    def _alone(self, heard: torch.Tensor) -> Coded:
        return Coded(self._codec.encode(self._mels(heard))[0].cpu().numpy())

    def _together(self, heard: Sequence[torch.Tensor]) -> list[Coded | None]:
        mels = product(torch.cat([one[0] for one in heard]), mel_filterbank(self._mel))
        mels = mels.clamp_(min=self._mel.floor).log_().to(self._device())
        found = self._codec.encode_clear(mels.split([one.shape[1] for one in heard]), NEAR)
        return [Coded(codes.cpu().numpy()) if sure else None for codes, sure in found]

    def _most(self) -> int:
        return MOST * self.rate

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
        """samples [S] -> how loud each frequency is [1, M, n_fft / 2 + 1]."""
        wave = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        return magnitude(wave[None], self._mel)

    def _mels(self, heard: torch.Tensor) -> torch.Tensor:
        """-> [1, M, n_mels] where the codec is; the mel itself is made on the CPU."""
        return mel_of(heard, self._mel).to(self._device())

    def _device(self) -> torch.device:
        return self._codec.quantiser.codebooks.device


def packs(lengths: Sequence[int], most: int) -> list[range]:
    """Which of `lengths` in turn are put together: at most ROOM, of `most` in all; one that is
    longer stays alone."""
    found, start = [], 0
    for place in range(len(lengths)):
        count = place + 1 - start
        if count > 1 and (count > ROOM or sum(lengths[start : place + 1]) > most):
            found.append(range(start, place))
            start = place
    return [*found, range(start, len(lengths))] if lengths else []
