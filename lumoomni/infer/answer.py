"""Batched greedy answers to conversations, with or without media.

Knows: layouts, left padding, stopping at the end of an answer.
Does not know: whether an answer is right. Costs: one prefill and one cached decode for a batch.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lumoomni.data.conversation import Encoded, Layout, Turn, collate
from lumoomni.infer.engine import GenerateConfig, generate, left_pad
from lumoomni.model.omni import OmniInputs, OmniModel, device_of, drop_padding
from lumoomni.model.thinker import Thinker
from lumoomni.uti.sequence import end_id

NEW_TOKENS = 32
"""Tokens of an answer, at the most."""


def answerable(thinker: Thinker, layout: Layout, prompts: Sequence[tuple[Turn, ...]]) -> list[int]:
    """Places of the conversations after which the Thinker has positions left for an answer."""
    room = thinker.config.max_positions - NEW_TOKENS
    lengths = [len(layout.encode(one, open_answer=True, pixels=False)) for one in prompts]
    return [place for place, length in enumerate(lengths) if length <= room]


def answer(
    thinker: Thinker,
    embed_prompt: Callable[[list[Encoded]], list[Tensor]],
    layout: Layout,
    prompts: Sequence[tuple[Turn, ...]],
    *,
    max_new_tokens: int = NEW_TOKENS,
    batch: int = 64,
) -> list[str]:
    """Greedy answers to conversations, batched by length; `embed_prompt` gives [T_i, D] each."""
    stop = end_id(layout.text_codec, layout.template)
    encoded = [layout.encode(turns, open_answer=True) for turns in prompts]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    out = [""] * len(encoded)
    config = GenerateConfig(max_new_tokens=max_new_tokens, stop_ids=(stop,))
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        with torch.inference_mode():
            padded = left_pad(embed_prompt([encoded[i] for i in chosen]))
            generation = generate(thinker, padded.embeds, config, keys=padded.keys)
            for _ in generation:
                pass
        for i, ids in zip(chosen, generation.replies((stop,)), strict=True):
            out[i] = layout.text_codec.decode(ids).strip()
    return out


def text_embedder(thinker: Thinker) -> Callable[[list[Encoded]], list[Tensor]]:
    """Embeds conversations without media."""

    def embed(items: list[Encoded]) -> list[Tensor]:
        device = device_of(thinker)
        batch = collate(items).to(device)
        x = thinker.numbered(thinker.embed(batch.ids), batch.numbers)
        return drop_padding(x, batch.lengths)

    return embed


def omni_embedder(model: OmniModel) -> Callable[[list[Encoded]], list[Tensor]]:
    """Embeds conversations with their media."""

    def embed(items: list[Encoded]) -> list[Tensor]:
        batch = collate(items).to(device_of(model))
        inputs = OmniInputs(
            ids=batch.ids,
            lengths=batch.lengths,
            pixels=batch.pixels,
            mels=batch.mels,
            mel_lengths=batch.mel_lengths,
            numbers=batch.numbers,
        )
        return drop_padding(model.embed(inputs), batch.lengths)

    return embed
