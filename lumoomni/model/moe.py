"""Mixture of experts: a top-k router over SwiGLU experts, as in Qwen3-MoE (arXiv 2505.09388).

Knows: routing, the experts' weights and the load-balancing loss (arXiv 2101.03961).
Does not know: attention, or how much the caller weighs the balancing loss.
Costs: each token runs `active` experts; one gather and one scatter per expert that was chosen.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """`active` of `experts` serve each token; `normalise` makes their weights sum to one."""

    experts: int
    active: int
    ffn_width: int
    normalise: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.active <= self.experts:
            raise ValueError(f"active experts {self.active} must lie in 1..{self.experts}")


class MoE(nn.Module):
    """x [B, T, D] -> (output [B, T, D], balancing loss scalar; 1 when the load is uniform)."""

    def __init__(self, width: int, config: MoEConfig) -> None:
        super().__init__()
        self.config = config
        self.router = nn.Linear(width, config.experts, bias=False)
        self.gate_up = nn.Parameter(torch.empty(config.experts, 2 * config.ffn_width, width))
        self.down = nn.Parameter(torch.empty(config.experts, width, config.ffn_width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        tokens = x.reshape(-1, x.shape[-1])
        probabilities = F.softmax(self.router(tokens), dim=-1, dtype=torch.float32)
        weights, chosen = probabilities.topk(config.active, dim=-1)
        if config.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        # Sorting by expert turns the routing into one contiguous run of rows per expert.
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=config.experts)
        rows = order // config.active
        shares = weights.flatten()[order].to(x.dtype)
        output = torch.zeros_like(tokens)
        begin = 0
        for expert, count in enumerate(counts.tolist()):
            if count:
                run = slice(begin, begin + count)
                gate, up = F.linear(tokens[rows[run]], self.gate_up[expert]).chunk(2, dim=-1)
                part = F.linear(F.silu(gate) * up, self.down[expert])
                output.index_add_(0, rows[run], (part * shares[run, None]).to(output.dtype))
            begin += count
        return output.view_as(x), balancing_loss(probabilities, counts)


def balancing_loss(probabilities: Tensor, counts: Tensor) -> Tensor:
    """experts * sum_e share_e * mean_probability_e; 1 at a uniform load, up to `experts` at worst.

    probabilities [N, E] of the router, counts [E] of the tokens that each expert served.
    """
    share = counts.to(probabilities.dtype) / counts.sum()
    return probabilities.shape[1] * (share * probabilities.mean(0)).sum()
