"""The RVQ speech codec as a tokenizer: sound to codes and back.

Knows: the one mel definition, resampling, Griffin-Lim. Does not know: ids or sequences.
Costs: encoding a hundredth of real time, decoding about a twentieth (the vocoder).

One clip at a time, in fp32 and evaluation mode: a clip's codes never depend on its company.
"""

import numpy as np
import torch

from lumoomni.codecs.facts import CodecFacts
from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.codecs.vocoder import vocode
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio
from lumoomni.media.mel import MelConfig, log_mel


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
        )

    @property
    def rate(self) -> int:
        """Samples a second that it reads and gives."""
        return self._mel.rate

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Raises InputError for sound shorter than one frame."""
        least = self._mel.hop
        if samples.ndim != 1 or len(samples) < least:
            raise InputError(
                f"sound of shape {samples.shape} holds no frame; give at least {least} samples of "
                f"one channel at {self.rate} Hz"
            )
        with torch.no_grad():
            mel = log_mel(torch.from_numpy(np.asarray(samples, dtype=np.float32))[None], self._mel)
            return self._codec.encode(mel)[0].numpy()

    def decode(self, codes: np.ndarray) -> Audio:
        """Raises ValueError for codes out of range."""
        mel = self._codec.decode(torch.from_numpy(np.asarray(codes, dtype=np.int64)))
        return Audio(np.asarray(vocode(mel, self._mel), dtype=np.float32), self.rate)
