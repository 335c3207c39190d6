"""Griffin-Lim: magnitudes to sound, whole or as a stream.

Knows: STFT and overlap-add at one mel config, phases from spectral peaks (single-pass spectrogram
inversion, Beauregard et al. 2015), momentum (Perraudin et al. 2013).
Does not know: codecs or words.
Costs: the stream takes about 0.05 of real time on one core. It works on a fixed grid of chunks
counted from the start of the utterance, in windows of one shape, so its bits do not depend on how
the frames arrived; `vocode` is one push and a flush of the same stream.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lumoomni.media.mel import MelConfig, mel_to_magnitude, window


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """`chunk` frames leave together; they see `past` and `ahead` frames around them."""

    mel: MelConfig = field(default_factory=MelConfig)
    iterations: int = 12
    momentum: float = 0.99
    chunk: int = 16
    past: int = 4
    ahead: int = 6

    def __post_init__(self) -> None:
        overlap = self.mel.win // self.mel.hop
        if self.mel.win % self.mel.hop or overlap % 2:
            raise ValueError(
                f"win {self.mel.win} must be an even multiple of hop {self.mel.hop} for overlap-add"
            )
        if self.chunk < 1 or self.iterations < 0 or min(self.past, self.ahead) < overlap // 2:
            raise ValueError(
                f"chunk must be >= 1 and past and ahead >= {overlap // 2} frames, got "
                f"{self.chunk}, {self.past}, {self.ahead}"
            )


def vocoder_config(mel: MelConfig) -> VocoderConfig:
    """The default vocoder of a mel config."""
    return VocoderConfig(mel=mel)


def analyse(blocks: Tensor, mel: MelConfig) -> Tensor:
    """Hop blocks [..., F + win/hop - 1, hop] -> complex spectra [..., F, n_fft / 2 + 1].

    Block 0 begins half a window before the centre of frame 0.
    """
    overlap = mel.win // mel.hop
    count = blocks.shape[-2] - overlap + 1
    frames = torch.cat([blocks[..., j : j + count, :] for j in range(overlap)], -1)
    return torch.fft.rfft(frames * window(mel), n=mel.n_fft)


def synthesise(spectra: Tensor, mel: MelConfig) -> Tensor:
    """The least-squares inverse of `analyse`: overlap-add divided by the window's energy."""
    overlap, count = mel.win // mel.hop, spectra.shape[-2]
    frames = torch.fft.irfft(spectra, n=mel.n_fft)[..., : mel.win] * window(mel)
    parts = frames.unflatten(-1, (overlap, mel.hop))
    out = parts.new_zeros((*parts.shape[:-3], count + overlap - 1, mel.hop))
    for j in range(overlap):
        out[..., j : j + count, :] += parts[..., j, :]
    return out / _energy(mel, count)


@lru_cache(maxsize=32)
def _energy(mel: MelConfig, count: int) -> Tensor:
    overlap = mel.win // mel.hop
    square = (window(mel) ** 2).view(overlap, mel.hop)
    total = torch.zeros(count + overlap - 1, mel.hop)
    for j in range(overlap):
        total[j : j + count] += square[j]
    return total.clamp(min=1e-3)


def peak_phases(magnitude: Tensor, mel: MelConfig, start: Tensor | None = None) -> Tensor:
    """Phases [..., F, K] that let every spectral peak run on at its own frequency.

    The frequency of a peak is interpolated from its neighbours; bins around it turn with it.
    `start` [..., K] is the phase of the frame before the first.
    """
    bins = magnitude.shape[-1]
    padded = F.pad(magnitude, (1, 1))
    left, right = padded[..., :-2], padded[..., 2:]
    is_peak = (magnitude > left) & (magnitude >= right)
    curve = (left - 2 * magnitude + right).clamp(max=-1e-9)
    offset = (0.5 * (left - right) / curve).clamp(-0.5, 0.5)
    index = torch.arange(bins, device=magnitude.device)
    below = torch.where(is_peak, index, -1).cummax(-1).values
    above = torch.where(is_peak, index, bins).flip(-1).cummin(-1).values.flip(-1)
    near_below = (index - below <= above - index) & (below >= 0)
    nearest = torch.where(near_below | (above >= bins), below, above).clamp(0, bins - 1)
    frequency = nearest + offset.gather(-1, nearest)
    advance = frequency * (2 * math.pi * mel.hop / mel.n_fft)
    phase = advance.cumsum(-2)
    return phase if start is None else phase + start[..., None, :]


