"""The language-model loss over two blocks of symbols: a base head and new rows, never joined.

Knows: hidden states, ids over both blocks, the base head [V, D] and the new rows [K, D].
Does not know: models or optimisers.
Costs: one chunk of logits of each block. Where the base head is frozen no gradient of it is formed,
and where the hidden states need none either the base block is only summed: one product.

With a = logsumexp over the base and b over the rows, the softmax over both has the normaliser
l = logaddexp(a, b); inside a block the probabilities are its own softmax times exp(a - l) or
exp(b - l). Exact, without a table of V + K rows. Labels are unshifted, as in `train/loss.py`.

Rows that are sums of parts (`model/factors.py`) are a third block: its logsumexp is the sum of
those over each part's values, so that neither rows nor logits of its codes are made.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from lumoomni.ids import IGNORE
from lumoomni.model.factors import FactoredRows
from lumoomni.shapes import whole_rows
from lumoomni.train.loss import CHUNK_ELEMENTS, FLOAT_ELEMENTS, LossSum


@dataclass(frozen=True)
class RowLoss(LossSum):
    """And of each supervised position: `each` [N] in nats, without gradient, and its `targets`."""

    each: Tensor
    targets: Tensor


@dataclass(frozen=True)
class BlockShare:
    """How much probability the new rows take, summed over `count` positions."""

    total: float
    count: int


def row_loss(
    hidden: Tensor,
    labels: Tensor,
    base: Tensor,
    rows: Tensor | FactoredRows,
    *,
    chunk: int | None = None,
    z_loss: float = 0.0,
) -> RowLoss:
    """Next-id cross-entropy of hidden [B, T, D] against UNSHIFTED labels [B, T] over V + K ids.

    `z_loss` adds z * l^2 a position (arXiv 2204.02311). `chunk` is in positions.
    Raises ValueError when shapes disagree or a label is past the last row.
    """
    states, targets = supervised(hidden, labels)
    edge = base.shape[0]
    count = rows.count if isinstance(rows, FactoredRows) else len(rows)
    if targets.numel() and int(targets.max()) >= edge + count:
        raise ValueError(
            f"label {int(targets.max())} is past the last id: there are {edge} base rows and "
            f"{count} new ones"
        )
    new = (targets - edge).clamp(min=-1)
    if isinstance(rows, FactoredRows):
        tables, places = [rows.plain, *rows.parts], rows.split(new)
        groups = ((0,), (1,), tuple(range(2, len(tables) + 1)))
    else:
        tables, places, groups = [rows], [new], ((0,), (1,))
    wanted = torch.stack([targets.masked_fill(targets >= edge, -1), *places], 1)
    chunk = chunk or chunk_of(edge + sum(len(one) for one in tables))
    each = torch.zeros(targets.shape, device=states.device)
    total = _Blocks.apply(states, wanted, groups, chunk, z_loss, each, base, *tables)
    assert isinstance(total, Tensor)
    return RowLoss(total, targets.numel(), each, targets)


def supervised(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(states [N, D], targets [N]) of the positions that are learned."""
    if labels.shape != hidden.shape[:2]:
        raise ValueError(f"labels {tuple(labels.shape)} do not fit hidden {tuple(hidden.shape)}")
    targets = labels[:, 1:].reshape(-1)
    (where,) = (targets != IGNORE).nonzero(as_tuple=True)
    return hidden[:, :-1].reshape(-1, hidden.shape[-1])[where], targets[where]


