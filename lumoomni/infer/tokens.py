"""A token space with its codecs in one folder: made from a built model, or from pieces.

Knows: which parts of a model give ids, and the artifact that holds copies of them.
Does not know: what the ids are used for. Costs: the codecs' bytes, copied once.

The folder needs nothing else: tokenizer, codec weights, the mel definition and the space.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lumoomni.artifacts import ArtifactWriter
from lumoomni.codecs.facts import CodecFacts, Kind
from lumoomni.codecs.pretrained import CodecOptions
from lumoomni.codecs.stored import (
    IMAGE,
    SOUND,
    SPEECH,
    image_entry,
    load_codecs,
    pretrained_entry,
    save_entries,
    speech_entry,
)
from lumoomni.codecs.text import TextCodec
from lumoomni.config import read_object
from lumoomni.errors import GateFailure, InputError
from lumoomni.gates import Check, Metric, Report, judge, wilson
from lumoomni.infer.assemble import gather, save_part
from lumoomni.media.audio import Audio
from lumoomni.media.mel import MelConfig
from lumoomni.uti.folder import KIND, TOKENIZER
from lumoomni.uti.interface import UTI, TokenSpan
from lumoomni.uti.space import TokenSpace, new_space
from lumoomni.uti.space_file import save_space

SAYINGS = (
    "a small red circle",
    "What colour is it?",
    " <|im_end|> is plain text\n",
    "数 é e\u0301 🙂",
    "",
)


def build_tokens(model: Path, out: Path, *, unproven: bool = False) -> UTI:
    """The space of a built model's text, picture codec and sound codec, as an artifact at `out`,
    audited. A model without a picture codec gives a space without pictures, and one without a codec
    for all sounds has the Talker's.

    Raises InputError when the model has no speech codec, or when `out` holds something else.
    """
    _refuse_full(out)
    parts = gather(model, unproven=unproven)
    thinker = parts.need("thinker")
    speech = parts.need(SOUND if SOUND in parts.modules else SPEECH)
    with ArtifactWriter(out) as writer:
        entries = save_codecs(writer.folder, parts.modules.get(IMAGE), speech, parts.settings.mel)
        parts.text_codec.save(writer.folder / TOKENIZER)
        size, made = thinker.config.vocab_size, {"from": parts.artifact.hash}
        return _finish(writer, parts.text_codec, size, entries, made)


def save_codecs(
    folder: Path, image: nn.Module | None, speech: nn.Module, mel: MelConfig
) -> dict[Kind, dict[str, Any]]:
    """Our codecs as parts in a folder, and their entries; pictures come first where there are."""
    entries: dict[Kind, dict[str, Any]] = {}
    if image is not None:
        save_part(folder, IMAGE, image)
        entries["image"] = image_entry()
    save_part(folder, SPEECH, speech)
    entries["audio"] = speech_entry(mel)
    return entries


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """What a space is made of without a model of ours.

    `text` is a tokenizer.json or a folder with one. `text_size` is the base model's table; 0 takes
    `vocab_size` of the folder's config.json, which counts the padding rows too. `image` and `audio`
    are folders or hub ids of codecs, or empty.
    """

    text: Path
    text_size: int = 0
    image: str = ""
    audio: str = ""
    image_options: CodecOptions = field(default_factory=CodecOptions)
    audio_options: CodecOptions = field(default_factory=CodecOptions)


def build_from(pieces: Pieces, out: Path) -> UTI:
    """A space of a base model's text and published codecs, whose files are copied, audited.

    Raises InputError for a table smaller than its tokenizer, for what is no such codec, and when
    `out` holds something else.
    """
    _refuse_full(out)
    path = pieces.text / TOKENIZER if pieces.text.is_dir() else pieces.text
    text_codec = TextCodec.load(path)
    size = pieces.text_size or _table(path.parent)
    if size < text_codec.vocab_size:
        raise InputError(
            f"{path} has {text_codec.vocab_size:,} ids, but the text table is to have {size:,} "
            "rows; give the base model's, padding rows and all, with --text-size"
        )
    sources: dict[Kind, tuple[str, CodecOptions]] = {
        "image": (pieces.image, pieces.image_options),
        "audio": (pieces.audio, pieces.audio_options),
    }
    entries: dict[Kind, dict[str, Any]] = {}
    with ArtifactWriter(out) as writer:
        for kind, (source, options) in sources.items():
            if source:
                entries[kind] = pretrained_entry(writer.folder, kind, source, options)
        text_codec.save(writer.folder / TOKENIZER)
        made = {"text": str(pieces.text), "image": pieces.image, "audio": pieces.audio}
        return _finish(writer, text_codec, size, entries, made)


def _table(folder: Path) -> int:
    """Rows of the base model's text table, by its config.json."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(
            f"there is no {path}, so the base model's table is unknown; give its rows with "
            "--text-size"
        )
    config = read_object(path)
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    if not isinstance(size, int):
        raise InputError(f"{path} names no vocab_size; give the table's rows with --text-size")
    return size


