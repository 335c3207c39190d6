"""From a tokenized sample to one sequence: hear and write, see and write, read and speak or draw.

Knows: what each task shows and what it asks for, where labels stand, what fits and what is cut.
Does not know: shards, batches or models. Costs: a few numpy calls a part.

Sound written down (`a2t`) of 2 frames of 2 codebooks and the text "a dog" becomes

    ids     aud_start a0 b0 a1 b1 aud_end gen_text text_start a dog text_end
    labels      .     .  .  .  .     .       .     text_start a dog text_end

where `.` is IGNORE. The others are alike; mixtures are lists of parts, any of them a target.
Media are never cut. A text that is asked for and stands last may be cut at its end; its end symbol
stays, so that the sequence is legal, but is not learned: nothing was over there.
"""

from collections.abc import Iterator
from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from lumoomni.codecs.facts import Kind
from lumoomni.config import nearest
from lumoomni.errors import InputError
from lumoomni.ids import IGNORE
from lumoomni.uti.grammar import END, REQUEST, START
from lumoomni.uti.sequence import Sequence, Span
from lumoomni.uti.space import TokenSpace, flatten

PartKind = Literal["text", "image", "audio"]
TASKS: dict[str, tuple[tuple[PartKind, bool], ...]] = {
    "a2t": (("audio", False), ("text", True)),
    "i2t": (("image", False), ("text", True)),
    "t2a": (("text", False), ("audio", True)),
    "t2i": (("text", False), ("image", True)),
    "text": (("text", True),),
}
"""The parts of each task in order, and which of them is asked for and learned."""