def chunk_of(symbols: int) -> int:
    """Positions a chunk: their logits stay below CHUNK_ELEMENTS."""
    return max(64, CHUNK_ELEMENTS // symbols)


@torch.no_grad()
def row_token_losses(hidden: Tensor, labels: Tensor, base: Tensor, rows: Tensor) -> Tensor:
    """Loss in nats at each position [B, T - 1], 0 where unsupervised; for audits."""
    out = torch.zeros(labels.shape[0] * (labels.shape[1] - 1), device=hidden.device)
    states, targets = supervised(hidden, labels)
    (where,) = (labels[:, 1:].reshape(-1) != IGNORE).nonzero(as_tuple=True)
    for part in torch.arange(len(where), device=hidden.device).split(chunk_of(base.shape[0])):
        text, new = _logits(states[part], base, rows)
        lse = torch.logaddexp(text.logsumexp(-1), new.logsumexp(-1))
        out[where[part]] = lse - _chosen(text, new, targets[part])
    return out.view(labels.shape[0], -1)


@torch.no_grad()
def share_of_rows(hidden: Tensor, labels: Tensor, base: Tensor, rows: Tensor) -> BlockShare:
    """Probability of the new rows at positions that are learned: what they take from text."""
    states, targets = supervised(hidden, labels)
    total = 0.0
    for part in states.split(chunk_of(base.shape[0])):
        text, new = _logits(part, base, rows)
        total += float((new.logsumexp(-1) - text.logsumexp(-1)).sigmoid().sum())
    return BlockShare(total, targets.numel())


def _logits(states: Tensor, base: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    return (states @ base.to(states.dtype).t()).float(), (
        states @ rows.to(states.dtype).t()
    ).float()


def _chosen(text: Tensor, new: Tensor, targets: Tensor) -> Tensor:
    edge = text.shape[1]
    old = text.gather(1, targets.clamp(max=edge - 1)[:, None])[:, 0]
    fresh = new.gather(1, (targets - edge).clamp(min=0)[:, None])[:, 0]
    return torch.where(targets < edge, old, fresh)


class _Blocks(torch.autograd.Function):
    """Sum over states [N, D]; gradients are made in the forward, for what needs one.

    wanted [N, blocks] is the row of each table that a target has, -1 where it has none. `groups`
    are the tables that score a symbol together: by one row of each.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        wanted: Tensor,
        groups: tuple[tuple[int, ...], ...],
        chunk: int,
        z: float,
        each: Tensor,
        *tables: Tensor,
    ) -> Tensor:
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        needs = [ctx.needs_input_grad[0], *ctx.needs_input_grad[6:]]
        with torch.autocast(kind, enabled=False):
            heads = [table.to(dtype) for table in tables]
            inputs = whole_rows(states.to(dtype))
            grads = [
                torch.zeros(x.shape, dtype=torch.float32, device=x.device) if need else None
                for x, need in zip((inputs, *tables), needs, strict=True)
            ]
            total = torch.zeros((), device=states.device)
            room = [inputs.new_empty(min(chunk, len(inputs)), len(head)) for head in heads]
            sloped = [needs[0] or need for need in needs[1:]]
            for begin in range(0, len(inputs), chunk):
                here = slice(begin, begin + chunk)
                part = inputs[here]
                blocks = [
                    torch.mm(part, head.t(), out=block[: len(part)])
                    for head, block in zip(heads, room, strict=True)
                ]
                hits = wanted[here]  # rows of zeros behind these have no logits and move nothing
                losses = _slopes([b[: len(hits)] for b in blocks], hits, groups, z, sloped)
                each[here] = losses
                total += losses.sum()
                _gather(grads, here, part, heads, blocks)
        if grads[0] is not None:
            grads[0] = grads[0][: len(states)]
        ctx.grads, ctx.dtypes = grads, [x.dtype for x in (states, *tables)]
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = outputs
        states, *tables = (
            None if grad is None else (grad * scale).to(dtype)
            for grad, dtype in zip(ctx.grads, ctx.dtypes, strict=True)
        )
        return states, None, None, None, None, None, *tables


def _gather(
    grads: list[Tensor | None], here: slice, part: Tensor, heads: list[Tensor], blocks: list[Tensor]
) -> None:
    """Add what a chunk's slopes say of its states and of each table."""
    states, *tables = grads
    for table, head, block in zip(tables, heads, blocks, strict=True):
        if states is not None:
            states[here] += block @ head
        if table is not None:
            table += block.t() @ part


def _slopes(
    blocks: list[Tensor],
    wanted: Tensor,
    groups: tuple[tuple[int, ...], ...],
    z: float,
    sloped: list[bool],
) -> Tensor:
    """Losses [n]; overwrites blocks of logits with their gradients, a few rows at a time.

    A block whose gradient serves nobody (`sloped` false) is left undone.
    """
    found = torch.empty(len(wanted), device=wanted.device)
    step = max(1, FLOAT_ELEMENTS // max(block.shape[1] for block in blocks))
    if torch.compiler.is_compiling():
        step = len(wanted)
    for begin in range(0, len(wanted), step):
        here = slice(begin, begin + step)
        rows = [one[here] for one in blocks]
        hits = [one[:, None] for one in wanted[here].unbind(1)]
        chosen = _sum([_chosen_of(row, hit) for row, hit in zip(rows, hits, strict=True)])
        soft = [_block(row) for row in rows]
        # Sums over each group, all relative to the largest logit: differences of near numbers are
        # exact where logaddexp of two large ones would round.
        tops = [_sum([soft[k].top for k in group]) for group in groups]
        top = torch.stack(tops).amax(0)
        masses = [
            reduce(torch.mul, [soft[k].total for k in group]) * (own - top).exp()
            for group, own in zip(groups, tops, strict=True)
        ]
        whole = _sum(masses)
        rest = whole.log()
        losses, lse = (top - chosen) + rest, top + rest
        factor = 1 + 2 * z * lse
        if z:
            losses = losses + z * lse.square()
        found[here] = losses[:, 0]
        for group, mass in zip(groups, masses, strict=True):
            for k in (k for k in group if sloped[k]):
                slope = soft[k].soft.mul_(mass / whole * factor)
                slope.scatter_add_(1, hits[k].clamp(min=0), -(hits[k] >= 0).float())
                rows[k].copy_(slope)
    return found


def _sum(some: list[Tensor]) -> Tensor:
    return reduce(torch.add, some)


def _chosen_of(logits: Tensor, hit: Tensor) -> Tensor:
    """The logit [n, 1] of the row that is hit, 0 where none is."""
    return logits.gather(1, hit.clamp(min=0)).float() * (hit >= 0)


@dataclass(frozen=True)
class _Block:
    """Softmax [n, V] within a block, its largest logit [n, 1], and the sum of exp(x - top)."""

    soft: Tensor
    top: Tensor
    total: Tensor


def _block(logits: Tensor) -> _Block:
    """In float32, at the price of one softmax: its largest entry is one over the sum."""
    exact = logits.float()
    soft = exact.softmax(-1)
    return _Block(soft, exact.amax(-1, keepdim=True), 1 / soft.amax(-1, keepdim=True))
