"""A tiny build up to the stages that learn tokens: untrained codecs, a random Thinker."""

from dataclasses import dataclass, replace

import torch

from lumoomni.audits.dataset import DatasetAuditConfig
from lumoomni.audits.making import MakingConfig
from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.data.manifest_builders import ManifestConfig
from lumoomni.data.manifest_world import WorldConfig
from lumoomni.data.token_mixture import TokenMix
from lumoomni.data.world_shards import FreshConfig
from lumoomni.gates import Check, Report, exact
from lumoomni.infer.assemble import ModelSettings, save_part, save_settings
from lumoomni.infer.draw import DrawConfig
from lumoomni.infer.tokens import save_codecs, write_space
from lumoomni.pipeline import Recipe, Stage, StageContext
from lumoomni.stages import pretrain_tokens, tokenize, train_rows, unify
from lumoomni.stages.pretrain_tokens import PretrainTokensConfig
from lumoomni.stages.tokenize import TokenizeConfig
from lumoomni.stages.train_rows import TrainRowsConfig
from lumoomni.stages.unify import UnifyConfig
from lumoomni.train.loop import LoopConfig
from lumoomni.train.optim import OptimConfig
from tests import tiny

PASSED = (Check(metric="m", op=">=", threshold=1.0, why=""),)
EVERY = TokenMix(t2i=2, t2a=1, i2t=1, a2t=1, text=1)
ROWS = TrainRowsConfig(
    mix=EVERY,
    share_digits=True,
    loop=LoopConfig(steps=3, batch_size=6),
    optim=OptimConfig(lr=1e-2, weight_decay=0.0, warmup=2),
    eval_items=20,
)
TOKENS = PretrainTokensConfig(
    mix=EVERY,
    start=TokenMix(t2i=1),
    start_until=0.5,
    share_digits=True,
    fresh=FreshConfig(
        pictures=6,
        asked=0.5,
        sketches=4,
        sounds=4,
        cues=3,
        sentences=2,
        pixels=32,
        rows_per_shard=6,
    ),
    loop=LoopConfig(steps=4, batch_size=6),
    optim=OptimConfig(lr=1e-3, matrix_lr=0.01, warmup=2),
    making=MakingConfig(
        draw=DrawConfig(temperature=1.0, guidance=2.0, tries=2, most=24, watch=True),
        sound=DrawConfig(tries=2, most=24, watch=True),
        pictures=3,
        sounds=3,
        sentences=4,
        longest=24,
    ),
    eval_items=20,
)


@dataclass(frozen=True, kw_only=True)
class NoConfig:
    """What the stages that stand for others are set by."""

    seed: int = 0


def text_stage(context: StageContext) -> Report:
    """What `pretrain_text` leaves."""
    codec = tiny.text_codec()
    codec.save(context.out / "tokenizer.json")
    save_part(context.out, "thinker", tiny.modules(codec)["thinker"])
    save_settings(context.out, ModelSettings(mel=tiny.MEL, context_tokens=200))
    return Report(metrics={"m": exact(1.0)})


def part_stage(context: StageContext) -> Report:
    """The parts that a stage of this name leaves, untrained."""
    parts = tiny.modules(tiny.text_codec())
    for name in tiny.OWNERS[context.name]:
        save_part(context.out, name, parts[name])
    return Report(metrics={"m": exact(1.0)})


def space_stage(context: StageContext) -> Report:
    """What `build_token_space` leaves, of tiny codecs."""
    codec = tiny.text_codec()
    codec.save(context.out / "tokenizer.json")
    speech = tiny.modules(codec)["speech_codec"]
    torch.manual_seed(0)
    image = ImageCodec(
        ImageCodecConfig(
            image_size=32,
            fine_width=8,
            width=16,
            code_width=2,
            levels=(4, 8),
            ink_digits=1,
            codebook_size=32,
            depth=1,
        )
    )
    entries = save_codecs(context.out, image, speech, tiny.MEL)
    write_space(context.out, codec, codec.vocab_size, entries, {"at": None})
    return Report(metrics={"m": exact(1.0)})


def stage(name: str, run, parents: tuple[str, ...] = (), config=None) -> Stage:  # type: ignore[no-untyped-def]
    """A stage that always passes."""
    return Stage(
        name=name,
        config=config or NoConfig(),
        parents=parents,
        run=run,
        checks=lambda config: PASSED,
    )


def recipe(
    rows: TrainRowsConfig = ROWS, tokens: PretrainTokensConfig = TOKENS, *, gated: bool = False
) -> Recipe:
    """All of it; without `gated` whatever is learned passes."""
    shards = TokenizeConfig(
        manifest=ManifestConfig(
            both_ways=True,
            world=WorldConfig(count=12, held=10, pixels=32, sketches=True, cues=True),
        ),
        rows_per_shard=20,
        audit=DatasetAuditConfig(context=512, sample=2, decode=2, batch=8),
    )
    base = ("pretrain_text", "instruct", "build_token_space", "tokenize")
    last = (
        stage("train_rows", train_rows.run, base, rows),
        stage("pretrain_tokens", pretrain_tokens.run, (*base, "train_rows"), tokens),
    )
    if gated:
        gates = (train_rows.checks, pretrain_tokens.checks)
        last = tuple(replace(one, checks=c) for one, c in zip(last, gates, strict=True))
    else:
        held = Check(metric="text.rows_share", op="<=", threshold=1.0, why="")
        last = tuple(replace(one, checks=lambda config: (held,)) for one in last)
    files = Check(metric="dataset.files_whole", op=">=", threshold=1.0, why="")
    return Recipe(
        name="toy",
        stages=(
            stage("pretrain_text", text_stage),
            stage("instruct", part_stage, ("pretrain_text",)),
            stage("build_token_space", space_stage),
            replace(
                stage("tokenize", tokenize.run, ("build_token_space",), shards),
                checks=lambda config: (files,),
            ),
            *last,
        ),
    )


SENSES = ("train_audio_encoder", "train_vision_encoder", "train_codecs", "train_talker")


def unified(config: UnifyConfig) -> Recipe:
    """The same with all that `unify` joins; whatever it learns passes."""
    made = recipe(
        tokens=replace(TOKENS, routed=config.tokens.routed, thinker_rate=config.tokens.thinker_rate)
    )
    senses = tuple(stage(name, part_stage, ("pretrain_text",)) for name in SENSES)
    before = ("pretrain_text", *SENSES, "instruct", "build_token_space", "tokenize")
    last = stage("unify", unify.run, (*before, "pretrain_tokens"), config)
    held = Check(metric="text.rows_share", op="<=", threshold=1.0, why="")
    last = replace(last, checks=lambda config: (held,))
    return replace(made, stages=(made.stages[0], *senses, *made.stages[1:], last))
