"""Recipe `muomni`: the 25.65 M-parameter model of the seed, for one 12 GB GPU or a patient CPU.

Sizes are the seed's (`lumo params muomni` shows each beside it). Data is the micro-world by
default; real data by the same command, for example train_audio_encoder.data=librispeech:/data.
"""

from lumoomni.codecs.speech_rvq import SpeechCodecConfig
from lumoomni.data.mixture import InstructMixture
from lumoomni.media.mel import MelConfig
from lumoomni.model.audio import AudioTowerConfig
from lumoomni.model.encoder import EncoderConfig
from lumoomni.model.talker import TalkerConfig
from lumoomni.model.thinker import ThinkerConfig
from lumoomni.model.vision import VisionTowerConfig
from lumoomni.pipeline import Recipe
from lumoomni.recipes.stages import stages
from lumoomni.stages.instruct import InstructConfig
from lumoomni.stages.pretrain_text import PretrainTextConfig
from lumoomni.stages.train_audio_encoder import TrainAudioEncoderConfig
from lumoomni.stages.train_codecs import TrainCodecsConfig
from lumoomni.stages.train_talker import TrainTalkerConfig
from lumoomni.stages.train_vision_encoder import TrainVisionEncoderConfig
from lumoomni.train.contrast import CaptionHeadsConfig
from lumoomni.train.loop import LoopConfig
from lumoomni.train.optim import OptimConfig

MEL = MelConfig(n_mels=128)
WIDTH = 256
VOCABULARY = 32_000
OPTIM = OptimConfig(lr=1e-3, matrix_lr=0.01, warmup=500, schedule="cosine", min_ratio=0.1)


def muomni() -> Recipe:
    """Thinker 20.3 M, AuT-Tiny 2.05 M, ViT-Tiny 0.92 M, Talker 2.3 M, codebooks 49 K."""
    return Recipe(
        name="muomni",
        stages=stages(
            pretrain_text=_pretrain_text(),
            train_audio_encoder=_train_audio_encoder(),
            train_vision_encoder=_train_vision_encoder(),
            train_codecs=_train_codecs(),
            train_talker=_train_talker(),
            instruct=_instruct(),
        ),
    )


def _pretrain_text() -> PretrainTextConfig:
    return PretrainTextConfig(
        tokenizer_lines=100_000,
        thinker=ThinkerConfig(
            vocab_size=VOCABULARY,
            width=WIDTH,
            layers=4,
            heads=4,
            kv_heads=2,
            head_width=64,
            ffn_width=1024,
            short_conv=3,
            tied=False,
        ),
        mel=MEL,
        loop=LoopConfig(steps=20_000, batch_size=64),
        optim=OPTIM,
    )


def _train_audio_encoder() -> TrainAudioEncoderConfig:
    return TrainAudioEncoderConfig(
        audio=AudioTowerConfig(
            n_mels=MEL.n_mels,
            channels=64,
            encoder=EncoderConfig(width=192, layers=4, heads=3, ffn_width=768),
        ),
        loop=LoopConfig(steps=10_000, batch_size=32),
        optim=OPTIM,
    )


def _train_vision_encoder() -> TrainVisionEncoderConfig:
    return TrainVisionEncoderConfig(
        vision=VisionTowerConfig(
            image_size=224,
            patch=16,
            encoder=EncoderConfig(width=128, layers=4, heads=2, ffn_width=512),
        ),
        heads=CaptionHeadsConfig(
            vocab_size=VOCABULARY,
            encoder=EncoderConfig(width=128, layers=2, heads=2, ffn_width=512),
        ),
        loop=LoopConfig(steps=10_000, batch_size=128),
        optim=OPTIM,
    )


def _train_codecs() -> TrainCodecsConfig:
    return TrainCodecsConfig(
        speech=SpeechCodecConfig(n_mels=MEL.n_mels, stride=2, width=192, code_width=192),
        loop=LoopConfig(steps=10_000, batch_size=32),
        optim=OptimConfig(lr=1e-3, warmup=200, schedule="cosine", min_ratio=0.1),
    )


def _train_talker() -> TrainTalkerConfig:
    return TrainTalkerConfig(
        talker=TalkerConfig(
            source_width=WIDTH,
            width=192,
            layers=4,
            heads=3,
            kv_heads=1,
            head_width=64,
            ffn_width=736,
        ),
        loop=LoopConfig(steps=10_000, batch_size=32),
        optim=OPTIM,
    )


def _instruct() -> InstructConfig:
    return InstructConfig(
        # 14 x 14 patches pooled to 7 x 7 through the seed's Linear(128 -> 256); the seed's
        # own single CLS position is image_side=0.
        image_side=7,
        # The seed's connectors are one Linear each; its parameter table is matched row by row.
        image_places=False,
        spell=False,
        mixture=InstructMixture(later=0.2),
        loop=LoopConfig(steps=20_000, batch_size=32, accumulate=2),
        optim=OPTIM,
    )
