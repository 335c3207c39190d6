"""The bidirectional transformer block that the vision and audio towers share.

Knows: pre-norm attention over all positions of one clip or picture, with an optional padding mask.
Does not know: what the positions mean, or where their position signal came from.
Costs: 4 D^2 + 2 D F parameters and O(T^2 D) time; biases everywhere, as in the seed's towers.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.fused import whole_attention


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of a stack of encoder blocks."""

    width: int
    layers: int
    heads: int
    ffn_width: int

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.layers < 1:
            raise ValueError(f"an encoder needs at least one layer, got {self.layers}")


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); x is [B, T, D]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.ffn_width)
        self.down = nn.Linear(config.ffn_width, config.width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, D] -> [B, T, D]; `mask` [B, 1, 1, T] is True where a key may be read."""
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        read = whole_attention(q, k, v, mask)
        x = x + self.out(read.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class Encoder(nn.Module):
    """A stack of blocks and the final RMSNorm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-5)
        self._init_weights(config)

    def _init_weights(self, config: EncoderConfig) -> None:
        # Residual outputs start small so that depth does not grow the variance (GPT-2's rule).
        residual_std = 0.02 / (2 * config.layers) ** 0.5
        for name, parameter in self.blocks.named_parameters():
            if parameter.dim() == 2:
                small = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=residual_std if small else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, D] -> [B, T, D]; `mask` [B, T] is True at real positions."""
        keys = None if mask is None else mask[:, None, None, :]
        for block in self.blocks:
            x = block(x, keys)
        return self.norm(x)


def sinusoids(length: int, width: int) -> Tensor:
    """Fixed sine and cosine positions [T, D] (arXiv 1706.03762), any length, no parameters."""
    rates = torch.exp(-torch.arange(0, width, 2) * (torch.log(torch.tensor(10000.0)) / width))
    angles = torch.arange(length)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
