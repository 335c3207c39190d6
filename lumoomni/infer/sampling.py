"""From logits to the next id: greedy, temperature, top-k, top-p. Pure functions on [B, V].

Knows: numbers. Does not know: models, ids' meanings or when to stop.
Costs: greedy is one argmax; top-p sorts the vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """temperature 0 is greedy; top_k 0 and top_p 1 leave the distribution whole."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must not be negative, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """[B, V] with all but the k largest of each row at -inf (ties with the k-th are kept)."""
    kth = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < kth, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """[B, V] with only the smallest set whose probability reaches p (arXiv 1904.09751)."""
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1, dtype=torch.float32)
    # An id stays while the mass BEFORE it is short of p, so the likeliest id always stays.
    drop = probabilities.cumsum(-1) - probabilities >= p
    return logits.masked_fill(torch.zeros_like(drop).scatter_(1, index, drop), float("-inf"))


def sample(logits: Tensor, config: SamplingConfig, generator: torch.Generator | None) -> Tensor:
    """Next ids [B] from logits [B, V]; the same generator state gives the same ids."""
    if config.temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / config.temperature
    if config.top_k:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p < 1:
        logits = keep_top_p(logits, config.top_p)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
