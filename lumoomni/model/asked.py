"""Positions that are asked for: where states are read, the last layer's matrices run there alone.

Knows: which rows of a flattened batch are wanted, and how they are picked out and put back.
Does not know: layers, labels or losses. Costs: one pass over the rows that are picked.

Answers are a tenth to a third of a conversation. All earlier layers, and the last layer's keys and
values, serve the positions behind them; what the last layer makes of a position serves that one
alone. Picking and putting undo each other, so the gradient of one is a plain read by the other.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumoomni.shapes import ROWS, round_up

MOST = 0.75
"""Where more of the positions are asked for, picking them out gains nothing."""


@dataclass(frozen=True)
class Asked:
    """rows [W]: flat positions of `size` in all; picked, zeros fill them up to `room`."""

    rows: Tensor
    size: int
    room: int

    @property
    def gap(self) -> int:
        """Rows of zeros."""
        return self.room - len(self.rows)


def asked_rows(asked: Tensor) -> Asked | None:
    """The positions of asked bool [B, T]; None where there are too many for it to pay."""
    (rows,) = asked.reshape(-1).nonzero(as_tuple=True)
    room = round_up(len(rows), ROWS)
    return Asked(rows, asked.numel(), room) if room <= MOST * asked.numel() else None


class _Pick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, asked: Asked) -> Tensor:
        ctx.asked = asked
        return _picked(x, asked)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _put(grads[0], ctx.asked), None


class _Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, asked: Asked) -> Tensor:
        ctx.asked = asked
        return _put(x, asked)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _picked(grads[0], ctx.asked), None


def _picked(x: Tensor, asked: Asked) -> Tensor:
    out = x.new_zeros(asked.room, x.shape[1])
    torch.index_select(x, 0, asked.rows, out=out[: len(asked.rows)])
    return out


def _put(x: Tensor, asked: Asked) -> Tensor:
    return x.new_zeros(asked.size, x.shape[1]).index_copy_(0, asked.rows, x[: len(asked.rows)])


def pick(x: Tensor, asked: Asked) -> Tensor:
    """x [B, T, D] -> [room, D]."""
    out = _Pick.apply(x.reshape(-1, x.shape[-1]), asked)
    assert isinstance(out, Tensor)
    return out


def put(x: Tensor, asked: Asked, like: Tensor) -> Tensor:
    """x [room, D] -> [B, T, D] of `like`, zeros where nothing was asked."""
    out = _Put.apply(x, asked)
    assert isinstance(out, Tensor)
    return out.view(*like.shape[:-1], -1)
