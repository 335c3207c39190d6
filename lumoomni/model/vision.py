"""ViT-Tiny: a picture to one summary vector and a grid of patch vectors.

Knows: patches, learned positions, the CLS vector (arXiv 2010.11929).
Does not know: captions, losses, or how many of its vectors the Thinker will read.
Costs: at the seed's sizes 0.917 M parameters and 197 positions a picture.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.encoder import Encoder, EncoderConfig
from lumoomni.model.regions import RegionReader, RegionReaderConfig


@dataclass(frozen=True, kw_only=True)
class VisionTowerConfig:
    """Square pictures of `image_size` pixels in patches of `patch`."""

    image_size: int
    patch: int
    encoder: EncoderConfig
    stem: Literal["patch", "conv"] = "patch"
    """`patch` cuts the picture as ViT does; `conv` is a pyramid of stride-2 3x3 convolutions with
    residual blocks, which learns fine shapes in far fewer steps (arXiv 2106.14881); its CLS vector
    then starts from the strongest response of each channel anywhere."""
    stem_depth: int = 2
    region_words: int = 0
    """Above 0, the tower also learns to read its patches as descriptions of up to so many ids."""
    symbols: int = 0

    def __post_init__(self) -> None:
        if self.stem == "conv" and self.patch & (self.patch - 1):
            raise ValueError(f"a conv stem needs a power of two as patch, got {self.patch}")
        if self.image_size % self.patch:
            raise ValueError(f"{self.image_size} pixels do not divide into patches of {self.patch}")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch

    @property
    def width(self) -> int:
        """Of a patch's vector."""
        return self.encoder.width


@dataclass(frozen=True)
class VisionFeatures:
    """cls [B, D]; patches [B, N, D], row by row from the top left."""

    cls: Tensor
    patches: Tensor


class VisionTower(nn.Module):
    """pixels [B, 3, S, S] in [-1, 1] -> VisionFeatures."""

    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.width
        self.patches = _stem(config)
        self.cls = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.randn(1 + config.grid**2, width) * 0.02)
        self.encoder = Encoder(config.encoder)
        self.reader = _reader(config) if config.symbols and config.region_words else None

    def forward(self, pixels: Tensor) -> VisionFeatures:
        """Raises ValueError when the pictures have another size than the tower's."""
        size = self.config.image_size
        if tuple(pixels.shape[1:]) != (3, size, size):
            raise ValueError(
                f"this vision tower reads [B, 3, {size}, {size}], got {list(pixels.shape)}"
            )
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        cls = self.cls.expand(len(x), 1, -1)
        if self.config.stem == "conv":
            cls = cls + x.amax(1, keepdim=True)
        x = torch.cat([cls, x], 1) + self.positions
        x = self.encoder(x)
        return VisionFeatures(x[:, 0], x[:, 1:])


def _reader(config: VisionTowerConfig) -> RegionReader:
    return RegionReader(
        RegionReaderConfig(
            width=config.encoder.width, symbols=config.symbols, words=config.region_words
        )
    )


class ConvBlock(nn.Module):
    """x + conv(norm(x)) over [B, C, H, W]; GroupNorm keeps it independent of the batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.gelu(self.conv(self.norm(x)))


def _stem(config: VisionTowerConfig) -> nn.Module:
    width = config.encoder.width
    if config.stem == "patch":
        return nn.Conv2d(3, width, config.patch, stride=config.patch)
    halvings = config.patch.bit_length() - 1
    layers: list[nn.Module] = []
    channels = 3
    for i in range(halvings):
        out = width >> (halvings - 1 - i)
        layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.GELU()]
        layers += [ConvBlock(out) for _ in range(1 if i == 0 else config.stem_depth)]
        channels = out
    return nn.Sequential(*layers)
