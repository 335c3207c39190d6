"""The Talker: speaks a reply by predicting speech codes frame by frame, and knows when to stop.

Knows: at every frame which reply token is being said, the Thinker's state and the embedding of
that token, the token that comes next, how long the token has been going on, and the codes so far.
Does not know: text, mel or sound. Alignment is explicit: after each frame an `advance` decision
moves on to the next spoken token, and moving past the last one is the stop, so words cannot be
skipped or repeated, and speech can start while the reply is still being written.
Costs: about one Thinker block's work per layer and frame (25 frames a second in `nano`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.attention import AttentionConfig, KVCache
from lumoomni.model.layers import Block, BlockConfig, init_blocks
from lumoomni.model.norm import RMSNorm, Rope
from lumoomni.shapes import whole_rows


@dataclass(frozen=True, kw_only=True)
class TalkerConfig:
    """`source_width` is the Thinker's width. Rates in frames are the speech codec's."""

    source_width: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    codebooks: int = 2
    codebook_size: int = 128
    max_progress: int = 64
    """A token is left after this many frames at the latest."""
    max_frames: int = 2048
    state_dropout: float = 0.3
    """Share of training clips spoken from embeddings alone, so that later changes to the
    Thinker's states cannot silence the Talker."""
    code_noise: float = 0.1
    """Share of past codes replaced at random in training, against drift of its own making."""

    def __post_init__(self) -> None:
        if min(self.codebooks, self.codebook_size, self.max_progress, self.max_frames) < 1:
            raise ValueError("codebooks, codebook_size, max_progress and max_frames must be >= 1")
        if not 0 <= self.state_dropout <= 1 or not 0 <= self.code_noise < 1:
            raise ValueError("state_dropout and code_noise are shares between 0 and 1")

    def block(self) -> BlockConfig:
        """The config of each layer."""
        attention = AttentionConfig(
            width=self.width,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_width=self.head_width,
        )
        return BlockConfig(attention=attention, ffn_width=self.ffn_width)


@dataclass(frozen=True, kw_only=True)
class Script:
    """What is to be said. R reply tokens, F frames.

    hidden [B, R, Ds], embeds [B, R, Ds]; owner [B, F] the token that each frame says (monotone);
    progress [B, F] frames since that token began.
    """

    hidden: Tensor
    embeds: Tensor
    owner: Tensor
    progress: Tensor


@dataclass(frozen=True)
class TalkerLoss:
    """Sums over valid frames (scalars, differentiable) and the number of frames."""

    codes: Tensor
    advance: Tensor
    frames: int


