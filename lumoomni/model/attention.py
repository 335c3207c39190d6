"""Self-attention with grouped keys: who may read whom, the key-value cache, and the read itself.

Knows: causal, padded, packed and windowed reading, and rotary positions given as tables.
Does not know: what the tokens are, or which model the block sits in.
Costs: no mask is ever built for a plain causal batch or a right-padded one, nor for packed rows
without a window (`model/segments.py`); left-padded batches build one [B, 1, T, S] mask per forward,
shared by every layer.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.asked import Asked, pick
from lumoomni.model.fused import SHORT, ShortAttentionFunction
from lumoomni.model.norm import head_norm_rope
from lumoomni.model.segments import Segments, gather, scatter_back

SHORT_BLOCK = 48


@dataclass(frozen=True, kw_only=True)
class AttentionSpec:
    """Which positions of a batch [B, T] may read each other, besides causality and the window.

    lengths [B]: right padding; only the first lengths[b] positions are real. Free when causal.
    keys [B, T] bool: True at real positions, padding anywhere (left padding for generation).
    documents [B, T] int: packed rows; a position reads only its own document.
    Hidden states at padded positions are finite and mean nothing.
    """

    lengths: Tensor | None = None
    keys: Tensor | None = None
    documents: Tensor | None = None

    def __post_init__(self) -> None:
        if self.lengths is not None and self.keys is not None:
            raise ValueError("give either lengths (right padding) or keys (any padding), not both")
        if self.documents is not None and self.keys is not None:
            raise ValueError("packed rows mark padding by a document id of its own, not by keys")


def default_positions(spec: AttentionSpec | None, batch: int, length: int) -> Tensor | None:
    """Positions [B, T] counted over real tokens, or from each document's start; None = 0..T-1."""
    if spec is None or (spec.keys is None and spec.documents is None):
        return None
    if spec.keys is not None:
        return (spec.keys.long().cumsum(1) - 1).clamp_(min=0)
    documents = spec.documents
    assert documents is not None
    index = torch.arange(length, device=documents.device).expand(batch, length)
    return since_start(index, documents)


def since_start(counted: Tensor, documents: Tensor) -> Tensor:
    """A count [B, T] that never falls along a row, less what it was at each document's start."""
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return counted - torch.where(first, counted, 0).cummax(1).values


def build_mask(
    spec: AttentionSpec | None,
    *,
    queries: int,
    start: int,
    causal: bool,
    window: int | None,
    valid: Tensor | None,
    like: Tensor,
) -> Tensor | None:
    """Additive mask [B or 1, 1, queries, start + queries] in `like`'s dtype, or None if not needed.

    `start` is the count of cached columns before the first query and `valid` [B, start + queries]
    marks the real ones. A position can always read itself, so no row is empty and none is NaN.
    """
    total = start + queries
    windowed = window is not None and total > window
    documents = None if spec is None else spec.documents
    keys = valid
    if keys is None and spec is not None:
        keys = spec.keys
        if spec.lengths is not None and not causal:
            keys = torch.arange(total, device=like.device)[None, :] < spec.lengths[:, None]
    plain = keys is None and documents is None and not windowed
    if plain and (not causal or start == 0 or queries == 1):
        return None
    rows = torch.arange(start, total, device=like.device)[:, None]
    columns = torch.arange(total, device=like.device)[None, :]
    allowed = (columns <= rows) if causal else torch.ones_like(columns <= rows)
    if windowed:
        assert window is not None
        allowed = allowed & (columns > rows - window)
        if not causal:
            allowed = allowed & (columns < rows + window)
    allowed = allowed[None, None]
    if keys is not None:
        allowed = allowed & keys[:, None, None, :]
    if documents is not None:
        allowed = allowed & (documents[:, None, :, None] == documents[:, None, None, :])
    allowed = allowed | (columns == rows)
    return torch.zeros(allowed.shape, dtype=like.dtype, device=like.device).masked_fill_(
        ~allowed, float("-inf")
    )


