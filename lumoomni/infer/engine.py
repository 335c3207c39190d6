"""Generation: prefill, then one cached step per id, for a batch, with the hidden states kept.

Knows: a Thinker, its cache, stopping, and restricting the choice to legal ids.
Does not know: text, media, or which ids are which.
Costs: one forward over the prompt, one single-position forward per id, and one more after the last
id so that every reply id has the hidden state it produced as an input (the Talker reads those).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lumoomni.infer.rounded_head import pays, rounded_head
from lumoomni.infer.sampling import SamplingConfig, sample
from lumoomni.infer.static_step import StaticStep, columns_for
from lumoomni.infer.step import CachedStep, fits, plan_of
from lumoomni.model.attention import AttentionSpec, KVCache
from lumoomni.model.thinker import Thinker

Allowed = Tensor | Callable[[Tensor | None], Tensor | None]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """When to stop and how to choose. `seed` makes sampling repeatable; greedy needs none."""

    max_new_tokens: int = 64
    stop_ids: tuple[int, ...] = ()
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")


@dataclass(frozen=True)
class Step:
    """One id per sequence.

    ids [B]; hidden [B, D]: the final hidden state of the input that PRODUCED these ids, which is
    also the state of the previous reply id; finished [B]: True once a stop id has been produced
    (a finished sequence repeats its stop id, to be ignored).
    """

    ids: Tensor
    hidden: Tensor
    finished: Tensor


@dataclass(frozen=True)
class Last:
    """The closing forward: hidden [B, D] of the last reply id as an input."""

    hidden: Tensor


@dataclass(frozen=True)
class Prompts:
    """Left-padded prompts: embeds [B, T, D] and keys [B, T], True at real positions."""

    embeds: Tensor
    keys: Tensor


def left_pad(prompts: list[Tensor]) -> Prompts:
    """Prompts [T_i, D] of different lengths as one batch whose ends are aligned."""
    longest = max(prompt.shape[0] for prompt in prompts)
    embeds = prompts[0].new_zeros(len(prompts), longest, prompts[0].shape[1])
    keys = torch.zeros(len(prompts), longest, dtype=torch.bool, device=embeds.device)
    for i, prompt in enumerate(prompts):
        if prompt.shape[0]:
            embeds[i, -prompt.shape[0] :] = prompt
            keys[i, -prompt.shape[0] :] = True
    return Prompts(embeds, keys)


class Generation:
    """Iterate once for `Step`s; afterwards the reply and its hidden states can be read."""

    def __init__(self, steps: Iterator["Step | Last"]) -> None:
        self._steps = steps
        self._ids: list[Tensor] = []
        self._hidden: list[Tensor] = []

    def __iter__(self) -> Iterator[Step]:
        for step in self._steps:
            if self._ids:
                self._hidden.append(step.hidden)
            if isinstance(step, Last):
                return
            self._ids.append(step.ids)
            yield step

    @property
    def ids(self) -> Tensor:
        """Reply ids so far [B, N], stop ids included."""
        return torch.stack(self._ids, 1)

    @property
    def hidden(self) -> Tensor:
        """Hidden state of each reply id as an input [B, N, D]; complete when the loop has ended."""
        return torch.stack(self._hidden, 1)

    def replies(self, stop_ids: tuple[int, ...]) -> list[list[int]]:
        """Reply ids of each sequence, cut before the first stop id."""
        rows = self.ids.tolist()
        ends = [next((i for i, x in enumerate(row) if x in stop_ids), len(row)) for row in rows]
        return [row[:end] for row, end in zip(rows, ends, strict=True)]


def generate(
    thinker: Thinker,
    prompt: Tensor,
    config: GenerateConfig,
    *,
    keys: Tensor | None = None,
    allowed: Allowed | None = None,
    embed: Callable[[Tensor], Tensor] | None = None,
    head: Callable[[Tensor], Tensor] | None = None,
    compiled: bool = False,
) -> Generation:
    """Continue `prompt`: ids [B, T] (integers) or embeddings [B, T, D], left-padded per `keys`.

    `allowed` restricts the choice: a 1-D tensor of legal ids (the head is then computed for those
    rows only), a bool mask [B, V], or a function of the previous ids [B] (None at first) that
    returns either, or None for no restriction. `embed` and `head` replace the Thinker's own.
    Raises ValueError when the prompt and the new tokens exceed the Thinker's positions.
    """
    end = prompt.shape[1] + config.max_new_tokens
    if end > thinker.config.max_positions:
        raise ValueError(
            f"prompt of {prompt.shape[1]} plus {config.max_new_tokens} new tokens exceeds "
            f"max_positions {thinker.config.max_positions}"
        )
    steps = _steps(thinker, prompt, config, keys, allowed, embed, head, compiled)
    return Generation(steps)


@torch.inference_mode()
def _steps(
    thinker: Thinker,
    prompt: Tensor,
    config: GenerateConfig,
    keys: Tensor | None,
    allowed: Allowed | None,
    embed: Callable[[Tensor], Tensor] | None,
    head: Callable[[Tensor], Tensor] | None,
    compiled: bool,
) -> Iterator["Step | Last"]:
    embed = embed or thinker.embed
    batch = prompt.shape[0]
    x = prompt if prompt.is_floating_point() else embed(prompt)
    needed = prompt.shape[1] + config.max_new_tokens
    cache = thinker.new_cache(batch, columns_for(needed) if compiled else needed)
    spec = None if keys is None or bool(keys.all()) else AttentionSpec(keys=keys)
    hidden = thinker(x, attention=spec, cache=cache).hidden[:, -1]
    advance = stepper(thinker, cache, compiled)
    is_greedy = compiled and head is None and config.sampling.temperature == 0
    best = rounded_head(thinker) if is_greedy and pays(thinker.head_weight(), batch) else None
    chooser = Chooser(thinker, config, head, best)
    finished = torch.zeros(batch, dtype=torch.bool, device=x.device)
    stops = torch.tensor(config.stop_ids, device=x.device, dtype=torch.long)
    ids: Tensor | None = None
    for _ in range(config.max_new_tokens):
        chosen = chooser(hidden, allowed(ids) if callable(allowed) else allowed)
        ids = chosen if ids is None or not config.stop_ids else torch.where(finished, ids, chosen)
        if config.stop_ids:
            finished = finished | torch.isin(ids, stops)
        yield Step(ids, hidden, finished)
        hidden = advance(embed(ids))
        if config.stop_ids and bool(finished.all()):
            break
    yield Last(hidden)


def stepper(thinker: Thinker, cache: KVCache, compiled: bool = False) -> Callable[[Tensor], Tensor]:
    """A function of embeddings [B, D] that appends one position and returns hidden [B, D]."""
    if compiled:
        if not fits(thinker):
            raise ValueError("a Thinker with wrapped modules or hooks cannot take a compiled step")
        return _mixed(thinker, cache, StaticStep(thinker, cache))
    if fits(thinker):
        return _mixed(thinker, cache, CachedStep(thinker, cache))
    return lambda x: thinker(x[:, None], cache=cache).hidden[:, 0]


def _mixed(
    thinker: Thinker, cache: KVCache, step: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """A step of the blocks alone, with the short convolution before it if the Thinker has one."""
    if thinker.short_conv is None:
        return step

    def mixed(x: Tensor) -> Tensor:
        positions = None if cache.valid is None else cache.lengths()[:, None]
        return step(thinker.mix(x[:, None], cache, positions)[:, 0])

    return mixed


class Chooser:
    """Next ids [B] from hidden [B, D], among the legal ones (1-D ids, bool [B, V], or None).

    `best` says sooner than the head what is likeliest of all.
    """

    def __init__(
        self,
        thinker: Thinker,
        config: GenerateConfig,
        head: Callable[[Tensor], Tensor] | None,
        best: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.weight = plan_of(thinker).head if fits(thinker) else thinker.head_weight().t()
        self.head, self.sampling, self.best = head, config.sampling, best
        device = self.weight.device
        self.generator = torch.Generator(device=device).manual_seed(config.seed)
        self._legal: Tensor | None = None
        self._slice = self.weight

    def __call__(self, hidden: Tensor, legal: Tensor | None) -> Tensor:
        if legal is None and self.best is not None:
            return self.best(hidden)
        if legal is None:
            return sample(self._logits(hidden), self.sampling, self.generator)
        if legal.dtype == torch.bool:
            logits = self._logits(hidden).masked_fill(~legal, float("-inf"))
            return sample(logits, self.sampling, self.generator)
        if self.head is not None:
            return legal[sample(self.head(hidden)[:, legal], self.sampling, self.generator)]
        if legal is not self._legal:
            self._legal, self._slice = legal, self.weight[:, legal]
        return legal[sample(torch.mm(hidden, self._slice), self.sampling, self.generator)]

    def _logits(self, hidden: Tensor) -> Tensor:
        return torch.mm(hidden, self.weight) if self.head is None else self.head(hidden)


@torch.inference_mode()
def cached_equals_uncached(thinker: Thinker, ids: Tensor, compiled: bool = False) -> float:
    """Largest difference of logits between one whole forward of ids [B, T] and cached steps."""
    whole = thinker.head(thinker(thinker.embed(ids)).hidden)
    cache = thinker.new_cache(ids.shape[0], ids.shape[1])
    half = max(1, ids.shape[1] // 2)
    parts = [thinker(thinker.embed(ids[:, :half]), cache=cache).hidden]
    advance = stepper(thinker, cache, compiled)
    for t in range(half, ids.shape[1]):
        parts.append(advance(thinker.embed(ids[:, t]))[:, None])
    return float((thinker.head(torch.cat(parts, 1)) - whole).abs().max())