def load_tokens(folder: Path) -> UTI:
    """Open it. Raises InputError for anything changed, or audited as not fit."""
    return UTI.load(folder)


def _refuse_full(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty; give a new folder for the token space")


def _finish(
    writer: ArtifactWriter,
    text_codec: TextCodec,
    text_size: int,
    entries: dict[Kind, dict[str, Any]],
    made: dict[str, Any],
) -> UTI:
    """The space over what lies in the writer's folder, opened as users will, audited, committed.

    Raises GateFailure for a space that is not fit, and leaves none.
    """
    uti = write_space(writer.folder, text_codec, text_size, entries, made)
    report, wanted = Report(metrics=audit(uti)), checks(uti.space)
    verdict = judge(report, wanted)
    if not verdict.passed:
        raise GateFailure("; ".join(verdict.failures()))
    writer.commit(
        kind=KIND,
        config=entries,
        parents={},
        seed=0,
        report=report,
        checks=wanted,
        verdict=verdict,
        abi=uti.space.abi,
    )
    return uti


def write_space(
    folder: Path,
    text_codec: TextCodec,
    text_size: int,
    entries: dict[Kind, dict[str, Any]],
    made: dict[str, Any],
) -> UTI:
    """`codecs.json` and the space over the codecs that lie in a folder, opened from there."""
    save_entries(folder, entries)
    codecs = load_codecs(folder)
    space = new_space(text_size, text_codec.hash, [codecs[kind].facts for kind in entries])
    save_space(folder, space, made)
    return UTI(space, text_codec, codecs)


def audit(uti: UTI) -> dict[str, Metric]:
    """Text comes back; media give the same codes after any other and in any company; sound decodes
    whole, or as a picture of the codec's size."""
    text = [uti.decode(uti.encode(said)) == uti.text_codec.composed(said) for said in SAYINGS]
    found = {"tokens.text_back": wilson(sum(text), len(text))}
    for codec in uti.space.codecs:
        what = NAMES[codec.kind]
        media = [MADE[codec.kind](seed, codec) for seed in range(CLIPS)]
        spans = [uti.encode(one) for one in media]
        again = uti.encode_batch(media[::-1])[::-1]
        same = [np.array_equal(a.ids, b.ids) for a, b in zip(spans, again, strict=True)]
        found[f"tokens.{what}_same"] = wilson(sum(same), len(same))
        if uti.codecs[codec.kind].facts.decodes:
            whole = [_whole(uti, one, span) for one, span in zip(media, spans, strict=True)]
            found[f"tokens.{what}_whole"] = wilson(sum(whole), len(whole))
    return found


def _whole(uti: UTI, given: Audio | np.ndarray, span: TokenSpan) -> bool:
    """Whether a span that went through a sequence decodes as long, or as large, as it must."""
    back = uti.decode(replace(span, ids=uti.unpack(uti.join([span]))[0].ids))
    if isinstance(given, Audio):
        # A codec may leave out the rest of its last frame.
        return isinstance(back, Audio) and abs(back.seconds - given.seconds) < 0.1
    size = uti.space.codec("image").image_size
    return isinstance(back, np.ndarray) and back.shape == (size, size, 3)


def _tones(seed: int, codec: CodecFacts) -> Audio:
    """Half a second to a second of tones and noise."""
    stream, rate = np.random.default_rng(seed), codec.sample_rate
    count = int(rate * stream.uniform(0.5, 1.0))
    time = np.arange(count) / rate
    wave = sum(0.1 * np.sin(2 * np.pi * f * time) for f in stream.uniform(100, 3000, 4))
    return Audio((wave + 0.02 * stream.standard_normal(count)).astype(np.float32), rate)


def _patches(seed: int, codec: CodecFacts) -> np.ndarray:
    """A picture of 4 x 4 patches of colour and a little noise."""
    stream = np.random.default_rng(seed)
    patches = stream.integers(0, 256, (4, 4, 3)).repeat(16, 0).repeat(16, 1)
    return (patches + stream.integers(-8, 9, patches.shape)).clip(0, 255).astype(np.uint8)


CLIPS = 8
NAMES = {"image": "picture", "audio": "speech"}
MADE: dict[Kind, Callable[[int, CodecFacts], Any]] = {"image": _patches, "audio": _tones}
WHY = {
    "tokens.text_back": "text must come back from its ids to the letter",
    "tokens.picture_same": "a picture must have the same ids every time, in any company",
    "tokens.picture_whole": "a decoded picture must have the codec's size",
    "tokens.speech_same": "a clip must have the same ids every time, in any company",
    "tokens.speech_whole": "decoded sound must be as long as it was",
}


def checks(space: TokenSpace) -> tuple[Check, ...]:
    """What a space's audit must reach, for the kinds that it has."""
    names = ["tokens.text_back"]
    for codec in space.codecs:
        names.append(f"tokens.{NAMES[codec.kind]}_same")
        names += [f"tokens.{NAMES[codec.kind]}_whole"] if codec.decodes else []
    return tuple(Check(metric=name, op=">=", threshold=1.0, why=WHY[name]) for name in names)
