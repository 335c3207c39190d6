"""Log-mel spectrograms: the one definition shared by recogniser, codec and vocoder.

Knows: STFT magnitude, triangular HTK-mel filters, natural log with a floor, and a way back.
Does not know: files, voices or models.
Costs: about half a millisecond a second of sound on one core; tables are cached by config.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

GAIN = 40.0
"""Scales area-normalised filters so that the log of speech lies between about -7 and 5."""


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """rate in Hz; n_fft, win and hop in samples; floor is the smallest mel magnitude."""

    rate: int = 16000
    n_fft: int = 1024
    win: int = 640
    hop: int = 160
    n_mels: int = 80
    fmin: float = 0.0
    fmax: float = 8000.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.fmin < self.fmax <= self.rate / 2:
            raise ValueError(
                f"need 0 <= fmin < fmax <= {self.rate / 2}, got {self.fmin} and {self.fmax}"
            )
        if not 0 < self.hop <= self.win <= self.n_fft:
            raise ValueError(f"need hop <= win <= n_fft, got {self.hop}, {self.win}, {self.n_fft}")

    def frames(self, samples: int) -> int:
        """Frames of a signal of so many samples: ceil(samples / hop)."""
        return -(-samples // self.hop)


@lru_cache(maxsize=8)
def mel_filterbank(config: MelConfig) -> Tensor:
    """Triangles of unit area x GAIN on the HTK mel scale: [n_mels, n_fft / 2 + 1]."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (config.fmin, config.fmax))
    edges = 700 * (10 ** (np.linspace(low, high, config.n_mels + 2) / 2595) - 1)
    bins = np.linspace(0, config.rate / 2, config.n_fft // 2 + 1)
    rise = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    area = 2 / (edges[2:] - edges[:-2])
    filters = np.maximum(0, np.minimum(rise, fall)) * area[:, None] * GAIN
    return torch.tensor(filters, dtype=torch.float32)


@lru_cache(maxsize=8)
def window(config: MelConfig) -> Tensor:
    """The periodic Hann window [win]."""
    return torch.hann_window(config.win)


def magnitude(samples: Tensor, config: MelConfig) -> Tensor:
    """samples [B, T] -> |STFT| [B, F, n_fft / 2 + 1]; frame f is centred on sample f * hop.

    Outside the signal there is silence (zeros).
    """
    frames = config.frames(samples.shape[-1])
    spectrum = torch.stft(
        samples.float(),
        config.n_fft,
        config.hop,
        config.win,
        window(config).to(samples.device),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    if spectrum.device.type == "cpu" and not spectrum.requires_grad:
        size = torch.from_numpy(np.abs(spectrum.numpy()))  # a tenth of the time of torch's own
    else:
        size = spectrum.abs()
    return size[..., :frames].transpose(-1, -2)


def log_mel(samples: Tensor, config: MelConfig) -> Tensor:
    """samples [B, T] -> natural-log mel magnitude [B, F, n_mels] in fp32, F = ceil(T / hop)."""
    return mel_of(magnitude(samples, config), config)


def mel_of(sizes: Tensor, config: MelConfig) -> Tensor:
    """`magnitude` [..., n_fft / 2 + 1] -> natural-log mel magnitude [..., n_mels] in fp32."""
    with torch.autocast(sizes.device.type, enabled=False):
        mel = sizes @ mel_filterbank(config).T.to(sizes.device)
        return mel.clamp(min=config.floor).log()


@lru_cache(maxsize=8)
def _inverse(config: MelConfig) -> Tensor:
    return torch.linalg.pinv(mel_filterbank(config).double()).float()


def mel_to_magnitude(log_mels: Tensor, config: MelConfig, rounds: int = 8) -> Tensor:
    """log-mel [..., n_mels] -> a non-negative magnitude [..., n_fft / 2 + 1] with that mel.

    Starts from the clamped pseudo-inverse and takes multiplicative least-squares steps
    (Lee and Seung 1999), which keep it non-negative.
    """
    filters = mel_filterbank(config)
    wanted = log_mels.float().exp()
    guess = (wanted @ _inverse(config).T).clamp(min=1e-5)
    top = wanted @ filters
    for _ in range(rounds):
        guess = guess * top / (guess @ filters.T @ filters).clamp(min=1e-8)
    return guess
