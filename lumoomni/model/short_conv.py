"""A short causal convolution over embeddings: every position also carries the few before it.

Knows: one weight per channel and step back, and where a sequence starts.
Does not know: layers, ids or media.
Costs: `taps` multiply-adds a channel and `taps` x D parameters; a cache keeps `taps` embeddings.

Why: to tell "a red circle above a blue star" from "a blue circle above a red star", attention must
first learn to carry a word to its neighbour, then to match. With the neighbours already there the
second step is learned at once: after 200 updates of 16, 94 to 98 % of questions about one of two
described things are right; without it 76 % after 400 (LOG.md). The weights must start
large for that; a convolution that starts at a tenth helps no more than none. (Causal
convolutions beside attention: arXiv 2109.08668 and 2212.14052.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ShortConv(nn.Module):
    """x [B, T, D] -> x_t + sum over j = 1..taps of weight_j * x_(t - j), per channel."""

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.taps = taps
        self.weight = nn.Parameter(torch.empty(taps, width))
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Falling from near one: with three taps 0.8, 0.6 and 0.4."""
        steps = torch.arange(1, self.taps + 1, dtype=self.weight.dtype)
        self.weight.copy_((1 - steps / (self.taps + 2))[:, None].expand_as(self.weight))

    def forward(
        self, x: Tensor, tail: Tensor | None = None, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mix x [B, T, D]; `tail` [B, taps, D] holds the inputs before it (None: there are none).

        `positions` [B, T] say how many inputs of its own sequence stand before each, so that
        neither padding nor another packed document is mixed in. Returns the mix and the new tail.
        """
        length = x.shape[1]
        if tail is None:
            padded = F.pad(x, (0, 0, self.taps, 0))
        else:
            padded = torch.cat([tail.to(x.dtype), x], 1)
        out = x
        for j in range(1, self.taps + 1):
            first = self.taps - j
            back = padded[:, first : first + length] * self.weight[j - 1].to(x.dtype)
            if positions is not None:
                back = back * (positions >= j)[..., None]
            out = out + back
        return out, padded[:, length:]
