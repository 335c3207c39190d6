"""The Thinker: a pre-norm decoder that turns embeddings into hidden states, at any scale.

Knows: the token table, the blocks, the final norm and the head's weight.
Does not know: what ids mean, losses, sampling, or where the embeddings came from.
Costs: `forward` never computes logits; the caller asks `head` for the positions it needs.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lumoomni.model.asked import Asked, asked_rows, put
from lumoomni.model.attention import (
    AttentionConfig,
    AttentionSpec,
    KVCache,
    build_mask,
    default_positions,
)
from lumoomni.model.layers import Block, BlockConfig, BlockOutput, init_blocks
from lumoomni.model.moe import MoEConfig
from lumoomni.model.norm import RMSNorm, Rope
from lumoomni.model.segments import Segments, segments_of
from lumoomni.model.short_conv import ShortConv


@dataclass(frozen=True, kw_only=True)
class ThinkerConfig:
    """Shape of a Thinker, with the choices of Qwen3 (arXiv 2505.09388) as defaults.

    `window` limits how far the layers from `window_from` on can read back (the query included).
    `moe` replaces the feed-forward of every layer except `dense_layers`. `short_conv` is how many
    earlier embeddings each position carries along; Qwen3 has none.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    qk_norm: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    tied: bool = True
    window: int | None = None
    window_from: int = 0
    moe: MoEConfig | None = None
    dense_layers: tuple[int, ...] = ()
    short_conv: int = 0
    max_positions: int = 2048
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (
            ("vocab_size", self.vocab_size),
            ("width", self.width),
            ("layers", self.layers),
            ("max_positions", self.max_positions),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.short_conv < 0:
            raise ValueError(f"short_conv must be at least 0, got {self.short_conv}")
        if self.rope_theta <= 0:
            raise ValueError(f"rope_theta must be positive, got {self.rope_theta}")
        self.block(0)  # raises for a shape that no layer can have

    def layer_window(self, layer: int) -> int | None:
        """The window of one layer, None where it reads everything."""
        return self.window if layer >= self.window_from else None

    def block(self, layer: int) -> BlockConfig:
        """The config of one layer."""
        attention = AttentionConfig(
            width=self.width,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_width=self.head_width,
            qk_norm=self.qk_norm,
            qkv_bias=self.qkv_bias,
            out_bias=self.out_bias,
            norm_eps=self.norm_eps,
            window=self.layer_window(layer),
        )
        return BlockConfig(
            attention=attention,
            ffn_width=self.ffn_width,
            norm_eps=self.norm_eps,
            moe=None if layer in self.dense_layers else self.moe,
            dropout=self.dropout,
        )


@dataclass(frozen=True)
class ThinkerOutput:
    """hidden [B, T, D] after the final norm, the cache given (now longer), the balancing loss."""

    hidden: Tensor
    cache: KVCache | None
    aux_loss: Tensor | None


class Thinker(nn.Module):
    """ids -> embed -> [B, T, D] -> forward -> hidden [B, T, D] -> head -> logits [..., V]."""

    def __init__(self, config: ThinkerConfig) -> None:
        super().__init__()
        self.config = config
        self.token_table = nn.Embedding(config.vocab_size, config.width)
        self.short_conv = ShortConv(config.width, config.short_conv) if config.short_conv else None
        self.blocks = nn.ModuleList(Block(config.block(i)) for i in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head_table = (
            None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.width))
        )
        self.rope = Rope(config.head_width, config.rope_theta, config.max_positions)
        self.checkpointing = False  # whether a backward computes layers again (train/recompute.py)
        self.init_weights()

    def init_weights(self, std: float = 0.02) -> None:
        """N(0, std), residual outputs by 1/sqrt(2 L) smaller (GPT-2's rule); norms at one.

        Keys start equal to queries, so that attention begins by matching like with like.
        """
        nn.init.normal_(self.token_table.weight, std=std)
        if self.head_table is not None:
            nn.init.normal_(self.head_table, std=std)
        nn.init.ones_(self.norm.weight)
        if self.short_conv is not None:
            self.short_conv.init_weights()
        init_blocks(self.blocks, std)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attention.match_keys()

    def head_weight(self) -> Tensor:
        """[V, D]: the head's own table, or the token table when tied."""
        return self.token_table.weight if self.head_table is None else self.head_table

    def embed(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> [B, T, D]."""
        return self.token_table(ids)

    def numbered(self, x: Tensor, numbers: Tensor | None) -> Tensor:
        """x [B, T, D] with the embedding of numbers [B, T] added where these are ids.

        None changes nothing. What two pictures say is then told apart at every position.
        """
        if numbers is None:
            return x
        there = (numbers >= 0).unsqueeze(-1).to(x.dtype)
        return x + there * self.token_table(numbers.clamp(min=0)).to(x.dtype)

    def head(self, hidden: Tensor) -> Tensor:
        """hidden [..., D] -> logits [..., V]; expensive, so only for the positions you need."""
        return F.linear(hidden, self.head_weight())

    def new_cache(self, batch: int, columns: int) -> KVCache:
        """An empty cache for `columns` positions of `batch` sequences."""
        config = self.config
        return KVCache(
            layers=config.layers,
            batch=batch,
            kv_heads=config.kv_heads,
            columns=columns,
            head_width=config.head_width,
            like=self.token_table.weight,
        )

    def mix(self, x: Tensor, cache: KVCache | None, positions: Tensor | None) -> Tensor:
        """Embeddings [B, T, D] with the short convolution applied, if there is one.

        Call once per position and in order: a given cache remembers the last embeddings.
        """
        if self.short_conv is None:
            return x
        mixed, tail = self.short_conv(x, None if cache is None else cache.tail, positions)
        if cache is not None:
            cache.tail = tail
        return mixed

    def forward(
        self,
        inputs_embeds: Tensor,
        positions: Tensor | None = None,
        attention: AttentionSpec | None = None,
        cache: KVCache | None = None,
        asked: Tensor | None = None,
    ) -> ThinkerOutput:
        """inputs_embeds [B, T, D] -> hidden [B, T, D]; a given cache is read and extended.

        `positions` [B, T] default to a count over real tokens that restarts with each document.
        With a cache, `attention` may only carry `keys` and describes the new positions alone.
        `asked` bool [B, T] names the positions whose states will be read: the others may be left
        out of the last layer, and are zeros then.
        """
        batch, length, _ = inputs_embeds.shape
        start = 0 if cache is None else cache.length
        if positions is None:
            positions = self._positions(attention, cache, batch, length)
        keys = None if attention is None else attention.keys
        if cache is not None:
            cache.extend(length, keys)
        rope = self.rope(positions, start, length)
        valid = None
        if cache is not None and cache.valid is not None:
            valid = cache.valid[:, : start + length]
        masks = self._masks(attention, inputs_embeds, start, valid)
        x, losses = self.mix(inputs_embeds, cache, positions), []
        picked = self._picked(asked, cache)
        for i, block in enumerate(self.blocks):
            rows = picked if i + 1 == len(self.blocks) else None
            mask = masks[self.config.layer_window(i)]
            cached = None if cache is None else cache.store[i]
            if self.checkpointing and cache is None and torch.is_grad_enabled():
                out = checkpoint(block, x, rope, mask, None, 0, rows, use_reentrant=False)
            else:
                out = block(x, rope, mask, cached, start, rows)
            assert isinstance(out, BlockOutput)
            x = out.hidden
            if out.aux_loss is not None:
                losses.append(out.aux_loss)
        aux_loss = torch.stack(losses).mean() if losses else None
        hidden = self.norm(x)
        if picked is not None:
            hidden = put(hidden, picked, inputs_embeds)
        return ThinkerOutput(hidden, cache, aux_loss)

    def _picked(self, asked: Tensor | None, cache: KVCache | None) -> Asked | None:
        """What of the last layer can be left out: nothing where its experts are balanced over all
        positions, and nothing where a compiler needs to know shapes beforehand."""
        if asked is None or cache is not None or torch.compiler.is_compiling():
            return None
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return asked_rows(asked) if last.moe is None else None

    def _masks(
        self, spec: AttentionSpec | None, x: Tensor, start: int, valid: Tensor | None
    ) -> dict[int | None, Tensor | Segments | None]:
        """Who reads whom, for each window that a layer has."""
        length = x.shape[1]
        segments = None
        if spec is not None and spec.documents is not None:
            segments = segments_of(spec.documents, spec.lengths)
        masks: dict[int | None, Tensor | Segments | None] = {}
        for window in {self.config.layer_window(i) for i in range(self.config.layers)}:
            if segments is not None and (window is None or segments.longest <= window):
                masks[window] = segments
                continue
            masks[window] = build_mask(
                spec,
                queries=length,
                start=start,
                causal=True,
                window=window,
                valid=valid,
                like=x,
            )
        return masks

    def _positions(
        self, spec: AttentionSpec | None, cache: KVCache | None, batch: int, length: int
    ) -> Tensor | None:
        if cache is not None and spec is not None and spec.keys is None:
            raise ValueError("a cached forward takes keys only: lengths and documents have no past")
        if cache is None or cache.length == 0:
            return default_positions(spec, batch, length)
        keys = None if spec is None else spec.keys
        if cache.valid is None and keys is None:
            return None
        if keys is None:
            new = torch.arange(length, device=cache.store.device)[None, :]
        else:
            new = (keys.long().cumsum(1) - 1).clamp_(min=0)
        return cache.lengths()[:, None] + new
