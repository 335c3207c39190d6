"""Recipe `nano`: the whole model on a laptop CPU, on the micro-world, in minutes.

Small widths, Muon, pictures of 64 pixels, 25 speech frames a second: LOG.md holds what was measured
on the way, and which gates these settings were seen to pass.
"""

from dataclasses import replace

from lumoomni.audits.dataset import DatasetAuditConfig
from lumoomni.audits.making import MakingConfig
from lumoomni.codecs.image_vq import ImageCodecConfig
from lumoomni.codecs.speech_rvq import SpeechCodecConfig
from lumoomni.data.manifest_builders import ManifestConfig
from lumoomni.data.manifest_world import WorldConfig
from lumoomni.data.mixture import InstructMixture
from lumoomni.data.token_mixture import TokenMix
from lumoomni.data.world_shards import FreshConfig
from lumoomni.infer.draw import PICTURE, SOUND
from lumoomni.media.mel import MelConfig
from lumoomni.model.audio import AudioTowerConfig
from lumoomni.model.encoder import EncoderConfig
from lumoomni.model.talker import TalkerConfig
from lumoomni.model.thinker import ThinkerConfig
from lumoomni.model.vision import VisionTowerConfig
from lumoomni.pipeline import Recipe
from lumoomni.recipes.stages import stages
from lumoomni.stages.align_connector import AlignConnectorConfig
from lumoomni.stages.build_token_space import BuildTokenSpaceConfig
from lumoomni.stages.instruct import InstructConfig
from lumoomni.stages.pretrain_text import PretrainTextConfig
from lumoomni.stages.pretrain_tokens import PretrainTokensConfig
from lumoomni.stages.sweep_connector import SweepConnectorConfig
from lumoomni.stages.tokenize import DatasetLimits, TokenizeConfig
from lumoomni.stages.train_audio_encoder import TrainAudioEncoderConfig
from lumoomni.stages.train_codecs import TrainCodecsConfig
from lumoomni.stages.train_image_codec import TrainImageCodecConfig
from lumoomni.stages.train_rows import TrainRowsConfig
from lumoomni.stages.train_talker import TrainTalkerConfig
from lumoomni.stages.train_vision_encoder import TrainVisionEncoderConfig
from lumoomni.stages.unify import UnifyConfig
from lumoomni.train.contrast import CaptionHeadsConfig
from lumoomni.train.loop import LoopConfig
from lumoomni.train.optim import OptimConfig

MEL = MelConfig(n_mels=80)
WIDTH = 192
LATENTS = 16
BOOKS = 3
FRESH = FreshConfig(
    pictures=24_000,
    asked=0.7,
    sketches=30_000,
    half_told=0.35,
    sounds=4000,
    cues=4000,
    sentences=1000,
)
"""Both stages that learn tokens have the same, so that they are made once."""


def nano() -> Recipe:
    """About 4 M parameters in all."""
    return Recipe(
        name="nano",
        stages=stages(
            pretrain_text=_pretrain_text(),
            train_audio_encoder=_train_audio_encoder(),
            train_vision_encoder=_train_vision_encoder(),
            train_codecs=_train_codecs(),
            train_talker=_train_talker(),
            align_connector=_align_connector(),
            instruct=_instruct(),
            train_image_codec=_train_image_codec(),
            train_sound_codec=_train_sound_codec(),
            build_token_space=BuildTokenSpaceConfig(codebooks=BOOKS),
            tokenize=_tokenize(),
            train_rows=_train_rows(),
            pretrain_tokens=_pretrain_tokens(),
            unify=_unify(),
            sweep_connector=_sweep_connector(),
        ),
        copies={
            "pretrain_text": ("unify.text",),
            "align_connector": ("unify.aligned", "sweep_connector.align"),
            "instruct": ("unify.omni",),
            "pretrain_tokens": ("unify.tokens",),
        },
    )


def _pretrain_text() -> PretrainTextConfig:
    return PretrainTextConfig(
        thinker=ThinkerConfig(
            vocab_size=1024,
            width=WIDTH,
            layers=4,
            heads=6,
            kv_heads=3,
            head_width=32,
            ffn_width=512,
            short_conv=3,
            max_positions=1024,
        ),
        mel=MEL,
        shown=0.5,
        later=0.2,
        heard=0.15,
        sensed_from=0.3,
        shown_positions=LATENTS,
        loop=LoopConfig(steps=2000, batch_size=16, accumulate=2),
        optim=OptimConfig(lr=5e-3, matrix_lr=0.04, warmup=30, decay_from=0.6),
    )


def _train_audio_encoder() -> TrainAudioEncoderConfig:
    return TrainAudioEncoderConfig(
        audio=AudioTowerConfig(
            n_mels=MEL.n_mels,
            channels=32,
            mel_mean=-2.0,
            mel_std=2.5,
            encoder=EncoderConfig(width=144, layers=4, heads=3, ffn_width=432),
        ),
        frame_weight=0.8,
        loop=LoopConfig(steps=2400, batch_size=8, accumulate=2),
        optim=OptimConfig(lr=2e-3, matrix_lr=0.015, warmup=40),
    )