class Tokens(Protocol):
    """What a sample of a shard holds: text ids, and codes that count from 0 in each codebook."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> np.ndarray: ...
    @property
    def prompt(self) -> np.ndarray: ...
    @property
    def image(self) -> np.ndarray: ...
    @property
    def audio(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Part:
    """Text ids [T], or LOCAL codes of a picture [N] or of sound [F * Q], frame by frame.

    A `target` is asked for by its request symbol and learned with its two markers.
    """

    kind: PartKind
    codes: np.ndarray
    target: bool = False


class TooLong(InputError):
    """A sequence that does not fit and cannot be cut."""


def parts_of(task: str, sample: Tokens) -> tuple[Part, ...]:
    """A sample's parts for a task; an instruction, if there is one, stands before the text.

    Raises InputError for an unknown task, or a sample without what the task needs.
    """
    parts = []
    for kind, target in needs(task):
        codes = getattr(sample, kind)
        if not len(codes):
            raise InputError(
                f"sample {sample.id} has no {kind}, which task {task} needs; leave it out of this "
                "task"
            )
        if kind == "text" and len(sample.prompt):
            parts.append(Part("text", sample.prompt))
        parts.append(Part(kind, codes, target))
    return tuple(parts)


def needs(task: str) -> tuple[tuple[PartKind, bool], ...]:
    """The parts of a task. Raises InputError for an unknown one."""
    if task not in TASKS:
        raise InputError(f"there is no task {task!r}; {nearest(task, TASKS)}")
    return TASKS[task]


def length_of(task: str, text: Any, prompt: Any, image: Any, audio: Any) -> Any:
    """Ids that a task takes for so many text ids and codes; counts may be arrays of samples."""
    sizes = {"text": text, "image": image, "audio": audio}
    total = (prompt > 0) * (prompt + 2)
    for kind, target in needs(task):
        total = total + sizes[kind] + 2 + int(target)
    return total


def cut_of(task: str, text: Any, length: Any, limit: int) -> Any:
    """Text ids that must go for `length` ids to fit: 0 for whole, -1 where nothing may be cut.

    Works on arrays; a limit of 0 is none. At least one text id stays.
    """
    over = np.maximum(0, np.asarray(length) - limit) if limit else np.asarray(length) * 0
    may = needs(task)[-1] == ("text", True)
    return np.where(over == 0, 0, np.where(may & (over < np.asarray(text)), over, -1))


class Composer:
    """Makes sequences in one token space; what is looked up by name is looked up once."""

    def __init__(self, space: TokenSpace) -> None:
        self.space = space
        kinds = ("text", *(codec.kind for codec in space.codecs))
        self._markers = {
            kind: (
                space.special(START[kind]),
                space.special(END[kind]),
                space.special(REQUEST[kind]),
            )
            for kind in kinds
        }
        self._books = {codec.kind: space.books(codec.kind) for codec in space.codecs}
        self._text_end = space.named("TEXT").end

    def sequence(self, task: str, sample: Tokens, *, limit: int = 0) -> Sequence:
        """The sequence of one task and sample, of at most `limit` ids unless it is 0.

        Raises TooLong with both numbers, InputError for a sample that has not what the task needs
        or whose codes are not of this space.
        """
        parts = parts_of(task, sample)
        try:
            return self.compose(parts, limit=limit)
        except InputError as error:
            raise type(error)(f"sample {sample.id}, task {task}: {error}") from None

    def compose(self, parts: List[Part], *, limit: int = 0) -> Sequence:
        """ids and labels int64 [T] of parts in order; spans hold each part without its markers.

        Raises TooLong when it does not fit and does not end in a text that may be cut, InputError
        for codes that are not of their codebooks or an empty part.
        """
        if not parts:
            raise InputError("a sequence of no parts teaches nothing; give at least one")
        flat = [self._flat(part) for part in parts]
        total = sum(len(ids) + 2 + part.target for ids, part in zip(flat, parts, strict=True))
        cut = max(0, total - limit) if limit else 0
        if cut:
            last = parts[-1]
            if not (last.kind == "text" and last.target) or cut >= len(flat[-1]):
                raise TooLong(
                    f"{total} ids do not fit into {limit}, and a picture, a sound or what is read "
                    "is never cut; raise the limit, or use shorter media"
                )
            flat[-1], total = flat[-1][:-cut], total - cut
        ids = np.empty(total, dtype=np.int64)
        labels = np.full(total, IGNORE, dtype=np.int64)
        spans, place = [], 0
        for part, codes in zip(parts, flat, strict=True):
            start, end, request = self._markers[part.kind]
            if part.target:
                ids[place] = request
                place += 1
            stop = place + len(codes) + 2
            ids[place], ids[stop - 1] = start, end
            ids[place + 1 : stop - 1] = codes
            if part.target:
                labels[place:stop] = ids[place:stop]
            spans.append(Span(part.kind, place + 1, stop - 1))
            place = stop
        if cut:
            labels[-1] = IGNORE
        return Sequence(ids, labels, (), tuple(spans))

    def _flat(self, part: Part) -> np.ndarray:
        """Global ids [T] of a part without its markers."""
        codes = np.asarray(part.codes)
        if part.kind != "text" and part.kind not in self._markers:
            self.space.codec(part.kind)  # names what is missing
        if not len(codes):
            raise InputError(f"a part of no {part.kind} teaches nothing; leave it out")
        if part.kind == "text":
            if codes.min() < 0 or codes.max() > self._text_end:
                raise InputError(
                    f"text ids run from {codes.min()} to {codes.max()}, but text is 0 to "
                    f"{self._text_end}; was this made with another tokenizer?"
                )
            return codes
        self._whole(part.kind, len(codes))
        books = self._books[part.kind]
        try:
            return flatten(codes.reshape(-1, len(books)), books)
        except ValueError as error:
            raise InputError(f"these codes are no {part.kind} of this space: {error}") from None

    def _whole(self, kind: Kind, count: int) -> None:
        facts = self.space.codec(kind)
        if kind == "image" and count != facts.tokens:
            raise InputError(
                f"a picture takes {facts.tokens} codes, these are {count}; was another codec used?"
            )
        if count % facts.codebooks:
            raise InputError(
                f"{count} codes are no whole frames of {facts.codebooks}; was another codec used?"
            )


def sequence(task: str, tokenized: Tokens, space: TokenSpace, *, limit: int = 0) -> Sequence:
    """One sequence; for many of one space keep a Composer. Raises as `Composer.sequence`."""
    return Composer(space).sequence(task, tokenized, limit=limit)


def targets(made: Sequence) -> Iterator[Span]:
    """The parts that are learned."""
    return (span for span in made.spans if made.labels[span.start] != IGNORE)
