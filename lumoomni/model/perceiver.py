"""The perceiver connector: any number of patches to a fixed number of positions.

Knows: learned latents that read the patches by cross-attention (Perceiver, arXiv 2103.03206;
resampler, Flamingo, arXiv 2204.14198), and a two-layer MLP into the Thinker's width.
Does not know: which tower the patches come from, or where in a sequence the positions go.
Costs: V D + D + L D + layers (12 D^2 + 13 D) for the resampler of width D, L latents and tower
width V; D M + M + M H + H for the projector with M = ratio x H and Thinker width H. At SigLIP2
SO400M and Qwen3-8B: 6,927,872 + 75,517,952 = 82,445,824.

Latents do not read each other and are not among the keys, keys have no norm, and there is no norm
at the end: these are the seed's choices, and its parameter counts pin them.

With `symbols`, a position is said as the likeliest of so many symbols, each with a vector (the
Thinker's own embeddings, to begin with): what has been learned of text then holds for pictures.
The seed has none of these.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.fused import whole_attention
from lumoomni.model.vision import VisionFeatures


@dataclass(frozen=True, kw_only=True)
class PerceiverConnectorConfig:
    """`latents` positions a picture; `mlp_ratio` is the projector's, in Thinker widths."""

    source_width: int
    target_width: int
    latents: int = 64
    width: int = 512
    layers: int = 2
    heads: int = 8
    mlp_ratio: int = 4
    source_norm: bool = False
    """LayerNorm on the tower's patches first (the seed's optional `vision_ln`)."""
    waves: float = 0.0
    """Size of fixed waves over the rows and columns of a square grid, added to its patches. What
    stands where is then plain to see, also for a tower that had no use for it."""
    symbols: int = 0
    """What a position can be; with 0 it is the projector's vector as it is."""
    nothing: int = 0
    """The symbol that says nothing."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if min(self.latents, self.layers, self.mlp_ratio) < 1:
            raise ValueError(
                f"latents, layers and mlp_ratio must be at least 1, got {self.latents}, "
                f"{self.layers} and {self.mlp_ratio}"
            )

    @property
    def positions(self) -> int:
        """Positions that one picture takes."""
        return self.latents


class ResamplerBlock(nn.Module):
    """latents + attention(norm(latents), patches), then + mlp(norm(latents))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, latents: Tensor, patches: Tensor) -> Tensor:
        """latents [B, L, D] and patches [B, N, D] -> [B, L, D]."""
        batch, count, width = latents.shape
        q = self.query(self.attention_norm(latents)).view(batch, count, self.heads, -1)
        kv = self.key_value(patches).view(batch, patches.shape[1], 2, self.heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4)
        read = whole_attention(q.transpose(1, 2), k, v)
        latents = latents + self.out(read.transpose(1, 2).reshape(batch, count, width))
        return latents + self.down(F.gelu(self.up(self.mlp_norm(latents))))


class PerceiverResampler(nn.Module):
    """patches [B, N, V] -> [B, L, D]; the order of the patches does not matter to it."""

    def __init__(self, config: PerceiverConnectorConfig) -> None:
        super().__init__()
        self.input = nn.Linear(config.source_width, config.width)
        self.latents = nn.Parameter(torch.randn(config.latents, config.width))
        self.blocks = nn.ModuleList(
            ResamplerBlock(config.width, config.heads) for _ in range(config.layers)
        )

    def forward(self, patches: Tensor) -> Tensor:
        """The latents after they have read the patches."""
        patches = self.input(patches)
        latents = self.latents.to(patches.dtype).expand(len(patches), -1, -1)
        for block in self.blocks:
            latents = block(latents, patches)
        return latents


class PerceiverConnector(nn.Module):
    """Tower patches [B, N, V] -> [B, L, H] in the Thinker's width."""

    def __init__(self, config: PerceiverConnectorConfig) -> None:
        super().__init__()
        self.config = config
        self.source_norm = nn.LayerNorm(config.source_width) if config.source_norm else None
        self.resampler = PerceiverResampler(config)
        inner = config.mlp_ratio * config.target_width
        self.up = nn.Linear(config.width, inner)
        self.down = nn.Linear(inner, config.target_width)
        symbols = config.symbols
        table = torch.randn(symbols, config.target_width) * 0.02
        self.symbol_table = nn.Parameter(table) if symbols else None
        # exp(3) = 20: what is just like one symbol is that one, among thousands.
        self.sharpness = nn.Parameter(torch.tensor(3.0)) if symbols else None

    def forward(self, patches: Tensor) -> Tensor:
        """[B, N, V] in any type -> [B, L, H]: the projector's vectors."""
        patches = patches.to(self.up.weight.dtype)
        if self.source_norm is not None:
            patches = self.source_norm(patches)
        if self.config.waves:
            patches = patches + self.config.waves * grid_waves(patches).to(patches.dtype)
        return self.down(F.gelu(self.up(self.resampler(patches))))

    def picture(self, features: VisionFeatures) -> Tensor:
        """[B, L, H] from the patches; the summary vector is not read."""
        return self.say(self(features.patches))

    def scores(self, x: Tensor) -> Tensor:
        """Vectors [B, L, H] -> scores [B, L, S] in fp32: the nearer a symbol, the higher.

        Raises ValueError for a connector without symbols.
        """
        if self.symbol_table is None or self.sharpness is None:
            raise ValueError("this connector has no symbols to score; give it some")
        table = self.symbol_table.float()
        sizes = table.square().sum(1)
        # Half the squared distance, without the part that is the same for all symbols.
        near = F.linear(x.float(), table) - sizes / 2
        return near / sizes.mean() * self.sharpness.exp()

    def say(self, x: Tensor) -> Tensor:
        """Vectors [B, L, H] as they are, or with symbols the likeliest one's vector.

        Gradients then are as if it were the mixture (arXiv 1308.3432).
        """
        if self.symbol_table is None:
            return x
        soft = self.scores(x).softmax(-1)
        hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
        return (hard + soft - soft.detach()) @ self.symbol_table

    @torch.no_grad()
    def take_symbols(self, table: Tensor) -> None:
        """Start the symbols as a Thinker's embeddings [V, H].

        Raises ValueError when they are not as many as the symbols.
        """
        if self.symbol_table is None or len(table) != len(self.symbol_table):
            raise ValueError(f"{len(table)} embeddings do not fill {self.config.symbols} symbols")
        self.symbol_table.copy_(table)


def grid_waves(patches: Tensor) -> Tensor:
    """[N, V] for patches [B, N, V] of a square grid: sines and cosines of row, then of column.

    A quarter of the width each, from half a wave over the grid to eight. Raises ValueError for
    patches that are no square grid, or a width that four does not divide.
    """
    count, width = patches.shape[1:]
    side = math.isqrt(count)
    if side * side != count or width % 4:
        raise ValueError(f"{count} patches of width {width} are no square grid of fours")
    steps = (torch.arange(side, device=patches.device) + 0.5) / side
    rates = torch.pi * 2.0 ** (4 * torch.arange(width // 4, device=patches.device) / (width // 4))
    angles = steps[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = line[:, None].expand(side, side, -1), line.expand(side, side, -1)
    return torch.cat([rows, columns], 2).flatten(0, 1)