class KVCache:
    """Keys and values of every layer in one preallocated tensor [L, 2, B, Hkv, S, K].

    All sequences share the column counter `length`; `valid` [B, S] marks real columns when some
    sequences are left-padded and is None when every column is real. `positions` [B] (or the int
    `length`) is the next rotary position of each sequence. `tail` is what a short convolution
    remembers: the last embeddings [B, taps, D].
    """

    def __init__(
        self, *, layers: int, batch: int, kv_heads: int, columns: int, head_width: int, like: Tensor
    ) -> None:
        self.store = torch.zeros(
            (layers, 2, batch, kv_heads, columns, head_width), dtype=like.dtype, device=like.device
        )
        self.length = 0
        self.valid: Tensor | None = None
        self.tail: Tensor | None = None

    @property
    def columns(self) -> int:
        return self.store.shape[4]

    def lengths(self) -> Tensor:
        """Real tokens held per sequence [B]."""
        batch = self.store.shape[2]
        if self.valid is None:
            return torch.full((batch,), self.length, device=self.store.device)
        return self.valid[:, : self.length].sum(1)

    def extend(self, count: int, keys: Tensor | None) -> None:
        """Make room for `count` columns; `keys` [B, count] marks the real ones (None = all).

        Raises ValueError when the cache is full.
        """
        end = self.length + count
        if end > self.columns:
            raise ValueError(f"{end} positions do not fit a cache of {self.columns}; allocate more")
        if keys is not None and self.valid is None:
            self.valid = torch.ones(
                (self.store.shape[2], self.columns), dtype=torch.bool, device=self.store.device
            )
        if keys is not None and self.valid is not None:
            self.valid[:, self.length : end] = keys
        self.length = end


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Shape of one attention layer. `window` counts the query itself; None reads everything."""

    width: int
    heads: int
    kv_heads: int
    head_width: int
    qk_norm: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    norm_eps: float = 1e-6
    window: int | None = None
    causal: bool = True

    def __post_init__(self) -> None:
        if self.heads < 1 or self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads")
        if self.head_width % 2:
            raise ValueError(f"head_width {self.head_width} must be even for rotary positions")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")


class SelfAttention(nn.Module):
    """[B, T, D] -> [B, T, D]; grouped queries (arXiv 2305.13245), rotary (2104.09864), QK-norm."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        rows = (config.heads + 2 * config.kv_heads) * config.head_width
        self.qkv = nn.Linear(config.width, rows, bias=config.qkv_bias)
        self.out = nn.Linear(config.heads * config.head_width, config.width, bias=config.out_bias)
        self.q_norm = nn.Parameter(torch.ones(config.head_width)) if config.qk_norm else None
        self.k_norm = nn.Parameter(torch.ones(config.head_width)) if config.qk_norm else None

    @torch.no_grad()
    def match_keys(self) -> None:
        """Start each key head as a copy of the first query head that reads it.

        Equal inputs then match before anything is learned (in the spirit of arXiv 2305.09828).
        """
        heads, kv, width = self.config.heads, self.config.kv_heads, self.config.head_width
        rows = self.qkv.weight[: (heads + kv) * width].view(heads + kv, width, -1)
        rows[heads:] = rows[: heads : heads // kv]

    def head_scale(self) -> Tensor | None:
        """Norm weights laid out per head [H + Hkv, K], so that q and k are normed in one pass."""
        if self.q_norm is None or self.k_norm is None:
            return None
        heads, kv = self.config.heads, self.config.kv_heads
        return torch.cat([self.q_norm.expand(heads, -1), self.k_norm.expand(kv, -1)])

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | Segments | None = None,
        cached: Tensor | None = None,
        start: int = 0,
        asked: Asked | None = None,
    ) -> Tensor:
        """Read x [B, T, D], and the columns before `start` of `cached` [2, B, Hkv, S, K] if given.

        `rope` is (cos, sin), each [T, K] or [B, T, K]; None leaves positions out. Segments in the
        mask's place let each document of packed rows read itself alone. With `asked` the result is
        [room, D]: only those positions go through the last matrix.
        """
        batch, length, _ = x.shape
        heads, kv, width = self.config.heads, self.config.kv_heads, self.config.head_width
        qkv = self.qkv(x).view(batch, length, heads + 2 * kv, width)
        if self._learned_exactly(x):
            qkv = qkv.float()
        if isinstance(mask, Segments):
            read = self._apart(qkv, rope, mask)
            return self._write(read.reshape(batch, length, heads * width), asked)
        qk, v = qkv.split([heads + kv, kv], dim=2)
        qk = head_norm_rope(qk, self.head_scale(), rope, self.config.norm_eps)
        q, k = qk.split([heads, kv], dim=2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if cached is not None:
            end = start + length
            cached[0, :, :, start:end] = k
            cached[1, :, :, start:end] = v
            if start:
                k, v = cached[0, :, :, :end].to(q.dtype), cached[1, :, :, :end].to(q.dtype)
        read = self._read(q, k, v, mask, start == 0)
        return self._write(read.transpose(1, 2).reshape(batch, length, heads * width), asked)

    def _apart(self, qkv: Tensor, rope: tuple[Tensor, Tensor] | None, laid: Segments) -> Tensor:
        """Each document of packed qkv [B, T, H + 2 Hkv, K] by itself: [B * T, H, K].

        On a CPU heads are normed and rotated where they are laid, a document at a time: that is
        little enough for a core's cache, and one table serves all. Elsewhere few launches count.
        """
        heads, kv, eps = self.config.heads, self.config.kv_heads, self.config.norm_eps
        scale = self.head_scale()
        if laid.cpu:
            tables = [None] * len(laid.shapes) if rope is None else laid.tables(rope)
            parts = [
                (head_norm_rope(qk, scale, table, eps), v)
                for (qk, v), table in zip(gather(qkv, laid, (heads + kv, kv)), tables, strict=True)
            ]
        else:
            qk, v = qkv.split([heads + kv, kv], dim=2)
            qk = head_norm_rope(qk, scale, rope, eps)
            each = zip(gather(qk, laid, (heads + kv,)), gather(v, laid, (kv,)), strict=True)
            parts = [(qk, v) for (qk,), (v,) in each]
        reads: list[Tensor] = []
        for qk, v in parts:
            q, k = (x.transpose(1, 2) for x in qk.split([heads, kv], dim=2))
            reads.append(self._read(q, k, v.transpose(1, 2), None, True).transpose(1, 2))
        return scatter_back(reads, laid)

    def _learned_exactly(self, x: Tensor) -> bool:
        """Whether scores and weights are float32 where other products are bfloat16.

        In bfloat16 the text stage ended at half as much loss again: what reads what stays blurred
        (LOG.md). It costs an eighth of a micro-batch there. Weights that are bfloat16 themselves
        are not learned.
        """
        learning = torch.is_grad_enabled() and x.device.type == "cpu" and self.config.causal
        return learning and next(self.parameters()).dtype == torch.float32

    def _write(self, read: Tensor, asked: Asked | None) -> Tensor:
        return self.out(read if asked is None else pick(read, asked))

    def _read(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, first: bool) -> Tensor:
        """Attention of q [B, H, T, K]; `first`: no column comes before its first position."""
        here = q.shape[2]
        causal = self.config.causal and mask is None and first and here > 1
        short = self.config.causal and first and 1 < here <= SHORT and q.device.type == "cpu"
        if short and torch.is_grad_enabled():
            with torch.autocast(q.device.type, enabled=False):
                read = ShortAttentionFunction.apply(q.contiguous(), k, v, mask, SHORT_BLOCK)
            assert isinstance(read, Tensor)
            return read
        if mask is not None:
            mask = mask.to(q.dtype)
        return F.scaled_dot_product_attention(
            q,
            k,
            v.to(q.dtype),
            attn_mask=mask,
            is_causal=causal,
            enable_gqa=self.config.heads != self.config.kv_heads,
        )
