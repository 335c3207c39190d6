"""What may follow: the legal next ids after any prefix of a sequence in a token space.

Knows: segments between their markers, what a request for text, a picture or sound must be followed
by, whole pictures, whole frames. Does not know: models. Costs: constant work an id.

Data is checked with it, and sampling restricted to it: what is generated under it can always be
decoded. The legal ids are few ranges, so that a head need be computed over these rows alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lumoomni.errors import InputError
from lumoomni.uti.space import Range, TokenSpace

START = {"text": "<|text_start|>", "image": "<|img_start|>", "audio": "<|aud_start|>"}
END = {"text": "<|text_end|>", "image": "<|img_end|>", "audio": "<|aud_end|>"}
REQUEST = {"text": "<|gen_text|>", "image": "<|gen_img|>", "audio": "<|gen_aud|>"}
PAD = "<|pad_mm|>"


@dataclass(frozen=True)
class State:
    """Where a prefix ends: in a segment of `kind` with `inside` ids of it, or between segments.

    `wanted` is the kind that was asked for and has not begun.
    """

    kind: str = ""
    inside: int = 0
    wanted: str = ""
    padded: bool = False


class Grammar:
    """The legal next ranges in one token space. Sound longer than `most_frames` must end."""

    def __init__(self, space: TokenSpace, *, most_frames: int = 0) -> None:
        self.space, self.most_frames = space, most_frames
        self._text = space.named("TEXT")
        self._one = {
            name: Range(name=name, start=space.special(name), end=space.special(name))
            for table in (START, END, REQUEST)
            for name in table.values()
        }
        self._one[PAD] = Range(name=PAD, start=space.special(PAD), end=space.special(PAD))
        self._kinds = ("text", *(codec.kind for codec in space.codecs))
        self._books = {codec.kind: space.books(codec.kind) for codec in space.codecs}

    def legal(self, state: State) -> tuple[Range, ...]:
        """The ranges that the next id may come from; never none."""
        if state.padded:
            return (self._one[PAD],)
        if state.wanted:
            return (self._one[START[state.wanted]],)
        if state.kind == "text":
            return (self._text, self._one[END["text"]])
        if state.kind == "image":
            whole = state.inside == self.space.codec("image").tokens
            return (self._one[END["image"]],) if whole else self._books["image"]
        if state.kind == "audio":
            frames, q = divmod(state.inside, len(self._books["audio"]))
            book = self._books["audio"][q]
            if q or not frames:
                return (book,)
            over = self.most_frames and frames >= self.most_frames
            return (self._one[END["audio"]],) if over else (book, self._one[END["audio"]])
        begin = [self._one[table[kind]] for kind in self._kinds for table in (START, REQUEST)]
        return (self._text, *begin, self._one[PAD])

    def step(self, state: State, token: int) -> State:
        """The state after one more id. Raises InputError for one that may not follow."""
        found = next((one for one in self.legal(state) if token in one), None)
        if found is None:
            raise InputError(f"id {token} may not follow here; {self.wanted(state)} may")
        if found.name == PAD:
            return replace(state, padded=True)
        for kind in self._kinds:
            if found.name == START[kind]:
                return State(kind=kind)
            if found.name == END[kind]:
                return State()
            if found.name == REQUEST[kind]:
                return State(wanted=kind)
        return replace(state, inside=state.inside + 1) if state.kind else state

    def wanted(self, state: State) -> str:
        """The legal ranges in words."""
        return ", ".join(
            one.name if one.start == one.end else f"{one.name} ({one.start} to {one.end})"
            for one in self.legal(state)
        )

    def run(self, ids: Iterable[int], state: State | None = None) -> State:
        """The state after all of `ids`. Raises InputError naming the first wrong place."""
        state = state or State()
        for place, token in enumerate(ids):
            try:
                state = self.step(state, int(token))
            except InputError as error:
                raise InputError(f"at position {place}: {error}") from None
        return state

    def check(self, ids: Sequence[int]) -> str:
        """What is wrong with a whole sequence, or an empty string."""
        try:
            state = self.run(ids)
        except InputError as error:
            return str(error)
        if state.kind or state.wanted:
            return f"after {len(ids)} ids: the {state.kind or state.wanted} is not finished"
        return ""
