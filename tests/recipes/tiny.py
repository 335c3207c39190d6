"""`nano` so small that planning and measuring it takes a moment."""

from lumoomni.pipeline import Recipe
from lumoomni.recipes import resolve

LOOPS = (
    *("pretrain_text", "train_audio_encoder", "train_vision_encoder", "train_codecs"),
    *("train_talker", "align_connector", "instruct"),
)
TINY = [
    "pretrain_text.thinker.vocab_size=64",
    "pretrain_text.thinker.width=32",
    "pretrain_text.thinker.layers=1",
    "pretrain_text.thinker.kv_heads=1",
    "pretrain_text.thinker.heads=2",
    "pretrain_text.thinker.head_width=16",
    "pretrain_text.thinker.ffn_width=48",
    "pretrain_text.context_tokens=12",
    "train_audio_encoder.audio.channels=4",
    "train_audio_encoder.audio.encoder.width=24",
    "train_audio_encoder.audio.encoder.layers=1",
    "train_audio_encoder.audio.encoder.ffn_width=24",
    "train_talker.talker.layers=1",
    "align_connector.latents=4",
    "align_connector.width=32",
    *(f"{name}.loop.batch_size=2" for name in LOOPS),
]


TOKENS = [
    f"{name}.{setting}"
    for name in ("train_rows", "pretrain_tokens")
    for setting in ("context=20", "loop.batch_size=2")
]
CODECS = [f"{name}.loop.batch_size=2" for name in ("train_image_codec", "train_sound_codec")]


def tiny(*more: str) -> Recipe:
    """All stages of `nano`, two samples at a time."""
    return resolve("nano").override([*TINY, *CODECS, *TOKENS, *more])
