"""The parts of the stages that learn tokens, at work on one micro-batch of the longest inputs.

Knows: how many new ids a recipe's codecs make, and which of rows, Thinker and maker learn.
Does not know: other stages, or data. Costs: making the parts, where tensors are real; with
`share_digits` rows are real even where others are fake, for what equal digits share is counted.

Every position is of a full context and is answered, half of it text and half new ids.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

from lumoomni.codecs.scalar import values
from lumoomni.model.factors import Factors
from lumoomni.model.lora import attach
from lumoomni.model.routed import matrices
from lumoomni.model.rows import Rows, RowsConfig, RowThinker
from lumoomni.model.thinker import Thinker
from lumoomni.recipes.part_loads import (
    Load,
    computed_again,
    rest,
    stand_in,
    thinker_load,
    thinker_states,
    typed,
)
from lumoomni.stages.pretrain_tokens import PretrainTokensConfig, let_learn
from lumoomni.train.freeze import freeze
from lumoomni.train.loss import CHUNK_ELEMENTS
from lumoomni.train.recompute import recomputing
from lumoomni.train.row_loss import row_loss
from lumoomni.uti.space import SPECIAL_SLOTS


def token_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    """Of `train_rows` and `pretrain_tokens`: the Thinker with rows, and what else learns."""
    thinker, maker = _frozen(shapes), None
    if isinstance(config, PretrainTokensConfig):
        maker = _frozen(shapes) if config.routed else None
        fake = isinstance(thinker.token_table.weight, FakeTensor)
        let_learn(thinker, config, stand_in if fake else attach)
    rows = _rows(configs, thinker, config)
    batch, length, words = config.loop.batch_size, config.context, thinker.config.vocab_size
    ids = _ids(words, rows.config.count, batch, length)
    plain = ids.clamp(max=words - 1)
    learns, again = any(p.requires_grad for p in thinker.parameters()), config.loop.checkpointing
    model: list[RowThinker] = []

    def run() -> Tensor:
        if not model:  # a maker's view of the Thinker cannot be made of fake tensors
            model.append(RowThinker(thinker, rows, maker))
        with recomputing([thinker], again):
            return model[0](ids).hidden

    load = Load(
        name="thinker",
        module=thinker,
        run=run,
        trained=learns,
        through=True,
        tokens=length,
        times=3.0 if learns else 2.0 if maker is None else 2.0 + (length - length // 2) / length,
        counted=lambda: thinker_states(thinker, plain, True),
    )
    if again:
        assert load.times is not None
        load = computed_again(load, thinker, plain, load.times + 1)
    yield _with_answers(load, thinker, rows, ids)
    yield Load(name="rows", module=rows, run=rest)
    if maker is not None:
        yield Load(name="maker", module=matrices(maker).requires_grad_(True), run=rest)
    if isinstance(config, PretrainTokensConfig) and config.hold_weight and config.thinker_rate:
        context = {**shapes, "positions": length}
        yield thinker_load(context, batch, trained=False, name="before", answers=False)


def _frozen(shapes: dict[str, Any]) -> Thinker:
    with typed(shapes["dtype"]):
        made = Thinker(shapes["thinker"])
    freeze(made)
    return made


def _rows(configs: dict[str, Any], thinker: Thinker, config: Any) -> Rows:
    """A row for each new id of the token space that the recipe builds."""
    space = configs["build_token_space"]
    sound = (configs.get("train_sound_codec") or configs["train_codecs"]).speech
    picture = configs["train_image_codec"].codec if space.pictures else None
    pictures = 0 if picture is None else picture.codebook_size
    shape = RowsConfig(
        start=thinker.config.vocab_size,
        count=SPECIAL_SLOTS + pictures + space.codebooks * sound.codebook_size,
        width=thinker.config.width,
        tied=thinker.config.tied,
        markers=SPECIAL_SLOTS,
    )
    if picture is None or not config.share_digits or not picture.levels:
        return Rows(shape)
    with unset_fake_temporarily():
        rows = Rows(shape)
        parts = values(torch.arange(pictures), picture.parts)
        rows.share(SPECIAL_SLOTS, parts, alone=picture.ink_digits > 0)
    return rows


def _ids(words: int, new: int, batch: int, length: int) -> Tensor:
    """[B, T]: text, then new ids that are no markers."""
    half = length // 2
    text = torch.randint(words, (batch, half))
    media = torch.randint(words + SPECIAL_SLOTS, words + new, (batch, length - half))
    return torch.cat([text, media], 1)


def _with_answers(load: Load, thinker: Thinker, rows: Rows, ids: Tensor) -> Load:
    """The two-block loss at every position of ids [B, T]."""
    count, (words, width) = ids.shape[0] * (ids.shape[1] - 1), thinker.head_weight().shape
    scored = rows.config.count
    if isinstance(rows.shared, Factors):
        scored += len(rows.shared.level_table) - len(rows.shared.values)
    symbols = words + scored
    chunk = min(max(64, CHUNK_ELEMENTS // symbols), count)

    def loss(hidden: Tensor) -> Tensor:
        return row_loss(hidden, ids, thinker.head_weight(), rows.learned_head()).total

    return replace(
        load,
        loss=loss,
        # States' gradients over both blocks, the rows' own over theirs.
        loss_flops=2.0 * count * width * (2 * words + 3 * scored),
        loss_bytes=2 * chunk * symbols + 2 * count * width + 4 * rows.config.count * width,
    )
