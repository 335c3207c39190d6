"""The stages of the spine, wired: which runs after which. Recipes give the configs."""

from lumoomni.pipeline import Stage
from lumoomni.stages import (
    align_connector,
    build_token_space,
    instruct,
    pretrain_text,
    pretrain_tokens,
    sweep_connector,
    tokenize,
    train_audio_encoder,
    train_codecs,
    train_image_codec,
    train_rows,
    train_talker,
    train_vision_encoder,
    unify,
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
    train_image_codec: train_image_codec.TrainImageCodecConfig | None = None,
    train_sound_codec: train_codecs.TrainCodecsConfig | None = None,
    build_token_space: build_token_space.BuildTokenSpaceConfig | None = None,
    tokenize: tokenize.TokenizeConfig | None = None,
    train_rows: train_rows.TrainRowsConfig | None = None,
    pretrain_tokens: pretrain_tokens.PretrainTokensConfig | None = None,
    unify: unify.UnifyConfig | None = None,
) -> tuple[Stage, ...]:
    """A to E in order; with `align_connector`, pictures come through its perceiver.

    `sweep_connector` and `train_image_codec` come last: no model is built on them, so that a build
    until `instruct` does not wait for them.
    """
    configs = {
        "pretrain_text": pretrain_text,
        "train_audio_encoder": train_audio_encoder,
        "train_vision_encoder": train_vision_encoder,
        "train_codecs": train_codecs,
        "train_talker": train_talker,
        "align_connector": align_connector,
        "instruct": instruct,
        "train_image_codec": train_image_codec,
        "train_sound_codec": train_sound_codec,
        "build_token_space": build_token_space,
        "tokenize": tokenize,
        "train_rows": train_rows,
        "pretrain_tokens": pretrain_tokens,
        "unify": unify,
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
            extras=EXTRAS.get(name, ()),
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
    "train_image_codec": train_image_codec,
    "train_sound_codec": train_codecs,
    "build_token_space": build_token_space,
    "tokenize": tokenize,
    "train_rows": train_rows,
    "pretrain_tokens": pretrain_tokens,
    "unify": unify,
    "sweep_connector": sweep_connector,
}
EXTRAS: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("tokenize", "train_rows", "pretrain_tokens", "unify"), ("data",)
)
"""Shards and their loader."""
PARENTS: dict[str, tuple[str, ...]] = {
    "pretrain_text": (),
    "train_audio_encoder": ("pretrain_text",),
    "train_vision_encoder": ("pretrain_text",),
    "train_codecs": ("pretrain_text", "train_audio_encoder"),
    "train_image_codec": (),
    "train_sound_codec": ("pretrain_text", "train_audio_encoder"),
    "build_token_space": (
        "pretrain_text",
        "train_codecs",
        "train_sound_codec",
        "train_image_codec",
    ),
    "tokenize": ("build_token_space",),
    "train_rows": ("pretrain_text", "instruct", "build_token_space", "tokenize"),
    "pretrain_tokens": (
        "pretrain_text",
        "train_audio_encoder",
        "instruct",
        "build_token_space",
        "tokenize",
        "train_rows",
    ),
    "unify": (
        "pretrain_text",
        "train_audio_encoder",
        "train_vision_encoder",
        "train_codecs",
        "train_talker",
        "align_connector",
        "instruct",
        "build_token_space",
        "tokenize",
        "train_rows",
        "pretrain_tokens",
    ),
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