def _train_vision_encoder() -> TrainVisionEncoderConfig:
    return TrainVisionEncoderConfig(
        vision=VisionTowerConfig(
            image_size=64,
            patch=8,
            stem="conv",
            region_words=4,
            encoder=EncoderConfig(width=128, layers=1, heads=4, ffn_width=256),
        ),
        heads=CaptionHeadsConfig(
            vocab_size=1024,
            encoder=EncoderConfig(width=128, layers=1, heads=4, ffn_width=256),
            places_layers=1,
        ),
        words_weight=2.0,
        loop=LoopConfig(steps=700, batch_size=32, accumulate=2),
        optim=OptimConfig(lr=5e-3, matrix_lr=0.02, warmup=30),
    )


def _train_codecs() -> TrainCodecsConfig:
    return TrainCodecsConfig(
        speech=SpeechCodecConfig(n_mels=MEL.n_mels, stride=4, width=128, code_width=32),
        loop=LoopConfig(steps=480, batch_size=16),
        optim=OptimConfig(lr=2e-3, warmup=20),
    )


def _train_sound_codec() -> TrainCodecsConfig:
    codec = _train_codecs()
    speech = replace(codec.speech, codebooks=BOOKS, codebook_size=256)
    loop = replace(codec.loop, steps=3000)
    return replace(codec, part="sound_codec", sounds=0.6, speech=speech, loop=loop)


def _train_image_codec() -> TrainImageCodecConfig:
    return TrainImageCodecConfig(
        codec=ImageCodecConfig(
            image_size=64,
            code_width=5,
            levels=(6, 6, 7, 6, 6),
            codebook_size=9072,
            ink_digits=2,
            depth=3,
        ),
        loop=LoopConfig(steps=3600, batch_size=8, accumulate=2),
        optim=OptimConfig(lr=2e-3, matrix_lr=0.02, warmup=30),
    )


def _train_talker() -> TrainTalkerConfig:
    return TrainTalkerConfig(
        talker=TalkerConfig(
            source_width=WIDTH,
            width=160,
            layers=3,
            heads=5,
            kv_heads=5,
            head_width=32,
            ffn_width=448,
        ),
        loop=LoopConfig(steps=1700, batch_size=8, accumulate=2),
        optim=OptimConfig(lr=2e-3, matrix_lr=0.01, warmup=30),
    )


def _align_connector() -> AlignConnectorConfig:
    return AlignConnectorConfig(
        latents=LATENTS,
        width=128,
        heads=4,
        mlp_ratio=2,
        waves=0.5,
        spell=True,
        readout_weight=1.0,
        thinker_from=1.0,
        length_edges=(7, 11),
        rank_wrong=False,
        tower_batch=32,
        loop=LoopConfig(steps=700, batch_size=32, accumulate=2),
        optim=OptimConfig(lr=2e-3, matrix_lr=0.02, warmup=20),
    )


def _tokenize() -> TokenizeConfig:
    return TokenizeConfig(
        manifest=ManifestConfig(
            both_ways=True, world=WorldConfig(count=300, held=50, sketches=True, cues=True)
        ),
        rows_per_shard=500,
        audit=DatasetAuditConfig(context=512),
        limits=DatasetLimits(min_train=1000, min_eval=100),
    )


def _train_rows() -> TrainRowsConfig:
    return TrainRowsConfig(
        mix=TokenMix(i2t=3, a2t=3, t2i=1, t2a=1, text=2),
        fresh=FRESH,
        share_digits=True,
        text_weight=3.0,
        loop=LoopConfig(steps=400, batch_size=16, accumulate=2),
        optim=OptimConfig(lr=1e-2, weight_decay=0.0, warmup=20),
    )


def _pretrain_tokens() -> PretrainTokensConfig:
    return PretrainTokensConfig(
        mix=TokenMix(t2i=10, t2a=3, i2t=15, a2t=2, text=1),
        fresh=FRESH,
        routed=True,
        thinker_rate=0.0,
        share_digits=True,
        text_weight=8.0,
        rows_rate=0.5,
        loop=LoopConfig(steps=6000, batch_size=16, accumulate=2),
        optim=OptimConfig(lr=5e-3, matrix_lr=0.04, warmup=40),
        making=MakingConfig(draw=replace(PICTURE, watch=True), sound=replace(SOUND, watch=True)),
    )


def _unify() -> UnifyConfig:
    tokens = _pretrain_tokens()
    return UnifyConfig(
        omni=_instruct(),
        tokens=tokens,
        text=_pretrain_text(),
        aligned=_align_connector(),
        train=False,
        loop=LoopConfig(steps=1500, batch_size=16, accumulate=2),
    )


def _sweep_connector() -> SweepConnectorConfig:
    align = _align_connector()
    return SweepConnectorConfig(
        align=replace(align, loop=replace(align.loop, steps=150)), lr=(1e-3, 2e-3, 4e-3)
    )


def _instruct() -> InstructConfig:
    return InstructConfig(
        mixture=InstructMixture(
            caption=0.05,
            look=0.3,
            later=0.2,
            write_down=0.16,
            spoken=0.16,
            spoken_look=0.16,
            text_share=0.26,
            compare=0.12,
            place=0.65,
        ),
        loop=LoopConfig(steps=950, batch_size=16, accumulate=2),
        optim=OptimConfig(lr=1.5e-3, matrix_lr=0.01, warmup=40),
        perceiver_rate=0.0,
    )
