"""From turns to one sequence of ids, labels and feature slots.

Knows: chat templates, where supervision starts and ends, placeholders for continuous features.
Does not know: how features are computed or batches are packed.
Costs: one tokenizer call for each piece of text.

Placeholder ids are negative, so that no vocabulary can collide with them and no text can spell
them. A picture of 3 features and the question "What?" answered "red" (compact template) becomes

    ids     user [vision_start] -1 -1 -1 [vision_end] What ? im_end assistant red im_end
    labels   .        .          .  .  .      .         .  .   .       .      red im_end

where `.` is IGNORE. `labels[t]` is the id at t; the loss does the shifting.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lumoomni.codecs.text import TextCodec
from lumoomni.ids import AUDIO_FRAME, IGNORE, IMAGE_PATCH, NO_NUMBER

PLACEHOLDERS = {"image": IMAGE_PATCH, "audio": AUDIO_FRAME}
MARKERS = {
    "image": ("<|vision_start|>", "<|vision_end|>"),
    "audio": ("<|audio_start|>", "<|audio_end|>"),
}

SILENCE = "<|pad|>"
"""What a connector says where there is nothing to say."""

Role = Literal["system", "user", "assistant"]
MediaKind = Literal["image", "audio"]


@dataclass(frozen=True, kw_only=True)
class Template:
    """How a turn is opened and closed; pieces are special symbols (`<|...|>`) or plain text."""

    opening: dict[str, tuple[str, ...]]
    end: str
    """The symbol that ends every turn; after an answer it is supervised and stops generation."""
    after: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    """What follows the opening of the last answer."""
    answers_alone: bool = False
    """Only the assistant has text and an end: pictures with captions, as LLaVA's first stage."""
    numbered: int = 0
    """Positions of a conversation's second picture carry its number, and so on up to this one,
    which all later pictures carry: what two pictures say is alike, and to tell whose it is by what
    came before is learned late (LOG.md). A number that training never shows would only disturb."""


TEMPLATES: dict[str, Template] = {
    "compact": Template(
        opening={r: (f"<|{r}|>",) for r in ("system", "user", "assistant")},
        end="<|im_end|>",
        numbered=2,
    ),
    "chatml": Template(
        opening={r: ("<|im_start|>", f"{r}\n") for r in ("system", "user", "assistant")},
        end="<|im_end|>",
        after=("\n",),
    ),
    # Qwen3's own with thinking off: an empty thought before the last answer, none before earlier.
    "qwen3": Template(
        opening={r: ("<|im_start|>", f"{r}\n") for r in ("system", "user", "assistant")},
        end="<|im_end|>",
        after=("\n",),
        last=("<think>\n\n</think>\n\n",),
    ),
    "plain": Template(
        opening=dict.fromkeys(("system", "user", "assistant"), ()),
        end="<|endoftext|>",
        answers_alone=True,
    ),
}


@dataclass(frozen=True)
class Slot:
    """Positions [start, stop) that continuous features of one picture or clip will fill."""

    kind: MediaKind
    start: int
    stop: int


@dataclass(frozen=True)
class Span:
    """Positions [start, stop) of one turn's text, without its markers."""

    role: str
    start: int
    stop: int


