"""Codes without a learned book: each component of a vector is rounded to one of a few levels.

Knows: bounding, rounding, the straight-through step, and how the levels of all components are
counted as one code (finite scalar quantisation, arXiv 2309.15505). Does not know: what the vectors
came from. Costs: next to nothing; there is no search, and no code can die.

What one code says of a vector, its neighbours in the book say nearly alike: codes are digits.
"""

import math

import torch
from torch import Tensor, nn

from lumoomni.codecs.quantiser import Quantised

ROUNDING = 8 * torch.finfo(torch.float32).eps
"""Of what is bounded, in all the steps to its level, twice."""


class ScalarQuantiser(nn.Module):
    """vectors [B, N, C] <-> codes [B, N, 1] with C digits, the last one counting fastest.

    `codebooks` [1, K, C] in [-1, 1] holds what each code means; K is the product of the levels.
    """

    codebooks: Tensor
    reach: Tensor
    steps: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        # Made of the levels alone, so that no file needs to hold them.
        whole = torch.tensor(levels)
        steps = torch.tensor([math.prod(levels[i + 1 :]) for i in range(len(levels))])
        every = torch.arange(math.prod(levels))[:, None] // steps % whole
        half = (whole - 1) / 2
        self.register_buffer("codebooks", (every / half - 1)[None], persistent=False)
        self.register_buffer("reach", half, persistent=False)
        self.register_buffer("steps", steps, persistent=False)

    def bound(self, vectors: Tensor) -> Tensor:
        """[..., C] of any size -> [..., C] in (-1, 1)."""
        return torch.tanh(vectors.float())

    def forward(self, bounded: Tensor) -> Quantised:
        """Nothing is committed to: what is bounded cannot run away from its levels."""
        codes = self.codes(bounded)
        straight = bounded + (self.codebooks[0][codes] - bounded).detach()
        return Quantised(straight, codes[..., None], bounded.new_zeros(()))

    def codes(self, bounded: Tensor) -> Tensor:
        """[..., C] in [-1, 1] -> [...]: the nearest code."""
        return (((bounded + 1) * self.reach).round().long() * self.steps).sum(-1)

    def room(self, bounded: Tensor) -> Tensor:
        """[..., C] in [-1, 1] -> [...]: how far that component which is nearest to a border between
        two levels was from it before `bound`, to first order, less what `bound` and `codes` may
        round otherwise another time."""
        level = (bounded + 1) * self.reach
        apart = (0.5 - (level - level.round()).abs()) / self.reach - ROUNDING
        return (apart / (1 - bounded.square()).clamp(min=1e-6)).amin(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """codes [B, N, 1] -> vectors [B, N, C]. Raises ValueError for a code out of range."""
        count = self.codebooks.shape[1]
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < count:
            raise ValueError(
                f"codes span {int(codes.min())} to {int(codes.max())}, but each codebook "
                f"has {count} entries"
            )
        return self.codebooks[0][codes[..., 0]]


def digits(codes: Tensor, levels: tuple[int, ...]) -> Tensor:
    """codes [...] -> int64 [..., C]: the level of each component."""
    steps = [math.prod(levels[i + 1 :]) for i in range(len(levels))]
    return torch.stack(
        [codes // step % level for step, level in zip(steps, levels, strict=True)], -1
    )


def values(codes: Tensor, parts: tuple[tuple[int, ...], ...]) -> Tensor:
    """codes [...] -> int64 [..., P]: what each part says, of which each is several digits."""
    sizes = tuple(math.prod(one) for one in parts)
    return digits(codes, sizes)
