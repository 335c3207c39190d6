"""The language-model loss: head and cross-entropy together, without ever holding all the logits.

Knows: hidden states, ids to predict, and the head's weight.
Does not know: models, optimisers or how the sums are averaged.
Costs: 3 matrix products of [N, D] with [V, D] for N supervised positions; memory for one chunk of
logits and the two gradients, instead of N x V.

CONVENTION: labels are NOT shifted. `labels[b, t]` is the id AT position t (-100 where it is not
to be learnt); this file shifts, so that hidden[b, t] is made to predict labels[b, t + 1].
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lumoomni.shapes import whole_rows

IGNORE = -100
# Logits held at a time in the working dtype, and of those in float32 (small enough for a cache).
CHUNK_ELEMENTS = 1 << 24
FLOAT_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class LossSum:
    """Sum of the losses in nats (scalar, differentiable) over `count` supervised positions."""

    total: Tensor
    count: int

    def mean(self) -> Tensor:
        """Nats per supervised position; 0 when there is none."""
        return self.total / max(self.count, 1)


def lm_loss(
    hidden: Tensor,
    labels: Tensor,
    head_weight: Tensor,
    *,
    chunk: int | None = None,
    z_loss: float = 0.0,
) -> LossSum:
    """Next-id cross-entropy of hidden [B, T, D] against UNSHIFTED labels [B, T], head [V, D].

    Matrix products run in autocast's dtype where autocast is on; log-sum-exp is always float32.
    `z_loss` adds z * logsumexp^2 per position (arXiv 2204.02311). `chunk` is in positions.
    Raises ValueError when the shapes disagree.
    """
    if labels.shape != hidden.shape[:2]:
        raise ValueError(f"labels {tuple(labels.shape)} do not fit hidden {tuple(hidden.shape)}")
    targets = labels[:, 1:].reshape(-1)
    (where,) = (targets != IGNORE).nonzero(as_tuple=True)
    count = where.numel()
    if count == targets.numel():
        rows = hidden[:, :-1].reshape(-1, hidden.shape[-1])
    else:
        rows = hidden[:, :-1].reshape(-1, hidden.shape[-1])[where]
        targets = targets[where]
    if chunk is None:
        chunk = max(64, CHUNK_ELEMENTS // head_weight.shape[0])
    total = _LinearCrossEntropy.apply(rows, head_weight, targets, chunk, z_loss)
    assert isinstance(total, Tensor)
    return LossSum(total, count)


def predicting(labels: Tensor) -> Tensor:
    """bool [B, T]: the positions whose states predict something in UNSHIFTED labels [B, T]."""
    return F.pad(labels[:, 1:] != IGNORE, (0, 1))


def token_losses(hidden: Tensor, labels: Tensor, head_weight: Tensor) -> Tensor:
    """Loss in nats at each position [B, T - 1] (0 where unsupervised), for audits; no gradient."""
    with torch.no_grad():
        targets = labels[:, 1:].reshape(-1)
        rows = hidden[:, :-1].reshape(-1, hidden.shape[-1])
        out = torch.zeros(targets.shape, dtype=torch.float32, device=hidden.device)
        step = max(64, CHUNK_ELEMENTS // head_weight.shape[0])
        (where,) = (targets != IGNORE).nonzero(as_tuple=True)
        for part in where.split(step):
            logits = F.linear(rows[part], head_weight.to(rows.dtype)).float()
            out[part] = F.cross_entropy(logits, targets[part], reduction="none")
        return out.view(labels.shape[0], -1)


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of rows [N, D] through head [V, D]; gradients made in the forward."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, head: Tensor, targets: Tensor, chunk: int, z_loss: float
    ) -> Tensor:
        kind = rows.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.dtype
        needs_rows, needs_head = ctx.needs_input_grad[:2]
        with torch.autocast(kind, enabled=False):
            inputs, weight = whole_rows(rows.to(dtype)), head.to(dtype)
            total = torch.zeros((), dtype=torch.float32, device=rows.device)
            rows_grad = torch.empty_like(inputs) if needs_rows else None
            head_grad = torch.zeros_like(head, dtype=torch.float32) if needs_head else None
            block = inputs.new_empty(min(chunk, inputs.shape[0]), weight.shape[0])
            for begin in range(0, inputs.shape[0], chunk):
                part = inputs[begin : begin + chunk]
                logits = torch.mm(part, weight.t(), out=block[: part.shape[0]])
                # Rows of zeros behind these have no logits and move nothing.
                wanted = targets[begin : begin + chunk]
                total += _losses_to_slopes(logits[: len(wanted)], wanted, z_loss)
                if rows_grad is not None:
                    torch.mm(logits, weight, out=rows_grad[begin : begin + chunk])
                if head_grad is not None:
                    head_grad += logits.t() @ part
        ctx.grads = (None if rows_grad is None else rows_grad[: len(rows)], head_grad)
        ctx.dtypes = (rows.dtype, head.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = outputs
        grads = [
            None if grad is None else (grad * scale).to(dtype)
            for grad, dtype in zip(ctx.grads, ctx.dtypes, strict=True)
        ]
        return grads[0], grads[1], None, None, None


def _losses_to_slopes(logits: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    """Summed loss of logits [N, V]; overwrites them with their gradient, a few rows at a time."""
    total = torch.zeros((), dtype=torch.float32, device=logits.device)
    step = max(1, FLOAT_ELEMENTS // logits.shape[1])
    if torch.compiler.is_compiling():
        step = logits.shape[0]  # a compiler fuses the passes; unrolled pieces only slow it down
    for begin in range(0, logits.shape[0], step):
        part = logits[begin : begin + step]
        wanted = targets[begin : begin + step, None]
        exact = part.float()
        slope = exact.softmax(-1)
        # softmax is much cheaper than logsumexp and exp; its largest entry is at least 1 / V, so
        # the logarithm is exact where that of a rare target's probability would underflow.
        lse = exact.amax(-1, keepdim=True) - slope.amax(-1, keepdim=True).log_()
        losses = lse - exact.gather(1, wanted)
        if z_loss:
            losses = losses + z_loss * lse.square()
            slope *= 1 + 2 * z_loss * lse
        total += losses.sum()
        slope.scatter_add_(1, wanted, torch.full_like(lse, -1.0))
        part.copy_(slope)
    return total
