"""Packed rows as the conversations they hold, for attention alone.

Knows: document numbers, and where each document's positions stand in the flattened batch.
Does not know: queries or keys. Costs: one read of the longest length; each layer then gathers and
scatters once, and reads S L^2 pairs instead of B T^2 under a mask.

Everything else in a block treats positions alone and stays packed. Without a mask the fused causal
kernels serve, on every device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """take [S, L]: flat positions of each document, the missing ones at the end its first.

    place [B * T]: where each flat position stands in take; 0 for padding, which means nothing.
    """

    take: Tensor
    place: Tensor


def segments_of(documents: Tensor, lengths: Tensor | None) -> Segments:
    """documents [B, T], numbered in each row; positions from lengths [B] on belong to none."""
    batch, length = documents.shape
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    first, real = first.flatten(), None
    if lengths is not None:
        steps = torch.arange(length, device=documents.device)
        real = (steps < lengths[:, None]).flatten()
        first = first & real
    number = (first.cumsum(0) - 1).clamp_(min=0)
    flat = torch.arange(batch * length, device=documents.device)
    starts = first.nonzero()[:, 0]
    offset = flat - starts[number]
    if real is not None:
        number, offset, kept = number[real], offset[real], flat[real]
    else:
        kept = flat
    longest = int(offset.max()) + 1
    take = starts[:, None].expand(-1, longest).clone()
    take[number, offset] = kept
    place = torch.zeros_like(flat)
    place[kept] = number * longest + offset
    return Segments(take, place)


def gather(x: Tensor, segments: Segments) -> Tensor:
    """[B, T, H, K] -> [S, L, H, K]."""
    return x.flatten(0, 1)[segments.take]


def scatter_back(x: Tensor, segments: Segments) -> Tensor:
    """[S, L, H, K] -> [B * T, H, K]."""
    return x.flatten(0, 1)[segments.place]