def refine(
    magnitude: Tensor,
    blocks: Tensor,
    config: VocoderConfig,
    known: Tensor | None = None,
) -> Tensor:
    """Fast Griffin-Lim from a first guess in blocks; leading `known` blocks never change."""
    before: Tensor | None = None
    for _ in range(config.iterations):
        spectra = analyse(blocks, config.mel)
        pushed = spectra if before is None else spectra + config.momentum * (spectra - before)
        before = spectra
        unit = pushed / pushed.abs().clamp(min=1e-9)
        blocks = synthesise(magnitude * unit, config.mel)
        if known is not None:
            blocks[..., : known.shape[-2], :] = known
    return blocks


def griffin_lim(magnitude: Tensor, config: VocoderConfig) -> Tensor:
    """magnitude [B, F, n_fft / 2 + 1] -> samples [B, F * hop]; deterministic, all at once."""
    half = config.mel.win // config.mel.hop // 2
    if magnitude.shape[-2] == 0:
        return magnitude.new_zeros(magnitude.shape[0], 0)
    phases = peak_phases(magnitude, config.mel)
    first = synthesise(torch.polar(magnitude, phases), config.mel)
    blocks = refine(magnitude, first, config)
    return blocks[:, half : half + magnitude.shape[1]].flatten(1)


class StreamingGriffinLim:
    """`push` log-mel frames as they come, then `flush`; each returns samples float32 [T]."""

    def __init__(self, config: VocoderConfig) -> None:
        self.config = config
        mel = config.mel
        overlap = mel.win // mel.hop
        # Before the utterance there was silence.
        self._magnitude = torch.full((config.past, mel.n_fft // 2 + 1), 1e-5)
        self._known = torch.zeros(config.past + overlap // 2, mel.hop)
        self._given = 0
        self._done = 0

    @torch.inference_mode()
    def push(self, log_mels: Tensor) -> np.ndarray:
        """log-mel [F', n_mels] -> the samples that are settled by now."""
        if len(log_mels):
            self._append(log_mels)
        out = []
        while self._given - self._done >= self.config.chunk + self.config.ahead:
            out.append(self._chunk())
        return _joined(out)

    @torch.inference_mode()
    def flush(self) -> np.ndarray:
        """The rest; call once, at the end."""
        config = self.config
        left = (self._given - self._done) * config.mel.hop
        silence = torch.full((config.chunk + config.ahead, self._magnitude.shape[1]), 1e-5)
        self._magnitude = torch.cat([self._magnitude, silence])
        out = []
        while self._given > self._done:
            out.append(self._chunk())
        return _joined(out)[:left]

    def _append(self, log_mels: Tensor) -> None:
        # Frame by frame: a matrix product of another height may round differently.
        rows = [mel_to_magnitude(row[None], self.config.mel) for row in log_mels]
        self._magnitude = torch.cat([self._magnitude, *rows])
        self._given += len(rows)

    def _chunk(self) -> np.ndarray:
        config = self.config
        half = config.mel.win // config.mel.hop // 2
        size = config.past + config.chunk + config.ahead
        magnitude = self._magnitude[:size]
        overlap = config.mel.win // config.mel.hop
        # The last frame that lies wholly in known samples hands its phase on.
        fresh = len(self._known) - overlap + 1
        old = analyse(self._known, config.mel)
        phases = peak_phases(magnitude[fresh:], config.mel, old[-1].angle())
        guess = torch.cat([old, torch.polar(magnitude[fresh:], phases)])
        blocks = synthesise(guess, config.mel)
        blocks[: len(self._known)] = self._known
        blocks = refine(magnitude, blocks, config, self._known)
        begin = config.past + half
        self._known = blocks[config.chunk : config.chunk + begin].clone()
        self._magnitude = self._magnitude[config.chunk :]
        self._done += config.chunk
        return blocks[begin : begin + config.chunk].flatten().numpy().copy()


def vocode(log_mels: Tensor, mel: MelConfig) -> np.ndarray:
    """log-mel [F, n_mels] -> samples float32 [F * hop]; the same bits as any stream of it."""
    stream = StreamingGriffinLim(vocoder_config(mel))
    first = stream.push(log_mels)
    return np.concatenate([first, stream.flush()])


def spectral_convergence(samples: Tensor, magnitude: Tensor, mel: MelConfig) -> float:
    """||  |STFT(samples)| - magnitude || / || magnitude ||; lower is better."""
    half, hop = mel.win // 2, mel.hop
    frames = magnitude.shape[-2]
    padded = F.pad(samples, (half, half - hop + frames * hop - samples.shape[-1]))
    found = analyse(padded.unflatten(-1, (-1, hop)), mel).abs()
    return float((found - magnitude).norm() / magnitude.norm())


def _joined(chunks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.float32)
