"""The unified token interface: text, pictures and sound to ids of one space, and back.

Knows: a token space, the text codec and the media codecs that it names, and the grammar.
Does not know: where they are stored, or any model. Costs: the codecs' own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lumoomni.codecs.facts import CodecFacts, Kind
from lumoomni.codecs.text import TextCodec
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio, load_audio
from lumoomni.uti.grammar import END, START, Grammar
from lumoomni.uti.space import TokenSpace, flatten, unflatten

Segment = str | Audio | np.ndarray
"""Text, sound, or a picture uint8 [H, W, 3]."""


class MediaCodec(Protocol):
    """Media to codes int [F, Q] (a picture's [N, 1]) and back; the same codes every time."""

    facts: CodecFacts

    def encode(self, media: Any, /) -> np.ndarray: ...

    def decode(self, codes: np.ndarray, /) -> Any: ...


@dataclass(frozen=True)
class TokenSpan:
    """A segment's kind, its ids int64 [T] without markers, and what decoding needs besides."""

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

    def encode(self, segment: Segment) -> TokenSpan:
        """A segment's ids. Text that spells a special symbol is plain text."""
        if isinstance(segment, str):
            return TokenSpan("text", np.asarray(self.text_codec.encode(segment), dtype=np.int64))
        if isinstance(segment, Audio):
            codec = self._codec("audio")
            codes = codec.encode(load_audio(segment, codec.facts.sample_rate).samples)
            meta = {"frames": len(codes), "seconds": len(codes) / codec.facts.frame_rate}
            return TokenSpan("audio", flatten(codes, self.space.books("audio")), meta)
        codes = self._codec("image").encode(segment)
        meta = {"size": list(np.asarray(segment).shape[:2])}
        return TokenSpan("image", flatten(codes, self.space.books("image")), meta)

    def decode(self, span: TokenSpan) -> Segment:
        """What a span says. Raises InputError for ids that are not of its kind."""
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
        return self._codec(kind).decode(codes)

    def pack(self, segments: Sequence[Segment]) -> np.ndarray:
        """Ids int64 of segments one after the other, each between its markers."""
        ids: list[int] = []
        for segment in segments:
            span = self.encode(segment)
            ids.append(self.space.special(START[span.kind]))
            ids += span.ids.tolist()
            ids.append(self.space.special(END[span.kind]))
        return np.asarray(ids, dtype=np.int64)

    def unpack(self, ids: Sequence[int] | np.ndarray) -> list[TokenSpan]:
        """The segments of a sequence; ids between segments are left out.

        Raises InputError naming the first place that the grammar does not allow.
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
        return found

    def _codec(self, kind: Kind) -> MediaCodec:
        self.space.codec(kind)  # names what is missing
        return self.codecs[kind]
