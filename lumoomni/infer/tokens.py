"""A token space with its codecs in one folder: made from a built model, and opened again.

Knows: which parts of a model give ids, and the artifact that holds copies of them.
Does not know: what the ids are used for. Costs: the codecs' bytes, copied once.

The folder needs nothing else: tokenizer, codec weights, the mel definition and the space.
"""

from pathlib import Path

import numpy as np

from lumoomni.artifacts import Artifact, ArtifactWriter, hash_file, open_artifact
from lumoomni.codecs.facts import Kind
from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.codecs.speech_tokens import SpeechTokens
from lumoomni.codecs.text import TextCodec
from lumoomni.errors import InputError
from lumoomni.gates import Check, Metric, Report, judge, wilson
from lumoomni.infer.assemble import (
    SETTINGS,
    TOKENIZER,
    checked,
    gather,
    load_part,
    load_settings,
    save_part,
    save_settings,
)
from lumoomni.media.audio import Audio
from lumoomni.uti.interface import UTI, MediaCodec
from lumoomni.uti.space import new_space
from lumoomni.uti.space_file import FILE, load_space, save_space

KIND = "token_space"
CODEC = "speech_codec"
SAYINGS = ("a small red circle", "What colour is it?", " <|im_end|> is plain text\n", "数 é 🙂", "")


def build_tokens(model: Path, out: Path, *, unproven: bool = False) -> UTI:
    """The space of a built model's text and speech codec, as an artifact at `out`, audited.

    Raises InputError when the model has no speech codec, or when `out` holds something else.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; give a new folder for the token space")
    parts = gather(model, unproven=unproven)
    thinker, codec = parts.need("thinker"), parts.need(CODEC)
    with ArtifactWriter(out) as writer:
        save_part(writer.folder, CODEC, codec)
        save_settings(writer.folder, parts.settings)
        parts.text_codec.save(writer.folder / TOKENIZER)
        speech = SpeechTokens(
            codec, parts.settings.mel, hash_file(writer.folder / f"{CODEC}.safetensors")
        )
        space = new_space(thinker.config.vocab_size, parts.text_codec.hash, (speech.facts,))
        save_space(writer.folder, space, {"from": parts.artifact.hash})
        uti = UTI(space, parts.text_codec, {"audio": speech})
        report = Report(metrics=audit(uti))
        writer.commit(
            kind=KIND,
            config=parts.settings,
            parents={},
            seed=0,
            report=report,
            checks=CHECKS,
            verdict=judge(report, CHECKS),
        )
    return uti


def load_tokens(folder: Path) -> UTI:
    """Open it. Raises InputError for anything changed, or audited as not fit."""
    artifact = open_artifact(folder)
    if artifact.kind != KIND:
        raise InputError(
            f"{folder} is a {artifact.kind}, not a token space; see `lumo tokens build`"
        )
    if not artifact.passed:
        raise InputError(f"{folder} did not pass its audit; look at `lumo status`, build it anew")
    checked(artifact, FILE)
    text = TextCodec.load(checked(artifact, TOKENIZER))
    codecs: dict[Kind, MediaCodec] = {"audio": _speech(artifact)}
    return UTI(load_space(folder), text, codecs)


def _speech(artifact: Artifact) -> SpeechTokens:
    codec = load_part(artifact, CODEC)
    assert isinstance(codec, SpeechCodec)
    checked(artifact, SETTINGS)
    weights = hash_file(artifact.file(f"{CODEC}.safetensors"))
    return SpeechTokens(codec, load_settings(artifact).mel, weights)


def audit(uti: UTI) -> dict[str, Metric]:
    """Text comes back; sound gives the same codes after any other sound, and decodes whole."""
    text = [uti.decode(uti.encode(said)) == said for said in SAYINGS]
    rate = uti.codecs["audio"].facts.sample_rate
    clips = [_tones(seed, rate) for seed in range(8)]
    first = [uti.encode(clip).ids for clip in clips]
    again = [uti.encode(clip).ids for clip in reversed(clips)][::-1]
    same = [np.array_equal(a, b) for a, b in zip(first, again, strict=True)]
    whole = []
    for clip in clips:
        back = uti.decode(uti.unpack(uti.pack([clip]))[0])
        assert isinstance(back, Audio)
        # The last frame is filled up, and windows reach a little over the end.
        whole.append(abs(back.seconds - clip.seconds) < 0.1)
    return {
        "tokens.text_back": wilson(sum(text), len(text)),
        "tokens.speech_same": wilson(sum(same), len(same)),
        "tokens.speech_whole": wilson(sum(whole), len(whole)),
    }


def _tones(seed: int, rate: int) -> Audio:
    """Half a second to a second of tones and noise."""
    stream = np.random.default_rng(seed)
    count = int(rate * stream.uniform(0.5, 1.0))
    time = np.arange(count) / rate
    wave = sum(0.1 * np.sin(2 * np.pi * f * time) for f in stream.uniform(100, 3000, 4))
    return Audio((wave + 0.02 * stream.standard_normal(count)).astype(np.float32), rate)


CHECKS = tuple(
    Check(metric=name, op=">=", threshold=1.0, why=why)
    for name, why in (
        ("tokens.text_back", "text must come back from its ids to the letter"),
        ("tokens.speech_same", "a clip must have the same ids every time, in any company"),
        ("tokens.speech_whole", "decoded sound must be as long as it was"),
    )
)
