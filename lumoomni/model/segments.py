"""Packed rows as the conversations they hold, for attention alone.

Knows: document numbers, and where each document's positions stand in the flattened batch.
Does not know: queries or keys. Costs: one read of the lengths; each layer then gathers and
scatters once, and reads about L^2 pairs a document of length L instead of T^2 a row under a mask.
Documents of like lengths are laid beside each other, so that a short one is not as dear as the
longest.

Everything else in a block treats positions alone and stays packed. Without a mask the fused causal
kernels serve, on every device.

Gathering and scattering undo each other, so the gradient of one is a plain read by the other: what
autograd would do instead, adding at repeated indices, costs several times more on a CPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LIKE = 0.75
"""Documents of a group are at least this share of its longest one."""


@dataclass(frozen=True)
class Segments:
    """take [P]: flat positions of the documents, group by group: `shapes` are the (S, L) of each
    group, S documents of up to L positions, of which the missing ones at the end are its first.

    place [B * T]: where each flat position stands in take; 0 for padding, which means nothing.
    missing: places in take that hold no position of their own; padding: flat positions that belong
    to no document.
    """

    take: Tensor
    shapes: tuple[tuple[int, int], ...]
    place: Tensor
    missing: Tensor
    padding: Tensor

    @property
    def longest(self) -> int:
        """Positions of the longest document."""
        return max(length for _, length in self.shapes)


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
    sizes = torch.bincount(number, minlength=len(starts))
    order = sizes.argsort(descending=True, stable=True)
    shapes = _groups(sizes[order].tolist())
    begins = _begins(shapes, order)
    take = torch.cat([starts[part].repeat_interleave(size) for part, size in _parts(order, shapes)])
    place = torch.zeros_like(flat)
    place[kept] = begins[number] + offset
    take[place[kept]] = kept
    there = torch.zeros(take.numel(), dtype=torch.bool, device=documents.device)
    there[place[kept]] = True
    outside = flat[:0] if real is None else (~real).nonzero()[:, 0]
    return Segments(take, shapes, place, (~there).nonzero()[:, 0], outside)


def _groups(sizes: list[int]) -> tuple[tuple[int, int], ...]:
    """(documents, positions) of groups of falling sizes in which none is much shorter."""
    shapes: list[tuple[int, int]] = []
    for size in sizes:
        if shapes and size >= LIKE * shapes[-1][1]:
            shapes[-1] = (shapes[-1][0] + 1, shapes[-1][1])
        else:
            shapes.append((1, size))
    return tuple(shapes)


def _parts(order: Tensor, shapes: tuple[tuple[int, int], ...]) -> Iterator[tuple[Tensor, int]]:
    """The documents of each group, and how many positions each has there."""
    for part, (_, size) in zip(order.split([count for count, _ in shapes]), shapes, strict=True):
        yield part, size


def _begins(shapes: tuple[tuple[int, int], ...], order: Tensor) -> Tensor:
    """Where each document begins in the flattened groups."""
    room = torch.cat([torch.full_like(part, size) for part, size in _parts(order, shapes)])
    begins = torch.empty_like(order)
    begins[order] = room.cumsum(0) - room
    return begins


def gather(x: Tensor, segments: Segments) -> list[Tensor]:
    """[B, T, H, K] -> [S, L, H, K] of each group.

    What stands at missing places must not be read by any other: gradients there are left out.
    """
    laid = _read(x, segments.take, segments.place.view(x.shape[:2]), segments.padding)
    parts = laid.split([count * size for count, size in segments.shapes])
    shapes = segments.shapes
    return [p.view(*shape, *x.shape[2:]) for p, shape in zip(parts, shapes, strict=True)]


def scatter_back(parts: list[Tensor], segments: Segments) -> Tensor:
    """[S, L, H, K] of each group -> [B * T, H, K]. Gradients of padding are left out."""
    laid = torch.cat([part.flatten(0, 1) for part in parts])
    return _read(laid[None], segments.place, segments.take[None], segments.missing)


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
