"""A Thinker for `transformers`, where it is more than Qwen3: a short convolution, and a maker.

This file travels: an exported model's folder holds a copy of it, which `transformers` runs with
`trust_remote_code=True`. So it needs `torch` and `transformers` alone, and nothing of this package.

Knows: Qwen3 as `transformers` has it, and what to add. Does not know: pictures, sounds, or rows.
Costs: with a maker each matrix twice, and both products at every position.
"""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

CACHE = "past_key_values"
if "cache" in inspect.signature(Qwen3Model.forward).parameters:
    CACHE = "cache"
"""What Qwen3 calls its cache: transformers 5.24 gave it another name."""
PAST = "lumoomni_past"
"""The attribute of a cache that holds what is more than keys and values."""


class LumoOmniConfig(Qwen3Config):
    """Qwen3's, and `short_conv`: how many earlier embeddings each position carries along.

    Ids from `maker_from` on go through the maker's matrices, and so does all that follows an id
    from `media_from` on. Without a maker both are None.
    """

    model_type = "lumoomni"
    short_conv: int = 0
    maker_from: int | None = None
    media_from: int | None = None


class ShortConv(nn.Module):
    """x [B, T, D] -> x_t + sum over j = 1..taps of weight_j * x_(t - j), per channel."""

    def __init__(self, taps: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(taps, width))

    def forward(self, x: Tensor, tail: Tensor | None, places: Tensor) -> tuple[Tensor, Tensor]:
        """`tail` [B, taps, D] came before, `places` [B, T] say how many of its own each follows."""
        taps, length = len(self.weight), x.shape[1]
        padded = F.pad(x, (0, 0, taps, 0)) if tail is None else torch.cat([tail, x], 1)
        out = x
        for j in range(1, taps + 1):
            back = padded[:, taps - j : taps - j + length] * self.weight[j - 1]
            out = out + back * (places >= j)[..., None]
        return out, padded[:, length:]


class MakerLinear(nn.Linear):
    """[B, T, C] -> [B, T, E]: through its own matrix, or the maker's where `whose` is true."""

    def __init__(self, like: nn.Linear, whose: list[Tensor]) -> None:
        bias = like.bias is not None
        super().__init__(like.in_features, like.out_features, bias=bias)
        self.maker_weight = nn.Parameter(torch.zeros_like(self.weight))
        self.maker_bias = nn.Parameter(torch.zeros_like(self.bias)) if bias else None
        self._whose = whose

    def forward(self, input: Tensor) -> Tensor:
        """Both, and the one of the two that a position belongs to."""
        made = F.linear(input, self.maker_weight, self.maker_bias)
        return torch.where(self._whose[0][..., None], made, super().forward(input))


class LumoOmniModel(Qwen3Model):
    """The layers. A cache also holds the last embeddings, and whether there were media."""

    config_class = LumoOmniConfig

    def __init__(self, config: LumoOmniConfig) -> None:
        super().__init__(config)
        taps = config.short_conv
        self.short_conv = ShortConv(taps, config.hidden_size) if taps else None
        self._whose: list[Tensor] = []
        if config.maker_from is not None:
            for part in [one for one in self.layers.modules() if list(one.children())]:
                for name, one in list(part.named_children()):
                    if isinstance(one, nn.Linear):
                        setattr(part, name, MakerLinear(one, self._whose))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """As Qwen3's; a cache may be given by either of its names. Raises ValueError for embeddings
        without ids where there is a maker, and for a cache that was cut since it was filled."""
        cache = past_key_values if cache is None else cache
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give one of input_ids and inputs_embeds")
        if use_cache is None:
            use_cache = bool(self.config.use_cache) and not self.training
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        start = 0 if cache is None else int(cache.get_seq_length())
        tail, seen = _past(cache, start)
        places = _places(x, attention_mask, position_ids, start)
        if self.short_conv is not None:
            x, tail = self.short_conv(x, tail, places)
        if self.config.maker_from is not None:
            if input_ids is None:
                raise ValueError("whose matrices an embedding meets is said by its id; give ids")
            after = _after(input_ids >= self.config.media_from, places, seen)
            self._whose[:] = [(input_ids >= self.config.maker_from) | after]
            seen = after[:, -1:]
        if cache is not None:
            setattr(cache, PAST, (start + x.shape[1], tail, seen))
        return super().forward(
            attention_mask=attention_mask,
            position_ids=position_ids,
            **{CACHE: cache},
            inputs_embeds=x,
            use_cache=use_cache,
            **kwargs,
        )


def _past(cache: Cache | None, start: int) -> tuple[Tensor | None, Tensor | None]:
    """The last embeddings [B, taps, D], and whether [B, 1] there were media."""
    if cache is None or not start:
        return None, None
    length, tail, seen = getattr(cache, PAST, (None, None, None))
    if length != start:
        raise ValueError(
            f"the cache holds {start} positions, but was filled with {length}; this model cannot "
            "go on from a cache that was cut or that another model filled"
        )
    return tail, seen


def _places(x: Tensor, mask: Any, position_ids: Tensor | None, start: int) -> Tensor:
    """How many inputs of its own sequence stand before each [B or 1, T]; padding counts none."""
    length = x.shape[1]
    if position_ids is not None:
        return position_ids
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return (mask.long().cumsum(1) - 1)[:, -length:]
    return torch.arange(start, start + length, device=x.device)[None]


def _after(media: Tensor, places: Tensor, seen: Tensor | None) -> Tensor:
    """Which positions [B, T] are media or follow some in their own sequence; `seen` [B, 1] says
    whether there were any before these positions."""
    first = (torch.arange(media.shape[1], device=media.device) - places).expand_as(media)
    count = media.long().cumsum(1)
    after = count > F.pad(count, (1, 0)).gather(1, first.clamp(min=0))
    return after if seen is None else after | (seen & (first < 0))


class LumoOmniForCausalLM(Qwen3ForCausalLM):
    """ids [B, T] -> logits [B, T, V]; generates as Qwen3 does, but without beams."""

    config_class = LumoOmniConfig

    def __init__(self, config: LumoOmniConfig) -> None:
        super().__init__(config)
        self.model = LumoOmniModel(config)
        self.post_init()

    def _beam_search(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError("num_beams must be 1: beams reorder keys and values, but not embeddings")
