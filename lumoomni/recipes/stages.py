"""The stages of the spine, wired: which runs after which. Recipes give the configs."""

from lumoomni.pipeline import Stage
from lumoomni.stages import (
    instruct,
    pretrain_text,
    train_audio_encoder,
    train_codecs,
    train_talker,
    train_vision_encoder,
)


def stages(
    *,
    pretrain_text: pretrain_text.PretrainTextConfig,
    train_audio_encoder: train_audio_encoder.TrainAudioEncoderConfig,
    train_vision_encoder: train_vision_encoder.TrainVisionEncoderConfig,
    train_codecs: train_codecs.TrainCodecsConfig,
    train_talker: train_talker.TrainTalkerConfig,
    instruct: instruct.InstructConfig,
) -> tuple[Stage, ...]:
    """A to E in order."""
    configs = {
        "pretrain_text": pretrain_text,
        "train_audio_encoder": train_audio_encoder,
        "train_vision_encoder": train_vision_encoder,
        "train_codecs": train_codecs,
        "train_talker": train_talker,
        "instruct": instruct,
    }
    return tuple(
        Stage(
            name=name,
            config=configs[name],
            parents=PARENTS[name],
            run=MODULES[name].run,
            checks=MODULES[name].checks,
        )
        for name in MODULES
    )


MODULES = {
    "pretrain_text": pretrain_text,
    "train_audio_encoder": train_audio_encoder,
    "train_vision_encoder": train_vision_encoder,
    "train_codecs": train_codecs,
    "train_talker": train_talker,
    "instruct": instruct,
}
PARENTS: dict[str, tuple[str, ...]] = {
    "pretrain_text": (),
    "train_audio_encoder": ("pretrain_text",),
    "train_vision_encoder": ("pretrain_text",),
    "train_codecs": ("pretrain_text", "train_audio_encoder"),
    "train_talker": ("pretrain_text", "train_audio_encoder", "train_codecs"),
    "instruct": (
        "pretrain_text",
        "train_audio_encoder",
        "train_vision_encoder",
        "train_codecs",
        "train_talker",
    ),
}
