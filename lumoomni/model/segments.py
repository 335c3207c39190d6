"""Packed rows as the conversations they hold, for attention alone.

Knows: document numbers, and where each document's positions stand in the flattened batch.
Does not know: queries or keys. Costs: one read of the lengths; each layer then gathers and
scatters once, and reads about L^2 pairs a document of length L instead of T^2 a row under a mask.
Documents of like lengths are laid beside each other, so that a short one is not as dear as the
longest.

Everything else in a block treats positions alone and stays packed. Without a mask the fused causal
kernels serve, on every device.

Gathering and scattering undo each other, so the gradient of one is a plain read by the other: what
autograd would do instead, adding at repeated indices, costs several times more on a CPU. All reads
are `index_select` of whole positions: plain indexing takes several times as long there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lumoomni.shapes import POSITIONS, round_up

LIKE = 0.75
"""Documents of a group are at least this share of its longest one."""

Table = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Segments:
    """take [P]: flat positions of the documents, group by group: `shapes` are the (S, L) of each
    group, S documents of up to L positions, of which the missing ones at the end are its first.

    place [B * T]: where each flat position stands in take; 0 for padding, which means nothing.
    missing: places in take that hold no position of their own; padding: flat positions that belong
    to no document. longest: positions of the longest document. cpu: whether it is one that
    holds them.
    """

    take: Tensor
    shapes: tuple[tuple[int, int], ...]
    place: Tensor
    missing: Tensor
    padding: Tensor
    longest: int
    cpu: bool
    _kept: list[tuple[Table, list[Table]]] = field(default_factory=list, compare=False, repr=False)

    def tables(self, rope: Table) -> list[Table]:
        """Rotary tables (cos, sin) [B, T, K] as those of each group: [L, K] where its documents
        share their positions, as they do when each counts from its start, else [S, L, K].

        Made for the first of all layers, which rotate by the same ones.
        """
        if not self._kept or self._kept[0][0][0] is not rope[0]:
            rows = len(self.place) // rope[0].shape[-2]
            flat = (one.expand(rows, -1, -1).flatten(0, 1) for one in rope)
            cos, sin = ([*self.parts(one.index_select(0, self.take))] for one in flat)
            holes = torch.zeros(self.take.shape, dtype=torch.bool, device=self.take.device)
            holes[self.missing] = True
            found: list[Table] = []
            for c, s, hole in zip(cos, sin, self.parts(holes), strict=True):
                same = ((c == c[:1]) & (s == s[:1])).all(-1) | hole
                # The first document of a group is its longest.
                found.append((c[0], s[0]) if bool(same.all()) else (c, s))
            self._kept[:] = [(rope, found)]
        return self._kept[0][1]

    def parts(self, laid: Tensor) -> Iterator[Tensor]:
        """laid [P, ...] -> [S, L, ...] of each group."""
        end = 0
        for count, size in self.shapes:
            start, end = end, end + count * size
            yield laid[start:end].view(count, size, *laid.shape[1:])


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
    falling = sizes[order].tolist()
    shapes = _groups(falling)
    begins = _begins(shapes, order)
    take = torch.cat([starts[part].repeat_interleave(size) for part, size in _parts(order, shapes)])
    place = torch.zeros_like(flat)
    place[kept] = begins[number] + offset
    take[place[kept]] = kept
    there = torch.zeros(take.numel(), dtype=torch.bool, device=documents.device)
    there[place[kept]] = True
    outside = flat[:0] if real is None else (~real).nonzero()[:, 0]
    missing = (~there).nonzero()[:, 0]
    return Segments(take, shapes, place, missing, outside, falling[0], flat.device.type == "cpu")


def _groups(sizes: list[int]) -> tuple[tuple[int, int], ...]:
    """(documents, positions) of groups of falling sizes in which none is much shorter. Positions
    are rounded up as all padded lengths are: fewer shapes are new (lumoomni/shapes.py)."""
    shapes: list[tuple[int, int]] = []
    for size in (round_up(size, POSITIONS) for size in sizes):
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


def gather(x: Tensor, segments: Segments, heads: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """[B, T, H, K] -> [S, L, h, K] of each group, for each h of `heads`, which add up to H.

    What stands at missing places must not be read by any other: gradients there are left out.
    """
    found = _Gather.apply(x, segments, tuple(heads))
    assert isinstance(found, tuple)
    each = len(heads)
    return [found[i : i + each] for i in range(0, len(found), each)]


def scatter_back(parts: Sequence[Tensor], segments: Segments) -> Tensor:
    """[S, L, H, K] of each group -> [B * T, H, K]. Gradients of padding are left out."""
    out = _Scatter.apply(segments, *parts)
    assert isinstance(out, Tensor)
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, segments: Segments, heads: tuple[int, ...]
    ) -> tuple[Tensor, ...]:
        ctx.shape, ctx.segments, ctx.heads = x.shape, segments, heads
        laid = x.flatten(0, 1).index_select(0, segments.take)
        return tuple(one for part in segments.parts(laid) for one in part.split(heads, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        segments, shape = ctx.segments, ctx.shape
        laid = grads[0].new_empty(segments.take.numel(), *shape[2:])
        slopes = iter(grads)
        for part in segments.parts(laid):
            for one in part.split(ctx.heads, 2):
                one.copy_(next(slopes))
        slope = laid.index_select(0, segments.place).index_fill_(0, segments.padding, 0.0)
        return slope.view(shape), None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, segments: Segments, *parts: Tensor) -> Tensor:
        ctx.segments = segments
        laid = parts[0].new_empty(segments.take.numel(), *parts[0].shape[2:])
        for part, given in zip(segments.parts(laid), parts, strict=True):
            part.copy_(given)
        return laid.index_select(0, segments.place)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        segments = ctx.segments
        laid = grads[0].index_select(0, segments.take).index_fill_(0, segments.missing, 0.0)
        return None, *segments.parts(laid)
