"""A tiny untrained model, saved as the artifacts that the stages would leave."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lumoomni.artifacts import ArtifactWriter
from lumoomni.codecs.speech_rvq import SpeechCodec, SpeechCodecConfig
from lumoomni.codecs.text import TextCodec
from lumoomni.gates import Check, Report, exact, judge
from lumoomni.infer.assemble import ModelSettings, save_part, save_settings
from lumoomni.media.mel import MelConfig
from lumoomni.model.audio import AudioTower, AudioTowerConfig
from lumoomni.model.connector import LinearConnector, LinearConnectorConfig
from lumoomni.model.encoder import EncoderConfig
from lumoomni.model.talker import Talker, TalkerConfig
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.model.vision import VisionTower, VisionTowerConfig

MEL = MelConfig()
LINES = [
    "a large red circle above a small blue square",
    "what colour is the circle? it is red",
    "how many shapes are there? there are two",
] * 20
STAGES = (
    "pretrain_text",
    "train_audio_encoder",
    "train_vision_encoder",
    "train_codecs",
    "train_talker",
    "instruct",
)


@dataclass(frozen=True)
class TinyConfig:
    name: str


def text_codec() -> TextCodec:
    return TextCodec.train(LINES, 320)


def modules(codec: TextCodec) -> dict[str, nn.Module]:
    """Every part, with random weights and filled codebooks."""
    torch.manual_seed(0)
    encoder = EncoderConfig(width=32, layers=1, heads=2, ffn_width=48)
    speech = SpeechCodec(
        SpeechCodecConfig(n_mels=80, stride=4, width=24, code_width=8, codebook_size=16, depth=1)
    )
    speech.quantiser.codebooks.normal_()
    return {
        "thinker": Thinker(
            ThinkerConfig(
                vocab_size=codec.vocab_size,
                width=32,
                layers=2,
                heads=2,
                kv_heads=1,
                head_width=16,
                ffn_width=48,
                max_positions=512,
            )
        ),
        "audio": AudioTower(
            AudioTowerConfig(n_mels=80, channels=8, encoder=encoder, symbols=codec.vocab_size)
        ),
        "vision": VisionTower(VisionTowerConfig(image_size=32, patch=8, encoder=encoder)),
        "image_connector": LinearConnector(
            LinearConnectorConfig(source_width=32, target_width=32, side=2)
        ),
        "audio_connector": LinearConnector(LinearConnectorConfig(source_width=32, target_width=32)),
        "talker": Talker(
            TalkerConfig(
                source_width=32,
                width=32,
                layers=2,
                heads=2,
                kv_heads=1,
                head_width=16,
                ffn_width=48,
                codebook_size=16,
                max_progress=6,
                max_frames=256,
            )
        ),
        "speech_codec": speech,
    }


OWNERS = {
    "pretrain_text": ("thinker",),
    "train_audio_encoder": ("audio",),
    "train_vision_encoder": ("vision",),
    "train_codecs": ("speech_codec",),
    "train_talker": ("talker",),
    "instruct": ("thinker", "image_connector", "audio_connector"),
}


def write_model(out: Path, *, until: str = "instruct") -> Path:
    """A build directory with a tiny model in it."""
    codec = text_codec()
    parts = modules(codec)
    parents: dict[str, str] = {}
    report = Report(metrics={"m": exact(1.0)})
    checks = (Check(metric="m", op=">=", threshold=1.0, why=""),)
    for stage in STAGES[: STAGES.index(until) + 1]:
        with ArtifactWriter(out / stage) as writer:
            for name in OWNERS[stage]:
                save_part(writer.folder, name, parts[name])
            if stage == "pretrain_text":
                codec.save(writer.folder / "tokenizer.json")
                save_settings(writer.folder, ModelSettings(mel=MEL, context_tokens=200))
            artifact = writer.commit(
                kind=stage,
                config=TinyConfig(stage),
                parents=parents,
                seed=0,
                report=report,
                checks=checks,
                verdict=judge(report, checks),
            )
        parents = {**parents, stage: artifact.hash}
    recipe = {"schema": 1, "recipe": "tiny", "seed": 0, "stages": {name: {} for name in STAGES}}
    (out / "recipe.json").write_text(json.dumps(recipe))
    return out
