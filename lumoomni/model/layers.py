"""The pre-norm decoder block: attention, then SwiGLU or a mixture of experts.

Knows: how the parts of one layer are joined, and how a layer's weights start.
Does not know: embeddings, heads or how many layers there are; the Thinker and Talker share it.
Costs: per token 2 (D (H + 2 Hkv) K + H K D + 3 D F) multiply-adds, plus attention's reads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lumoomni.model.asked import Asked, pick
from lumoomni.model.attention import AttentionConfig, SelfAttention
from lumoomni.model.moe import MoE, MoEConfig
from lumoomni.model.norm import RMSNorm, swiglu
from lumoomni.model.segments import Segments


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """One layer: attention and a feed-forward of `ffn_width`, or `moe` in its place."""

    attention: AttentionConfig
    ffn_width: int
    norm_eps: float = 1e-6
    moe: MoEConfig | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.ffn_width < 1:
            raise ValueError(f"ffn_width must be at least 1, got {self.ffn_width}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


@dataclass(frozen=True)
class BlockOutput:
    """hidden [B, T, D] and the balancing loss, None without experts."""

    hidden: Tensor
    aux_loss: Tensor | None


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x) with gate and up as one matrix (arXiv 2002.05202)."""

    def __init__(self, width: int, ffn_width: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * ffn_width, bias=False)
        self.down = nn.Linear(ffn_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(swiglu(self.gate_up(x)))


class Block(nn.Module):
    """x + attention(norm x), then x + feed_forward(norm x)."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        width = config.attention.width
        self.attention_norm = RMSNorm(width, config.norm_eps)
        self.attention = SelfAttention(config.attention)
        self.ffn_norm = RMSNorm(width, config.norm_eps)
        self.ffn = SwiGLU(width, config.ffn_width) if config.moe is None else None
        self.moe = None if config.moe is None else MoE(width, config.moe)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | Segments | None = None,
        cached: Tensor | None = None,
        start: int = 0,
        asked: Asked | None = None,
    ) -> BlockOutput:
        """Arguments as `SelfAttention.forward`; with `asked`, hidden is [room, D]."""
        read = self.attention(self.attention_norm(x), rope, mask, cached, start, asked)
        x = (x if asked is None else pick(x, asked)) + self.dropout(read)
        normed = self.ffn_norm(x)
        if self.moe is not None:
            out, aux_loss = self.moe(normed)
            return BlockOutput(x + self.dropout(out), aux_loss)
        assert self.ffn is not None
        return BlockOutput(x + self.dropout(self.ffn(normed)), None)


@torch.no_grad()
def init_blocks(blocks: nn.ModuleList, std: float = 0.02) -> None:
    """N(0, std) matrices, residual outputs divided by sqrt(2 L), norms at one, biases at zero."""
    residual_std = std / (2 * len(blocks)) ** 0.5
    for name, parameter in blocks.named_parameters():
        if parameter.dim() >= 2:
            is_residual = name.endswith(("out.weight", "down.weight", "moe.down"))
            nn.init.normal_(parameter, std=residual_std if is_residual else std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)
