"""The stages of the spine, wired: which runs after which. Recipes give the configs."""

from lumoomni.pipeline import Stage
from lumoomni.stages import (
    align_connector,
    instruct,
    pretrain_text,
    sweep_connector,
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
    align_connector: align_connector.AlignConnectorConfig | None = None,
    sweep_connector: sweep_connector.SweepConnectorConfig | None = None,
) -> tuple[Stage, ...]:
    """A to E in order; with `align_connector`, pictures come through its perceiver.

    `sweep_connector` comes last: nothing is built on it.
    """
    configs = {
        "pretrain_text": pretrain_text,
        "train_audio_encoder": train_audio_encoder,
        "train_vision_encoder": train_vision_encoder,
        "train_codecs": train_codecs,
        "train_talker": train_talker,
        "align_connector": align_connector,
        "instruct": instruct,
        "sweep_connector": sweep_connector,
    }
    there = [name for name in MODULES if configs[name] is not None]
    return tuple(
        Stage(
            name=name,
            config=configs[name],
            parents=tuple(parent for parent in PARENTS[name] if parent in there),
            run=MODULES[name].run,
            checks=MODULES[name].checks,
        )
        for name in there
    )


MODULES = {
    "pretrain_text": pretrain_text,
    "train_audio_encoder": train_audio_encoder,
    "train_vision_encoder": train_vision_encoder,
    "train_codecs": train_codecs,
    "train_talker": train_talker,
    "align_connector": align_connector,
    "instruct": instruct,
    "sweep_connector": sweep_connector,
}
PARENTS: dict[str, tuple[str, ...]] = {
    "pretrain_text": (),
    "train_audio_encoder": ("pretrain_text",),
    "train_vision_encoder": ("pretrain_text",),
    "train_codecs": ("pretrain_text", "train_audio_encoder"),
    "train_talker": ("pretrain_text", "train_audio_encoder", "train_codecs"),
    "align_connector": ("pretrain_text", "train_vision_encoder"),
    "sweep_connector": ("pretrain_text", "train_vision_encoder"),
    "instruct": (
        "pretrain_text",
        "train_audio_encoder",
        "train_vision_encoder",
        "train_codecs",
        "train_talker",
        "align_connector",
    ),
}