class Talker(nn.Module):
    """Decoder over frames; residual codes are conditioned on the base code of the same frame."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.code_table = nn.Parameter(
            torch.randn(config.codebooks, config.codebook_size, width) * width**-0.5
        )
        self.start_table = nn.Parameter(torch.zeros(width))
        self.progress_table = nn.Embedding(config.max_progress, width)
        self.state_norm = RMSNorm(config.source_width)
        self.embed_norm = RMSNorm(config.source_width)
        self.from_state = nn.Linear(config.source_width, width, bias=False)
        self.from_embed = nn.Linear(config.source_width, width, bias=False)
        self.next_shift = nn.Parameter(torch.ones(width) * 0.5)
        self.blocks = nn.ModuleList(Block(config.block()) for _ in range(config.layers))
        self.norm = RMSNorm(width)
        self.code_mix = nn.Linear(width, width, bias=False)
        self.advance_head = nn.Linear(width, 1)
        self.rope = Rope(config.head_width, 10_000.0, config.max_frames)
        init_blocks(self.blocks)
        nn.init.normal_(self.progress_table.weight, std=0.3)

    def condition(self, state: Tensor, embed: Tensor, following: Tensor) -> Tensor:
        """Per token: state, own embedding, embedding of the next token, each [..., Ds] -> D.

        A row of zeros as `state` or `following` means that there is none.
        """
        own = self.from_embed(self.embed_norm(embed))
        after = torch.roll(self.from_embed(self.embed_norm(following)), 1, -1) * self.next_shift
        return own + after + self.from_state(self.state_norm(state))

    def embed_codes(self, codes: Tensor) -> Tensor:
        """codes [..., Q] -> [..., D]."""
        return sum(F.embedding(codes[..., q], self.code_table[q]) for q in range(codes.shape[-1]))  # type: ignore[return-value]

    def inputs(self, script: Script, past: Tensor) -> Tensor:
        """Frame inputs [B, F, D]: conditions gathered by owner, progress, and past [B, F, D]."""
        following = torch.zeros_like(script.embeds)
        following[:, :-1] = script.embeds[:, 1:]
        tokens = self.condition(script.hidden, script.embeds, following)
        index = script.owner[..., None].expand(-1, -1, tokens.shape[-1])
        progress = script.progress.clamp(max=self.config.max_progress - 1)
        return tokens.gather(1, index) + self.progress_table(progress) + past

    def decode(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Frame inputs [B, F, D] -> frame states [B, F, D], reading a cache if given."""
        start = 0 if cache is None else cache.length
        if cache is not None:
            cache.extend(x.shape[1], None)
        rope = self.rope(None, start, x.shape[1])
        for i, block in enumerate(self.blocks):
            x = block(x, rope, None, None if cache is None else cache.store[i], start).hidden
        return self.norm(x)

    def code_logits(self, state: Tensor, chosen: Tensor) -> Tensor:
        """Logits [..., K] of codebook q = chosen's length, given this frame's codes before it."""
        book = chosen.shape[-1]
        if book:
            state = state + self.code_mix(self.embed_codes(chosen))
        return F.linear(state, self.code_table[book])

    def advance_logit(self, state: Tensor, codes: Tensor) -> Tensor:
        """Log-odds [...] that this frame is its token's last, given all of its codes [..., Q]."""
        return self.advance_head(state + self.code_mix(self.embed_codes(codes))).squeeze(-1)

    def loss(self, script: Script, codes: Tensor, lengths: Tensor) -> TalkerLoss:
        """codes [B, F, Q], lengths [B] valid frames: teacher-forced losses of codes and advance."""
        past = codes
        hidden = script.hidden
        if self.training:
            noise = torch.rand((*codes.shape[:2], 1), device=codes.device) < self.config.code_noise
            past = torch.where(noise, torch.randint_like(codes, self.config.codebook_size), codes)
            keep = torch.rand(len(codes), 1, 1, device=codes.device) >= self.config.state_dropout
            script = Script(
                hidden=hidden * keep,
                embeds=script.embeds,
                owner=script.owner,
                progress=script.progress,
            )
        shifted = torch.cat(
            [self.start_table.expand(len(codes), 1, -1), self.embed_codes(past[:, :-1])], 1
        )
        state = self.decode(self.inputs(script, shifted))
        valid = torch.arange(codes.shape[1], device=codes.device)[None] < lengths[:, None]
        frames = int(valid.sum())
        state, wanted = whole_rows(state[valid]), whole_rows(codes[valid])
        total = torch.zeros((), device=codes.device)
        for book in range(self.config.codebooks):
            logits = self.code_logits(state, wanted[:, :book])[:frames].float()
            total = total + F.cross_entropy(logits, wanted[:frames, book], reduction="sum")
        leaving = torch.ones_like(script.owner, dtype=torch.bool)
        leaving[:, :-1] = script.owner[:, 1:] != script.owner[:, :-1]
        last = torch.arange(codes.shape[1], device=codes.device)[None] == lengths[:, None] - 1
        target = (leaving | last)[valid].float()
        advance = F.binary_cross_entropy_with_logits(
            self.advance_logit(state, wanted)[:frames].float(), target, reduction="sum"
        )
        return TalkerLoss(total, advance, frames)

    def new_cache(self, batch: int, frames: int) -> KVCache:
        """An empty cache for `frames` frames."""
        config = self.config
        return KVCache(
            layers=config.layers,
            batch=batch,
            kv_heads=config.kv_heads,
            columns=frames,
            head_width=config.head_width,
            like=self.code_table,
        )