@dataclass(frozen=True)
class Sequence:
    """ids int64[T] (placeholders negative), labels int64[T], slots and text spans in order.

    numbers int64[T]: the id that says which picture a position belongs to, NO_NUMBER outside
    pictures and in a conversation's first; its embedding is added there (`Thinker.numbered`). None
    where there is no second picture.
    """

    ids: np.ndarray
    labels: np.ndarray
    slots: tuple[Slot, ...]
    spans: tuple[Span, ...]
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class SequenceBuilder:
    """Append turns, then `build`. One builder makes one sequence."""

    text_codec: TextCodec
    template: str = "compact"
    _ids: list[int] = field(default_factory=list)
    _labels: list[int] = field(default_factory=list)
    _slots: list[Slot] = field(default_factory=list)
    _spans: list[Span] = field(default_factory=list)
    _numbers: list[int] = field(default_factory=list)
    _role: str = ""
    _pictures: int = 0

    def __post_init__(self) -> None:
        if self.template not in TEMPLATES:
            raise ValueError(f"unknown template {self.template!r}; use one of {sorted(TEMPLATES)}")

    def open(self, role: Role, *, last: bool = False) -> "SequenceBuilder":
        """Start a turn; its header is never supervised. `last`: no answer comes after this one."""
        self._role = role
        template = TEMPLATES[self.template]
        for piece in template.opening[role] + (template.last if last else ()):
            self._append(self._piece(piece), supervised=False)
        return self

    def text(self, text: str, *, supervised: bool = False) -> "SequenceBuilder":
        """Plain text of the open turn; a template of answers alone leaves other text out."""
        if self._left_out():
            return self
        start = len(self._ids)
        self._append(self.text_codec.encode(text), supervised=supervised)
        self._spans.append(Span(self._role, start, len(self._ids)))
        return self

    def media(self, kind: MediaKind, count: int) -> "SequenceBuilder":
        """Room for `count` features between the kind's two markers."""
        if count < 1:
            raise ValueError(f"{kind} needs at least one feature position, got {count}")
        begin, end = (self.text_codec.special(name) for name in MARKERS[kind])
        self._append([begin], supervised=False)
        start = len(self._ids)
        self._append([PLACEHOLDERS[kind]] * count, supervised=False, number=self._number(kind))
        self._slots.append(Slot(kind, start, start + count))
        self._append([end], supervised=False)
        return self

    def said(self, kind: MediaKind, words: str, positions: int) -> "SequenceBuilder":
        """Words between the kind's two markers, as a connector would say them, then silence.

        Longer words are cut to `positions`.
        """
        begin, end = (self.text_codec.special(name) for name in MARKERS[kind])
        ids = self.text_codec.encode(f" {words}")[:positions]
        silence = [self.text_codec.special(SILENCE)] * (positions - len(ids))
        self._append([begin], supervised=False)
        self._append([*ids, *silence], supervised=False, number=self._number(kind))
        self._append([end], supervised=False)
        return self

    def close(self, *, supervised: bool = False) -> "SequenceBuilder":
        """End the turn; after a supervised answer the end symbol is learned too."""
        if self._left_out():
            return self
        template = TEMPLATES[self.template]
        self._append([self.text_codec.special(template.end)], supervised=supervised)
        for piece in template.after:
            self._append(self._piece(piece), supervised=False)
        return self

    def build(self) -> Sequence:
        """The finished sequence."""
        return Sequence(
            np.asarray(self._ids, dtype=np.int64),
            np.asarray(self._labels, dtype=np.int64),
            tuple(self._slots),
            tuple(self._spans),
            np.asarray(self._numbers, dtype=np.int64) if max(self._numbers) >= 0 else None,
        )

    def _number(self, kind: MediaKind) -> int:
        """The id that the positions of one more picture or clip carry."""
        self._pictures += kind == "image"
        number = min(self._pictures, TEMPLATES[self.template].numbered)
        if kind != "image" or number < 2:
            return NO_NUMBER
        return self.text_codec.encode(str(number))[-1]

    def _left_out(self) -> bool:
        return TEMPLATES[self.template].answers_alone and self._role != "assistant"

    def _piece(self, piece: str) -> list[int]:
        if piece.startswith("<|"):
            return [self.text_codec.special(piece)]
        return self.text_codec.encode(piece)

    def _append(self, ids: list[int], *, supervised: bool, number: int = NO_NUMBER) -> None:
        self._ids += ids
        self._numbers += [number] * len(ids)
        self._labels += ids if supervised else [IGNORE] * len(ids)


def end_id(text_codec: TextCodec, template: str) -> int:
    """The id that ends an answer, where generation stops."""
    return text_codec.special(TEMPLATES[template].end)
