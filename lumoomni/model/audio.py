"""AuT-Tiny: log-mel frames to audio features at 12.5 Hz, with a CTC head to train and transcribe.

Knows: three stride-2 convolutions (8x in time and in frequency), fixed positions, padding masks.
Does not know: where the mel came from, what its symbols spell, or who reads its features.
Costs: at the seed's sizes 2.05 M parameters; one second of sound is 12.5 feature vectors.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.encoder import Encoder, EncoderConfig, sinusoids

DOWNSAMPLE = 8


@dataclass(frozen=True, kw_only=True)
class AudioTowerConfig:
    """`symbols` is the CTC alphabet without the blank; 0 builds no head."""

    n_mels: int
    channels: int
    encoder: EncoderConfig
    symbols: int = 0
    max_frames: int = 1500
    mel_mean: float = -5.0
    mel_std: float = 3.0

    def __post_init__(self) -> None:
        if self.n_mels % DOWNSAMPLE:
            raise ValueError(f"n_mels {self.n_mels} must be a multiple of {DOWNSAMPLE}")

    @property
    def width(self) -> int:
        """Of a feature."""
        return self.encoder.width


@dataclass(frozen=True)
class AudioFeatures:
    """features [B, F, D] at 12.5 Hz, lengths [B] valid frames, mask [B, F] True where valid."""

    features: Tensor
    lengths: Tensor
    mask: Tensor


def feature_count(mel_frames: int) -> int:
    """12.5 Hz features that `mel_frames` of 100 Hz mel become: each stride-2 layer rounds up."""
    for _ in range(3):
        mel_frames = (mel_frames + 1) // 2
    return mel_frames


class AudioTower(nn.Module):
    """mel [B, M, n_mels] (natural-log magnitude, 100 Hz) -> AudioFeatures."""

    positions: Tensor

    def __init__(self, config: AudioTowerConfig) -> None:
        super().__init__()
        self.config = config
        channels, width = config.channels, config.encoder.width
        self.convs = nn.ModuleList(
            nn.Conv2d(1 if i == 0 else channels, channels, 3, stride=2, padding=1) for i in range(3)
        )
        self.project = nn.Linear(channels * config.n_mels // DOWNSAMPLE, width)
        self.encoder = Encoder(config.encoder)
        self.ctc = nn.Linear(width, config.symbols + 1) if config.symbols else None
        table = sinusoids(config.max_frames, width)
        self.register_buffer("positions", table, persistent=False)

    def forward(self, mel: Tensor, mel_lengths: Tensor) -> AudioFeatures:
        """Padding never reaches real frames: it is zeroed before each convolution and masked after.

        Raises ValueError when the clip is longer than `max_frames` features.
        """
        x = ((mel - self.config.mel_mean) / self.config.mel_std)[:, None]
        lengths = mel_lengths
        for conv in self.convs:
            x = x * _frame_mask(lengths, x.shape[2])[:, None, :, None]
            x = F.gelu(conv(x))
            lengths = (lengths + 1) // 2
        most = self.config.max_frames
        if x.shape[2] > most and int(lengths.max()) > most:
            raise ValueError(
                f"{int(lengths.max())} audio features exceed the tower's {most}; "
                "cut the audio or raise max_frames"
            )
        x = x[:, :, :most]  # whatever is cut off is padding
        frames = x.shape[2]
        mask = _frame_mask(lengths, frames)
        x = self.project(x.transpose(1, 2).flatten(2)) + self.positions[:frames]
        return AudioFeatures(self.encoder(x, mask), lengths, mask)

    def log_probs(self, features: Tensor) -> Tensor:
        """[B, F, D] -> log-probabilities [B, F, symbols + 1]; class 0 is the CTC blank."""
        if self.ctc is None:
            raise ValueError("this audio tower was built without a CTC head (symbols=0)")
        return F.log_softmax(self.ctc(features).float(), dim=-1)


def _frame_mask(lengths: Tensor, frames: int) -> Tensor:
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


def ctc_greedy(log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
    """Best path per clip: merge repeats, drop blanks; symbols are returned 0-based (class - 1)."""
    best = log_probs.argmax(-1)
    out = []
    for row, length in zip(best, lengths.tolist(), strict=True):
        merged = torch.unique_consecutive(row[:length]).tolist()
        out.append([symbol - 1 for symbol in merged if symbol])
    return out


def ctc_needs(symbols: list[int]) -> int:
    """Frames that CTC needs for a target: one per symbol and one blank between equal neighbours."""
    return len(symbols) + sum(a == b for a, b in itertools.pairwise(symbols))
