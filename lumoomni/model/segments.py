"""Packed rows as the conversations they hold, for attention alone.

Knows: document numbers, and where each document's positions stand in the flattened batch.
Does not know: queries or keys. Costs: one read of the longest length; each layer then gathers and
scatters once, and reads S L^2 pairs instead of B T^2 under a mask.

Everything else in a block treats positions alone and stays packed. Without a mask the fused causal
kernels serve, on every device.

Gathering and scattering undo each other, so the gradient of one is a plain read by the other: what
autograd would do instead, adding at repeated indices, costs several times more on a CPU.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """take [S, L]: flat positions of each document, the missing ones at the end its first.

    place [B * T]: where each flat position stands in take; 0 for padding, which means nothing.
    missing: places in the flattened take that hold no position of their own; padding: flat
    positions that belong to no document.
    """

    take: Tensor
    place: Tensor
    missing: Tensor
    padding: Tensor


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
    there = torch.zeros(take.numel(), dtype=torch.bool, device=documents.device)
    there[place[kept]] = True
    outside = flat[:0] if real is None else (~real).nonzero()[:, 0]
    return Segments(take, place, (~there).nonzero()[:, 0], outside)


def gather(x: Tensor, segments: Segments) -> Tensor:
    """[B, T, H, K] -> [S, L, H, K].

    What stands at missing places must not be read by any other: gradients there are left out.
    """
    take, place, padding = segments.take, segments.place, segments.padding
    return _read(x, take, place.view(x.shape[:2]), padding)


def scatter_back(x: Tensor, segments: Segments) -> Tensor:
    """[S, L, H, K] -> [B * T, H, K]. Gradients of padding are left out."""
    return _read(x, segments.place, segments.take, segments.missing)


def _read(x: Tensor, there: Tensor, back: Tensor, empty: Tensor) -> Tensor:
    out = _Moved.apply(x, there, back, empty)
    assert isinstance(out, Tensor)
    return out


class _Moved(torch.autograd.Function):
    """x [A, B, H, K] at the flat places `there`; the gradient is read back at `back` [A, B], and is
    zero at the flat places `empty`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, empty: Tensor) -> Tensor:
        ctx.save_for_backward(back, empty)
        return x.flatten(0, 1)[there]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        back, empty = ctx.saved_tensors
        slope = grads[0].reshape(-1, *grads[0].shape[-2:])[back.flatten()]
        slope.index_fill_(0, empty, 0.0)
        return slope.view(*back.shape, *slope.shape[1:]), None, None, None
