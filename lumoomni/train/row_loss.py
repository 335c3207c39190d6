"""The language-model loss over two blocks of symbols: a base head and new rows, never joined.

Knows: hidden states, ids over both blocks, the base head [V, D] and the new rows [K, D].
Does not know: models or optimisers.
Costs: one chunk of logits of each block. Where the base head is frozen no gradient of it is formed,
and where the hidden states need none either the base block is only summed: one product.

With a = logsumexp over the base and b over the rows, the softmax over both has the normaliser
l = logaddexp(a, b); inside a block the probabilities are its own softmax times exp(a - l) or
exp(b - l). Exact, without a table of V + K rows. Labels are unshifted, as in `train/loss.py`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumoomni.ids import IGNORE
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
    rows: Tensor,
    *,
    chunk: int | None = None,
    z_loss: float = 0.0,
) -> RowLoss:
    """Next-id cross-entropy of hidden [B, T, D] against UNSHIFTED labels [B, T] over V + K ids.

    `z_loss` adds z * l^2 a position (arXiv 2204.02311). `chunk` is in positions.
    Raises ValueError when shapes disagree or a label is past the last row.
    """
    states, targets = supervised(hidden, labels)
    if targets.numel() and int(targets.max()) >= base.shape[0] + rows.shape[0]:
        raise ValueError(
            f"label {int(targets.max())} is past the last id: there are {base.shape[0]} base rows "
            f"and {rows.shape[0]} new ones"
        )
    chunk = chunk or chunk_of(base.shape[0] + rows.shape[0])
    each = torch.zeros(targets.shape, device=states.device)
    total = _TwoBlocks.apply(states, base, rows, targets, chunk, z_loss, each)
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


class _TwoBlocks(torch.autograd.Function):
    """Sum over states [N, D]; gradients are made in the forward, for what needs one."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        base: Tensor,
        rows: Tensor,
        targets: Tensor,
        chunk: int,
        z: float,
        each: Tensor,
    ) -> Tensor:
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        needs = ctx.needs_input_grad[:3]
        like = (states, base, rows)
        with torch.autocast(kind, enabled=False):
            inputs, old, new = (x.to(dtype) for x in like)
            grads = [
                torch.zeros(x.shape, dtype=torch.float32, device=x.device) if need else None
                for x, need in zip(like, needs, strict=True)
            ]
            total = torch.zeros((), device=states.device)
            size = min(chunk, inputs.shape[0])
            text_block = inputs.new_empty(size, old.shape[0])
            row_block = inputs.new_empty(size, new.shape[0])
            for begin in range(0, inputs.shape[0], chunk):
                part = inputs[begin : begin + chunk]
                text = torch.mm(part, old.t(), out=text_block[: len(part)])
                fresh = torch.mm(part, new.t(), out=row_block[: len(part)])
                wanted = targets[begin : begin + chunk]
                losses = _slopes(text, fresh, wanted, z, base_needed=needs[0] or needs[1])
                each[begin : begin + chunk] = losses
                total += losses.sum()
                if grads[0] is not None:
                    grads[0][begin : begin + chunk] = text @ old + fresh @ new
                if grads[1] is not None:
                    grads[1] += text.t() @ part
                if grads[2] is not None:
                    grads[2] += fresh.t() @ part
        ctx.grads, ctx.dtypes = grads, [x.dtype for x in like]
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = outputs
        grads = [
            None if grad is None else (grad * scale).to(dtype)
            for grad, dtype in zip(ctx.grads, ctx.dtypes, strict=True)
        ]
        return grads[0], grads[1], grads[2], None, None, None, None


def _slopes(text: Tensor, fresh: Tensor, wanted: Tensor, z: float, *, base_needed: bool) -> Tensor:
    """Losses [n]; overwrites both blocks of logits with their gradients, a few rows at a time.

    Where the base block's gradient serves nobody (`base_needed` false) it is left undone.
    """
    found = torch.empty(len(text), device=text.device)
    edge = text.shape[1]
    step = max(1, FLOAT_ELEMENTS // edge)
    if torch.compiler.is_compiling():
        step = text.shape[0]
    for begin in range(0, text.shape[0], step):
        here = slice(begin, begin + step)
        target = wanted[here]
        chosen = _chosen(text[here], fresh[here], target).float()[:, None]
        old, new = _block(text[here]), _block(fresh[here])
        # Sums over each block, both relative to the largest logit of all: differences of near
        # numbers are exact where logaddexp of two large ones would round.
        top = torch.maximum(old.top, new.top)
        a, b = old.total * (old.top - top).exp(), new.total * (new.top - top).exp()
        rest = (a + b).log()
        losses = (top - chosen) + rest
        lse = top + rest
        factor = 1 + 2 * z * lse
        if z:
            losses = losses + z * lse.square()
        found[here] = losses[:, 0]
        is_new = (target >= edge)[:, None]
        if base_needed:
            slope = old.soft.mul_(a / (a + b) * factor)
            hot = torch.where(is_new, 0.0, -1.0)
            slope.scatter_add_(1, target.clamp(max=edge - 1)[:, None], hot)
            text[here].copy_(slope)
        slope = new.soft.mul_(b / (a + b) * factor)
        hot = torch.where(is_new, -1.0, 0.0)
        slope.scatter_add_(1, (target - edge).clamp(min=0)[:, None], hot)
        fresh[here].copy_(slope)
    return found


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
