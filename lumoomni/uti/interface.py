"""The unified token interface: text, pictures and sound to ids of one space, and back.

Knows: a token space, the text codec and the media codecs that it names, and the grammar.
Does not know: any model, or how a folder of them is laid out (uti/folder.py does).
Costs: the codecs' own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lumoomni.codecs.facts import CodecFacts, Coded, Kind, MediaCodec
from lumoomni.codecs.text import TextCodec
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio, load_audio
from lumoomni.media.image import load_image
from lumoomni.uti.folder import open_folder
from lumoomni.uti.grammar import END, START, Grammar
from lumoomni.uti.space import TokenSpace, flatten, unflatten

Segment = str | Audio | np.ndarray
"""Text, sound, or a picture uint8 [H, W, 3]."""


@dataclass(frozen=True)
class TokenSpan:
    """A segment's kind, its ids int64 [T] without markers, and what else is known of it.

    `meta` is JSON-safe. `meta["side"]` is the codec's side data, which decoding may need. The rest
    only describes: `frames`, `seconds` and `samples` of sound (which is cut to as many samples when
    it is decoded), `size` [height, width] of the picture as it came.
    """

    kind: str
    ids: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)


class UTI:
    """`encode` and `decode` segments; `pack` and `unpack` whole sequences of them.

    Raises InputError when a codec is not the one that the space names.
    """

    def __init__(
        self, space: TokenSpace, text_codec: TextCodec, codecs: dict[Kind, MediaCodec]
    ) -> None:
        if text_codec.hash != space.tokenizer:
            raise InputError(
                f"the token space was made for tokenizer {space.tokenizer[:12]}..., but this is "
                f"{text_codec.hash[:12]}...; use the same one"
            )
        for facts in space.codecs:
            given = codecs.get(facts.kind)
            if given is None:
                raise InputError(f"the token space names {facts.name}, but no such codec is loaded")
            if given.facts != facts:
                raise InputError(
                    f"the token space was made for {facts.name} with weights "
                    f"{facts.weights[:12]}..., but {given.facts.name} with weights "
                    f"{given.facts.weights[:12]}... is loaded; ids would mean other things"
                )
        self.space, self.text_codec, self.codecs = space, text_codec, codecs
        self.grammar = Grammar(space)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu", unproven: bool = False) -> "UTI":
        """Open a folder that `lumo tokens build` made; its codecs work on `device` (cpu, cuda, mps
        or auto). Another device rounds otherwise: near a border between two codes it may take the
        other one, so shards are made on the CPU.

        Raises InputError for a device that is not here, and for anything missing, changed, or,
        without `unproven`, audited as not fit.
        """
        stored = open_folder(Path(folder), device=device, unproven=unproven)
        return cls(stored.space, stored.text_codec, stored.codecs)

    def encode(self, segment: Segment) -> TokenSpan:
        """A segment's ids. Text that spells a special symbol is plain text.

        Raises InputError for a kind that the space has no codec for, and for media that hold
        nothing.
        """
        return self.encode_batch([segment])[0]

    def encode_batch(self, segments: Sequence[Segment]) -> list[TokenSpan]:
        """The same as `encode` of each, to the bit, with the codecs working on many at once."""
        spans: dict[int, TokenSpan] = {}
        for kind in ("audio", "image"):
            places = [i for i, one in enumerate(segments) if kind_of(one) == kind]
            if places:
                made = self._encode_media(kind, [segments[i] for i in places])
                spans.update(zip(places, made, strict=True))
        for place, segment in enumerate(segments):
            if isinstance(segment, str):
                ids = np.asarray(self.text_codec.encode(segment), dtype=np.int64)
                spans[place] = TokenSpan("text", ids)
        return [spans[place] for place in range(len(segments))]

    def decode(self, span: TokenSpan) -> Segment:
        """What a span says. Raises InputError for ids that are not of its kind, and without side
        data that the codec needs."""
        if span.kind == "text":
            text = self.space.named("TEXT")
            wrong = [int(i) for i in span.ids if int(i) not in text]
            if wrong:
                raise InputError(f"id {wrong[0]} is no text, which ends at {text.end}")
            return self.text_codec.decode(span.ids.tolist())
        kind: Kind = "audio" if span.kind == "audio" else "image"
        try:
            codes = unflatten(span.ids, self.space.books(kind))
        except ValueError as error:
            raise InputError(f"these ids are no {kind}: {error}") from error
        made = self._codec(kind).decode(Coded(codes, span.meta.get("side", {})))
        if isinstance(made, Audio) and "samples" in span.meta:
            # The last frame is filled up: what was added is not part of the sound.
            return replace(made, samples=made.samples[: span.meta["samples"]])
        return made

    def pack(self, segments: Sequence[Segment]) -> np.ndarray:
        """Ids int64 of segments one after the other, each between its markers."""
        return self.join(self.encode_batch(segments))

    def join(self, spans: Sequence[TokenSpan]) -> np.ndarray:
        """Ids int64 of spans one after the other, each between its markers."""
        ids: list[int] = []
        for span in spans:
            ids.append(self.space.special(START[span.kind]))
            ids += span.ids.tolist()
            ids.append(self.space.special(END[span.kind]))
        return np.asarray(ids, dtype=np.int64)

    def unpack(
        self, ids: Sequence[int] | np.ndarray, meta: Sequence[dict[str, Any]] | None = None
    ) -> list[TokenSpan]:
        """The segments of a sequence; ids between segments are left out.

        `meta` is that of each segment, if it was kept. Raises InputError naming the first place
        that the grammar does not allow, and for meta of another number of segments.
        """
        ids = [int(token) for token in ids]
        problem = self.grammar.check(ids)
        if problem:
            raise InputError(problem)
        starts = {self.space.special(START[kind]): kind for kind in START}
        found, begin = [], -1
        for place, token in enumerate(ids):
            if token in starts:
                begin, kind = place, starts[token]
            elif begin >= 0 and token == self.space.special(END[kind]):
                span = np.asarray(ids[begin + 1 : place], dtype=np.int64)
                found.append(TokenSpan(kind, span))
                begin = -1
        if meta is None:
            return found
        if len(meta) != len(found):
            raise InputError(f"there are {len(found)} segments, but meta of {len(meta)}")
        return [replace(span, meta=dict(one)) for span, one in zip(found, meta, strict=True)]

    def _encode_media(self, kind: Kind, media: Sequence[Any]) -> list[TokenSpan]:
        codec, books = self._codec(kind), self.space.books(kind)
        if kind == "image":
            pictures = [load_image(one) for one in media]
            return [
                _span(kind, flatten(made.codes, books), made, {"size": list(picture.shape[:2])})
                for picture, made in zip(pictures, codec.encode_batch(pictures), strict=True)
            ]
        sounds = [samples_for(one, codec.facts) for one in media]
        spans = []
        for samples, made in zip(sounds, codec.encode_batch(sounds), strict=True):
            facts = {
                "frames": len(made.codes),
                "seconds": samples.shape[-1] / codec.facts.sample_rate,
                "samples": samples.shape[-1],
            }
            spans.append(_span(kind, flatten(made.codes, books), made, facts))
        return spans

    def _codec(self, kind: Kind) -> MediaCodec:
        self.space.codec(kind)  # names what is missing
        return self.codecs[kind]


def kind_of(segment: Segment) -> str:
    """`text`, `audio` or `image`."""
    if isinstance(segment, str):
        return "text"
    return "audio" if isinstance(segment, Audio) else "image"


def samples_for(audio: Audio, facts: CodecFacts) -> np.ndarray:
    """float32 [S] at the codec's rate; [2, S] for a codec of two channels.

    Sound of one channel goes to both. Two channels are samples [S, 2], as stereo codecs give them.
    """
    if facts.channels == 1:
        return load_audio(audio, facts.sample_rate).samples
    sides = [audio.samples] * 2 if audio.samples.ndim == 1 else list(audio.samples.T)
    return np.stack([load_audio((one, audio.rate), facts.sample_rate).samples for one in sides])


def _span(kind: str, ids: np.ndarray, made: Coded, facts: dict[str, Any]) -> TokenSpan:
    return TokenSpan(kind, ids, {**facts, "side": made.side} if made.side else facts)
