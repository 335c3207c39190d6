"""The cached step as one compiled graph of fixed shapes.

Knows: the same plan as `CachedStep`, with the position as a tensor and a mask over the whole cache.
Does not know: prompts or sampling. Needs a C++ compiler, as every `torch.compile` on a CPU does.
Costs: tens of seconds of compilation per new (model shape, batch, cache size); each step then reads
the whole cache, so caches are rounded up to `ROUND` columns and no further.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lumoomni.infer.step import Plan, plan_of
from lumoomni.model.attention import KVCache
from lumoomni.model.thinker import Thinker

ROUND = 256


def columns_for(needed: int) -> int:
    """Cache columns for a compiled step: a multiple of ROUND, so that few graphs are ever made."""
    return (needed + ROUND - 1) // ROUND * ROUND


class StaticStep:
    """Call with x [B, D], the embeddings of the next position; returns hidden [B, D]."""

    def __init__(self, thinker: Thinker, cache: KVCache) -> None:
        config = thinker.config
        if config.moe is not None:
            raise ValueError("a compiled step needs fixed shapes; experts are routed by the data")
        self.cache = cache
        device = cache.store.device
        self.column = torch.tensor([cache.length], device=device)
        self.next = cache.lengths() if cache.valid is not None else self.column.clone()
        # float32 additive mask over all columns; each step opens its own column.
        closed = torch.arange(cache.columns, device=device)[None, :] >= cache.length
        if cache.valid is not None:
            closed = closed | ~cache.valid
        self.mask = torch.zeros(closed.shape, device=device).masked_fill_(closed, float("-inf"))
        self.fixed = _fixed(plan_of(thinker), thinker, cache)
        self.run = compiled(_step, device.type)

    def __call__(self, x: Tensor) -> Tensor:
        hidden = self.run(x, self.mask, self.column, self.next, *self.fixed)
        self.cache.extend(1, None)
        if self.cache.valid is not None:
            self.cache.valid[:, self.cache.length - 1] = True
        self.column += 1
        self.next += 1
        return hidden


@functools.cache
def compiled(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """One graph, the same at every call. On a CPU what calls its products is C++ too (LOG.md)."""
    options: dict[str, Any] | None = {"cpp_wrapper": True} if device == "cpu" else None
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def _fixed(plan: Plan, thinker: Thinker, cache: KVCache) -> tuple[Any, ...]:
    """What stays from step to step: rotary tables, weights, the cache's stores, and shapes."""
    config = thinker.config
    weights = [
        (w.attention_norm, w.qkv, w.qkv_bias, w.head_norm, w.out, w.ffn_norm, w.gate_up, w.down)
        for w in plan.layers
    ]
    windows = tuple(layer.window for layer in plan.layers)
    shape = (config.heads, config.kv_heads, config.head_width, config.norm_eps)
    tables = (thinker.rope.cos, thinker.rope.sin)
    return tables, weights, windows, list(cache.store.unbind(0)), shape, plan.final_norm


def _step(
    x: Tensor,
    mask: Tensor,
    column: Tensor,
    position: Tensor,
    tables: tuple[Tensor, Tensor],
    weights: list[Any],
    windows: tuple[int | None, ...],
    stores: list[Tensor],
    shape: tuple[int, int, int, float],
    final_norm: Tensor,
) -> Tensor:
    """One position of all blocks: x [B, D] -> hidden [B, D]; writes the stores and the mask."""
    heads, kv, width, eps = shape
    batch = x.shape[0]
    mask.index_fill_(1, column, 0.0)
    cos, sin = tables[0][position][:, None], tables[1][position][:, None]
    past = torch.arange(mask.shape[1], device=x.device)
    for layer, window, store in zip(weights, windows, stores, strict=True):
        attention_norm, qkv_weight, bias, head_norm, out, ffn_norm, gate_up, down = layer
        qkv = torch.mm(_norm(x, attention_norm, eps), qkv_weight)
        qkv = (qkv if bias is None else qkv + bias).view(batch, heads + 2 * kv, width)
        qk, v = qkv[:, : heads + kv].float(), qkv[:, heads + kv :]
        if head_norm is not None:
            qk = _norm(qk, head_norm, eps)
        half = width // 2
        qk = qk * cos + torch.cat([qk[..., half:], qk[..., :half]], -1) * sin
        store.index_copy_(3, column, torch.stack([qk[:, heads:].to(x.dtype), v])[:, :, :, None])
        q = (qk[:, :heads] * width**-0.5).to(x.dtype).view(batch, kv, heads // kv, width)
        scores = (q @ store[0].transpose(2, 3)).float() + mask[:, None, None, :]
        if window is not None:
            scores = scores.masked_fill(past <= column - window, float("-inf"))
        read = scores.softmax(-1).to(x.dtype) @ store[1]
        x = x + torch.mm(read.reshape(batch, heads * width), out)
        gate, up = torch.mm(_norm(x, ffn_norm, eps), gate_up).chunk(2, 1)
        x = x + torch.mm(F.silu(gate) * up, down)
    return _norm(x, final_norm, eps)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm whose weight carries sqrt(width)."""
    wide = x.float()
    length = (wide.square().sum(-1, keepdim=True) + eps * x.shape[-1]).sqrt()
    return (wide / length * weight).to(x.dtype)
