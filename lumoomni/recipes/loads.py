"""What each stage's loss runs: its parts at work on one micro-batch of the longest inputs.

Knows: which parts a stage trains, freezes or sends gradients through.
Does not know: whether tensors are fake (`plan.py` counts them) or real (`plan_measure.py` times
them), data, or checkpoints. Costs: making the parts, where tensors are real.

Sound is SECONDS_OF_SOUND long, text fills the context, every picture is there and every position
is answered; what a stage's own data leaves shorter is quicker and smaller than this.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lumoomni.codecs.image_vq import ImageCodec
from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.model.audio import AudioTower
from lumoomni.model.connector import LinearConnector, LinearConnectorConfig
from lumoomni.model.perceiver import PerceiverConnector
from lumoomni.model.talker import Script, Talker
from lumoomni.model.thinker import Thinker
from lumoomni.model.vision import VisionFeatures
from lumoomni.recipes.part_loads import (
    FRAMES_A_SYMBOL,
    SECONDS_OF_SOUND,
    Load,
    adapted_load,
    audio_load,
    rest,
    thinker_load,
    vision_load,
)
from lumoomni.recipes.token_loads import token_loads
from lumoomni.stages.align_connector import AlignConnectorConfig, connector_shape
from lumoomni.stages.instruct import InstructConfig
from lumoomni.stages.instruct_lora import InstructLoraConfig, as_align
from lumoomni.stages.pretrain_text import PretrainTextConfig
from lumoomni.stages.pretrain_tokens import PretrainTokensConfig
from lumoomni.stages.train_audio_encoder import TrainAudioEncoderConfig
from lumoomni.stages.train_codecs import TrainCodecsConfig
from lumoomni.stages.train_image_codec import TrainImageCodecConfig
from lumoomni.stages.train_rows import TrainRowsConfig
from lumoomni.stages.train_talker import TrainTalkerConfig
from lumoomni.stages.train_vision_encoder import TrainVisionEncoderConfig
from lumoomni.train.contrast import CaptionHeads
from lumoomni.train.freeze import freeze


def loads_of(name: str, configs: dict[str, Any], shapes: dict[str, Any]) -> list[Load]:
    """The parts of stage `name`, made of what tensors are made of at the moment."""
    return list(LOADS[type(configs[name])](configs, shapes, configs[name]))


def _text_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    again = config.loop.checkpointing
    yield thinker_load(shapes, config.loop.batch_size, trained=True, checkpointing=again)


def _audio_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    tower = audio_load(configs, shapes, config.loop.batch_size, trained=True)
    yield tower
    width, symbols = config.audio.encoder.width, shapes["thinker"].vocab_size
    head = nn.Linear(width, symbols)
    x = torch.randn(config.loop.batch_size, tower.tokens, width)
    guess = lambda: head(x.detach().requires_grad_())  # noqa: E731
    yield Load(name="frame_head", module=head, run=guess if config.frame_weight else rest)


def _vision_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    batch = config.loop.batch_size
    tower, width, count = vision_load(shapes, batch, trained=True)
    yield tower
    heads = CaptionHeads(replace(config.heads, vocab_size=shapes["thinker"].vocab_size), width)
    ids = torch.randint(shapes["thinker"].vocab_size, (batch, config.heads.max_tokens))
    mask = torch.ones_like(ids, dtype=torch.bool)
    told, same = torch.ones(batch, dtype=torch.bool), torch.eye(batch, dtype=torch.bool)
    picture, seen = torch.randn(batch, width), torch.randn(batch, count, width)

    def run() -> tuple[Tensor, ...]:
        cls, patches = picture.detach().requires_grad_(), seen.detach().requires_grad_()
        return (
            heads.contrast(heads.image(cls), heads.text(ids, mask), same),
            heads.words(cls, ids, mask),
            heads.places(patches, ids, mask, told),
        )

    yield Load(name="heads", module=heads, run=run)


def _codec_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    shape = replace(config.speech, n_mels=configs["pretrain_text"].mel.n_mels)
    codec = SpeechCodec(shape)
    frames = -(-config.crop // shape.stride)
    x = torch.randn(config.loop.batch_size, shape.n_mels * shape.stride, frames)
    halves = nn.Sequential(codec.encode_in, codec.encode_mid, codec.encode_out)
    back = nn.Sequential(codec.decode_in, codec.decode_mid, codec.decode_out)
    yield Load(name="speech_codec", module=codec, run=lambda: back(halves(x)), tokens=frames)


def _picture_codec_loads(
    configs: dict[str, Any], shapes: dict[str, Any], config: Any
) -> Iterator[Load]:
    """Both halves; the quantiser between them has no gradients and next to no arithmetic."""
    codec, size = ImageCodec(config.codec), config.codec.image_size
    pixels = torch.randn(config.loop.batch_size, 3, size, size)
    yield Load(
        name="image_codec",
        module=codec,
        run=lambda: codec.decoder(codec.encoder(pixels)),
        tokens=config.codec.tokens,
    )


def _talker_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    width, batch = shapes["thinker"].width, config.loop.batch_size
    shape = replace(config.talker, source_width=width)
    talker = Talker(shape)
    frames = SECONDS_OF_SOUND * 100 // configs["train_codecs"].speech.stride
    tokens = max(1, frames // FRAMES_A_SYMBOL)
    codes = torch.randint(shape.codebook_size, (batch, frames, shape.codebooks))
    script = Script(
        hidden=torch.randn(batch, tokens, width),
        embeds=torch.randn(batch, tokens, width),
        owner=(torch.arange(frames) * tokens // frames).expand(batch, -1),
        progress=torch.arange(frames).remainder(FRAMES_A_SYMBOL).expand(batch, -1),
    )

    def run() -> tuple[Tensor, ...]:
        start = talker.start_table.expand(batch, 1, -1)
        past = torch.cat([start, talker.embed_codes(codes[:, :-1])], 1)
        state = talker.decode(talker.inputs(script, past))
        books = (talker.code_logits(state, codes[..., :q]) for q in range(shape.codebooks))
        return (*books, talker.advance_logit(state, codes))

    yield Load(name="talker", module=talker, run=run, tokens=frames)


def _align_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    """With `pack`, a row counts as a sample, and is full of pictures."""
    batch, length = config.loop.batch_size, config.pack or config.context
    pictures = batch * max(1, config.pack // config.latents)
    tower, width, count = vision_load(shapes, pictures, trained=False)
    yield replace(tower, run=rest) if config.cache_features else tower
    yield _perceiver(shapes, config, pictures, width, count)
    again = config.loop.checkpointing
    context = {**shapes, "positions": length}
    thinker = thinker_load(context, batch, trained=False, checkpointing=again)
    if config.thinker_from < 1:
        yield thinker
    else:  # it is there, and is never asked
        yield Load(name="thinker", module=thinker.module, run=rest, trained=False)


def _lora_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    """With `pack`, a row counts as a sample, and is full of pictures."""
    shape = configs["align_connector"] if config.fresh is None else as_align(config)
    batch = config.loop.batch_size
    pictures = batch * max(1, config.pack // shape.latents)
    tower, width, count = vision_load(shapes, pictures, trained=False)
    yield replace(tower, run=rest) if config.cache_features else tower
    yield _perceiver(shapes, shape, pictures, width, count)
    context = {**shapes, "positions": config.pack or config.context}
    yield adapted_load(context, batch, config.lora, config.loop.checkpointing)


def _perceiver(shapes: dict[str, Any], config: Any, batch: int, width: int, count: int) -> Load:
    """The connector of `align_connector`; where it spells, its positions are scored."""
    tower: Any = _Wide(width)
    made = PerceiverConnector(connector_shape(shapes["thinker"], tower, config, 0))
    if made.symbol_table is not None:
        made.symbol_table.requires_grad_(False)
    patches = torch.randn(batch, count, width)

    def run() -> Tensor:
        x = made(patches)
        return x if made.symbol_table is None else made.scores(x)

    return Load(name="image_connector", module=made, run=run, tokens=config.latents)


def _instruct_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    batch = config.loop.batch_size
    tower, width, count = vision_load(shapes, batch, trained=False)
    yield tower
    ears = audio_load(configs, shapes, batch, trained=False)
    yield ears
    thinker = thinker_load(shapes, batch, trained=True, checkpointing=config.loop.checkpointing)
    assert isinstance(thinker.module, Thinker)
    thinker.module.token_table.weight.requires_grad_(False)
    yield thinker
    if "align_connector" in configs:
        eyes = _perceiver(shapes, configs["align_connector"], batch, width, count)
        if not config.perceiver_rate:
            freeze(eyes.module)
            eyes = replace(eyes, trained=False, through=False)
        yield eyes
    else:
        yield _linear_eyes(shapes, config, batch, width, count)
    yield _linear_ears(shapes, config, batch, ears)
    if config.hold_weight:
        yield thinker_load(shapes, batch, trained=False, name="before", answers=False)


def _linear_eyes(shapes: dict[str, Any], config: Any, batch: int, width: int, count: int) -> Load:
    made = LinearConnector(
        LinearConnectorConfig(
            source_width=width,
            target_width=shapes["thinker"].width,
            side=config.image_side,
            places=config.image_places,
        )
    )
    seen = VisionFeatures(torch.randn(batch, width), torch.randn(batch, count, width))
    return Load(
        name="image_connector",
        module=made,
        run=lambda: made.picture(seen),
        tokens=made.config.positions,
    )


def _linear_ears(shapes: dict[str, Any], config: Any, batch: int, ears: Load) -> Load:
    """Both its paths at every frame; only which frame stands where is left out."""
    assert isinstance(ears.module, AudioTower)
    heard = ears.module.config
    made = LinearConnector(
        LinearConnectorConfig(
            source_width=heard.width,
            target_width=shapes["thinker"].width,
            symbols=heard.symbols + 1 if config.spell else 0,
        )
    )
    if config.warm_start_items and made.spell is not None:
        freeze(made.spell)
    features = torch.randn(batch, ears.tokens, heard.width)

    def run() -> Tensor:
        x = made(features)
        if made.spell is None or made.symbol_table is None:
            return x
        return x + made.spell(features).float().softmax(-1) @ made.symbol_table

    return Load(name="audio_connector", module=made, run=run, tokens=ears.tokens)


@dataclass(frozen=True)
class _Wide:
    """All that a connector's shape asks of a tower's config."""

    width: int


LOADS: dict[type, Callable[..., Iterator[Load]]] = {
    PretrainTextConfig: _text_loads,
    TrainAudioEncoderConfig: _audio_loads,
    TrainVisionEncoderConfig: _vision_loads,
    TrainCodecsConfig: _codec_loads,
    TrainImageCodecConfig: _picture_codec_loads,
    TrainTalkerConfig: _talker_loads,
    AlignConnectorConfig: _align_loads,
    InstructConfig: _instruct_loads,
    InstructLoraConfig: _lora_loads,
    TrainRowsConfig: token_loads,
    PretrainTokensConfig: token_loads,
}
"""By config, for two stages are called `instruct`."""
