"""Training passes with hand-written gradients: norm, norm-and-rotate, SwiGLU, short and whole
attention.

Knows: tensors only. Each function computes what its plain twin in norm.py or
`scaled_dot_product_attention` computes, with fewer passes over memory in the backward.
Does not know: layers or configs.
Costs: on a CPU the stock operators spend as long here as in a third of the matrix products;
attention keeps the [T, T] weights, so its caller uses it for short sequences only.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Elements per piece of a pass: half a megabyte in float32, which fits a core's own cache.
BLOCK_ELEMENTS = 1 << 17
# Up to so many queries and keys a CPU trains faster through plain batched products than through the
# fused kernel (its backward takes ten times as long at 64), and kept weights stay small.
SHORT = 512


def swap_halves(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat([x[..., half:], x[..., :half]], dim=-1)


class RMSNormFunction(torch.autograd.Function):
    """x [..., D] (any float) -> x / rms(x) * weight in `out_dtype`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = torch.empty(rows.shape, dtype=out_dtype, device=x.device)
        scale = torch.empty(rows.shape[0], 1, dtype=torch.float32, device=x.device)
        size = max(1, BLOCK_ELEMENTS // rows.shape[1])
        parts = zip(rows.split(size), scale.split(size), out.split(size), strict=True)
        for part, factor, result in parts:
            _inverse_rms(part.float(), eps, factor)
            torch.mul(part * factor, weight, out=result)
        ctx.save_for_backward(x, weight, scale)
        return out.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        width = x.shape[-1]
        rows, slopes = x.reshape(-1, width), grads[0].reshape(-1, width)
        out = torch.empty_like(rows)
        weight_grad = torch.zeros(width, dtype=torch.float32, device=x.device)
        size = max(1, BLOCK_ELEMENTS // width)
        scales = scale.split(size)
        parts = zip(rows.split(size), slopes.split(size), scales, out.split(size), strict=True)
        for part, slope, factor, result in parts:
            slope = slope.float()
            unit = part * factor
            product = slope * unit
            weight_grad += product.sum(0)
            along = (product @ weight.float()).div_(-width).unsqueeze(-1)
            torch.mul((slope * weight).addcmul_(unit, along), factor, out=result)
        return out.view(x.shape), weight_grad.to(weight.dtype), None, None


class HeadNormRopeFunction(torch.autograd.Function):
    """qk [B, T, H, K] -> normed by `weight` [H, K], rotated by cos and sin [(B,) T, 1, K]."""

    @staticmethod
    def forward(
        ctx: Any, qk: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float
    ) -> Tensor:
        out = torch.empty(qk.shape, dtype=qk.dtype, device=qk.device)
        unit = torch.empty(qk.shape, dtype=torch.float32, device=qk.device)
        scale = torch.empty(*qk.shape[:-1], 1, dtype=torch.float32, device=qk.device)
        # The weight rides on the (much smaller) tables: rotate(u * w) = u * wc + swap(u) * ws.
        cos_weight, sin_weight = cos * weight, sin * swap_halves(weight)
        for i in range(qk.shape[0]):
            table = i if cos.dim() == 4 else slice(None)
            part = qk[i].float()
            _inverse_rms(part, eps, scale[i])
            torch.mul(part, scale[i], out=unit[i])
            turned = swap_halves(unit[i]).mul_(sin_weight[table])
            out[i] = turned.addcmul_(unit[i], cos_weight[table])
        ctx.save_for_backward(unit, weight, cos, sin, scale)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        unit, weight, cos, sin, scale = ctx.saved_tensors
        out = torch.empty(unit.shape, dtype=grads[0].dtype, device=unit.device)
        weight_grad = torch.zeros(weight.shape, dtype=torch.float32, device=unit.device)
        for i in range(unit.shape[0]):
            table = i if cos.dim() == 4 else slice(None)
            slope = grads[0][i].float()
            back = swap_halves(slope * sin[table]).addcmul_(slope, cos[table])
            product = back * unit[i]
            weight_grad += product.sum(0)
            along = product.mul_(weight).mean(-1, keepdim=True)
            out[i] = back.mul_(weight).addcmul_(unit[i], along, value=-1).mul_(scale[i])
        return out, weight_grad.to(weight.dtype), None, None, None


def _inverse_rms(x: Tensor, eps: float, out: Tensor) -> None:
    """1 / sqrt(mean(x^2) + eps) over the last axis of float32 x, into out [..., 1]."""
    torch.linalg.vector_norm(x, dim=-1, keepdim=True, out=out)
    out.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


class SwiGLUFunction(torch.autograd.Function):
    """gate_up [..., 2 F] -> silu(gate) * up [..., F]."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        half = gate_up.shape[-1] // 2
        rows = gate_up.view(-1, 2 * half)
        out = rows.new_empty(rows.shape[0], half)
        for part, result in zip(_blocks(rows), _blocks(out, 2), strict=True):
            torch.mul(torch.nn.functional.silu(part[:, :half]), part[:, half:], out=result)
        return out.view(*gate_up.shape[:-1], half)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # The gradient overwrites gate_up, which nothing else reads: fresh memory costs more than
        # the arithmetic. A second backward is refused by autograd's own version check.
        (gate_up,) = ctx.saved_tensors
        half = gate_up.shape[-1] // 2
        rows = gate_up.view(-1, 2 * half)
        slopes = _blocks(grads[0].reshape(-1, half), 2)
        for part, slope in zip(_blocks(rows), slopes, strict=True):
            gate, up = part.chunk(2, dim=1)
            active = torch.nn.functional.silu(gate)
            gate.copy_(torch.ops.aten.silu_backward(slope * up, gate))
            torch.mul(slope, active, out=up)
        return (gate_up,)


def _blocks(rows: Tensor, per: int = 1) -> tuple[Tensor, ...]:
    """Rows [N, D] in pieces that stay in a core's cache between the passes over them."""
    return rows.split(max(1, BLOCK_ELEMENTS // (rows.shape[1] * per)))


class ShortAttentionFunction(torch.autograd.Function):
    """q [B, H, T, K], k and v [B, Hkv, T, K], mask [B or 1, 1, T, T] or None -> [B, H, T, K].

    Causal. Works through blocks of `block` queries, each against the keys up to its own end, so
    that most of the upper triangle is never computed. Softmax runs in float32 inside.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, block: int
    ) -> Tensor:
        batch, heads, length, width = q.shape
        groups = heads // k.shape[1]
        grouped = (q * width**-0.5).view(batch * k.shape[1], groups, length, width)
        keys = k.reshape(-1, length, width)
        values = v.reshape(-1, length, width)
        out = torch.empty_like(grouped)
        saved = []
        for begin in range(0, length, block):
            end = min(begin + block, length)
            rows = grouped[:, :, begin:end].reshape(keys.shape[0], -1, width)
            scores = torch.bmm(rows, keys[:, :end].transpose(1, 2))
            _mask_scores(scores, mask, batch, groups, begin, end)
            weights = torch.softmax(scores, -1)
            read = torch.bmm(weights, values[:, :end])
            out[:, :, begin:end] = read.view(-1, groups, end - begin, width)
            saved.append(weights)
        ctx.save_for_backward(grouped, keys, values, *saved)
        ctx.block, ctx.batch = block, batch
        return out.view(q.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grouped, keys, values, *saved = ctx.saved_tensors
        _, groups, length, width = grouped.shape
        slope = grads[0].reshape(grouped.shape)
        q_grad = torch.empty_like(grouped)
        k_grad = torch.zeros(keys.shape, dtype=torch.float32, device=keys.device)
        v_grad = torch.zeros(values.shape, dtype=torch.float32, device=keys.device)
        for index, weights in enumerate(saved):
            begin, end = index * ctx.block, min((index + 1) * ctx.block, length)
            rows = grouped[:, :, begin:end].reshape(keys.shape[0], -1, width)
            down = slope[:, :, begin:end].reshape(rows.shape)
            v_grad[:, :end] += torch.bmm(weights.transpose(1, 2), down)
            steep = torch.bmm(down, values[:, :end].transpose(1, 2))
            steep = torch._softmax_backward_data(steep, weights, -1, keys.dtype)
            part = torch.bmm(steep, keys[:, :end])
            q_grad[:, :, begin:end] = part.view(-1, groups, end - begin, width)
            k_grad[:, :end] += torch.bmm(steep.transpose(1, 2), rows)
        shape = (ctx.batch, -1, length, width)
        q_grad = (q_grad * width**-0.5).view(shape)
        k_grad, v_grad = k_grad.to(keys.dtype), v_grad.to(values.dtype)
        return q_grad, k_grad.view(shape), v_grad.view(shape), None, None


class WholeAttentionFunction(torch.autograd.Function):
    """q [B, H, T, K], k and v [B, H, S, K], mask bool to [B, H, T, S] or None -> [B, H, T, K].

    Everything is read where the mask is True, which must be so somewhere in each row.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        batch, heads, length, width = q.shape
        rows = (q * width**-0.5).reshape(-1, length, width)
        keys, values = (x.reshape(-1, k.shape[2], width) for x in (k, v))
        scores = torch.bmm(rows, keys.transpose(1, 2))
        if mask is not None:
            scores.view(batch, heads, length, -1).masked_fill_(~mask, float("-inf"))
        weights = torch.softmax(scores, -1)
        ctx.save_for_backward(rows, keys, values, weights)
        return torch.bmm(weights, values).view(q.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, keys, values, weights = ctx.saved_tensors
        batch, heads, _, width = grads[0].shape
        slope = grads[0].reshape(rows.shape)
        steep = torch.bmm(slope, values.transpose(1, 2))
        steep = torch._softmax_backward_data(steep, weights, -1, keys.dtype)
        found = (
            torch.bmm(steep, keys) * width**-0.5,
            torch.bmm(steep.transpose(1, 2), rows),
            torch.bmm(weights.transpose(1, 2), slope),
        )
        return *(x.view(batch, heads, -1, width) for x in found), None


def whole_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """`scaled_dot_product_attention` without causality, by whatever is quickest where it runs."""
    short = max(q.shape[2], k.shape[2]) <= SHORT and q.device.type == "cpu"
    if not short or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast(q.device.type, enabled=False):  # as in `SelfAttention`, learned in float32
        out = WholeAttentionFunction.apply(q.float(), k.float(), v.float(), mask)
    assert isinstance(out, Tensor)
    return out


def _mask_scores(
    scores: Tensor, mask: Tensor | None, batch: int, groups: int, begin: int, end: int
) -> None:
    """Add the mask of query rows begin..end to scores [B Hkv, G rows, end] in place."""
    rows = end - begin
    if mask is None:
        triangle = scores.new_full((rows, rows), float("-inf")).triu_(1)
        scores.view(-1, groups, rows, end)[..., begin:] += triangle
    else:
        scores.view(batch, -1, groups, rows, end).add_(mask[:, :, None, begin:end, :end])
