"""One id space for text, pictures and sound: named ranges, special symbols, and a hash of both.

Knows: which ids mean what, and which codecs they come from, by the hashes of their weights.
Does not know: codecs or tokenizers themselves. Costs: nothing but a small JSON file.

The ABI hash covers the meaning alone: ranges, specials, tokenizer, codecs, rates, serialization.
Where and when a space was made is written beside it. Who stores ids stores the hash, and refuses
another. A codec can be added behind what is there: every older id keeps its meaning.
"""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lumoomni.codecs.facts import CodecFacts, Kind
from lumoomni.config import canonical_json
from lumoomni.errors import InputError

SPECIALS = (
    "<|text_start|>",
    "<|text_end|>",
    "<|img_start|>",
    "<|img_end|>",
    "<|aud_start|>",
    "<|aud_end|>",
    "<|gen_text|>",
    "<|gen_img|>",
    "<|gen_aud|>",
    "<|pad_mm|>",
)
SPECIAL_SLOTS = 64
VERSION = "lumo_uti_v1"


@dataclass(frozen=True, kw_only=True)
class Range:
    """Ids start .. end, both included."""

    name: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """How many ids."""
        return self.end - self.start + 1

    def __contains__(self, token: int) -> bool:
        return self.start <= token <= self.end


@dataclass(frozen=True, kw_only=True)
class TokenSpace:
    """Ordered ranges TEXT, SPECIAL, then those of the codecs in the order in which they came.

    Raises InputError for ranges that overlap, leave a gap or do not fit their codecs.
    """

    tokenizer: str
    """SHA-256 of the tokenizer."""
    ranges: tuple[Range, ...]
    specials: tuple[tuple[str, int], ...]
    codecs: tuple[CodecFacts, ...] = ()
    version: str = VERSION

    def __post_init__(self) -> None:
        check_ranges(self.ranges, dict(self.specials))
        wanted = [pair for codec in self.codecs for pair in codec.ranges()]
        have = [(one.name, one.size) for one in self.ranges[2:]]
        if have != wanted:
            raise InputError(
                f"the ranges after SPECIAL are {have}, but the codecs take {wanted}; build the "
                "space with the codecs that are loaded"
            )

    @property
    def size(self) -> int:
        """Ids in all."""
        return self.ranges[-1].end + 1

    @property
    def new_rows(self) -> range:
        """Ids after the text table: what a base model has no rows for."""
        return range(self.ranges[1].start, self.size)

    def named(self, name: str) -> Range:
        """Raises InputError naming the ranges when there is no such one."""
        for one in self.ranges:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in self.ranges)
        raise InputError(f"this token space has no {name}; it has {known}")

    def special(self, name: str) -> int:
        """The id of a special symbol."""
        return dict(self.specials)[name]

    def codec(self, kind: Kind) -> CodecFacts:
        """The one codec of a kind. Raises InputError when there is none."""
        for one in self.codecs:
            if one.kind == kind:
                return one
        raise InputError(f"this token space has no {kind} codec; build one that has")

    def books(self, kind: Kind) -> tuple[Range, ...]:
        """The ranges of a kind's codebooks, in order."""
        return tuple(self.named(name) for name, _ in self.codec(kind).ranges())

    @property
    def abi(self) -> str:
        """SHA-256 over the meaning alone."""
        return hashlib.sha256(canonical_json(self.meaning()).encode()).hexdigest()

    def meaning(self) -> dict[str, Any]:
        """What the ABI hash covers."""
        return {
            "version": self.version,
            "tokenizer": self.tokenizer,
            "ranges": [[one.name, one.start, one.end] for one in self.ranges],
            "specials": [list(pair) for pair in self.specials],
            "codecs": [codec.meaning() for codec in self.codecs],
        }

    def with_codec(self, codec: CodecFacts) -> "TokenSpace":
        """The space with a codec behind all that is there. Raises InputError for a second one of
        its kind."""
        if any(one.kind == codec.kind for one in self.codecs):
            raise InputError(
                f"there is {self.codec(codec.kind).name} for {codec.kind} already; a space has one "
                "codec a kind, so build another space"
            )
        start = self.size
        added = []
        for name, size in codec.ranges():
            added.append(Range(name=name, start=start, end=start + size - 1))
            start += size
        return replace(self, ranges=(*self.ranges, *added), codecs=(*self.codecs, codec))

    def holds(self, older: "TokenSpace") -> bool:
        """Whether every id of an older space means the same here."""
        return (
            self.tokenizer == older.tokenizer
            and self.specials[: len(older.specials)] == older.specials
            and self.ranges[: len(older.ranges)] == older.ranges
            and self.codecs[: len(older.codecs)] == older.codecs
        )


def new_space(text_size: int, tokenizer: str, codecs: Iterable[CodecFacts] = ()) -> TokenSpace:
    """TEXT of `text_size` ids, the specials, and codecs in order.

    `text_size` is the base model's table, so that none of its rows is resized or overwritten.
    """
    if text_size < 1:
        raise InputError(f"a text table of {text_size} rows holds no text; give the base model's")
    specials = tuple((name, text_size + i) for i, name in enumerate(SPECIALS))
    space = TokenSpace(
        tokenizer=tokenizer,
        ranges=(
            Range(name="TEXT", start=0, end=text_size - 1),
            Range(name="SPECIAL", start=text_size, end=text_size + SPECIAL_SLOTS - 1),
        ),
        specials=specials,
    )
    for codec in codecs:
        space = space.with_codec(codec)
    return space


def check_ranges(ranges: Sequence[Range], specials: dict[str, int]) -> None:
    """Raises InputError unless ranges follow each other from 0 on and specials lie in SPECIAL."""
    names = [one.name for one in ranges]
    if names[:2] != ["TEXT", "SPECIAL"] or len(set(names)) < len(names):
        raise InputError(f"ranges are {names}; they must begin with TEXT, SPECIAL, none twice")
    if ranges[0].start != 0:
        raise InputError(f"TEXT starts at {ranges[0].start}, not at 0")
    for one in ranges:
        if one.size < 1:
            raise InputError(f"{one.name} runs from {one.start} to {one.end}: it holds nothing")
    for before, after in itertools.pairwise(ranges):
        if after.start != before.end + 1:
            kind = "overlaps" if after.start <= before.end else "leaves a gap after"
            raise InputError(
                f"{after.name} starts at {after.start} and {kind} {before.name}, which ends at "
                f"{before.end}"
            )
    missing = [name for name in SPECIALS if name not in specials]
    if missing:
        raise InputError(f"the special symbols {missing} have no ids")
    if len(set(specials.values())) < len(specials):
        raise InputError("two special symbols have one id")
    outside = {name: i for name, i in specials.items() if i not in ranges[1]}
    if outside:
        raise InputError(
            f"the special symbols {outside} lie outside SPECIAL, which is {ranges[1].start} to "
            f"{ranges[1].end}"
        )


def flatten(codes: np.ndarray, books: Sequence[Range]) -> np.ndarray:
    """Codes int [F, Q] (pictures [N, 1]) -> ids int64 [F * Q], frame by frame.

    Raises ValueError for codes outside their codebooks, or another number of codebooks.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or codes.shape[1] != len(books):
        raise ValueError(f"codes are {codes.shape}, but there are {len(books)} codebooks")
    sizes = np.array([book.size for book in books])
    if codes.size and (codes.min() < 0 or (codes >= sizes).any()):
        raise ValueError(f"codes run to {codes.max()} and from {codes.min()}, books hold {sizes}")
    starts = np.array([book.start for book in books], dtype=np.int64)
    return (codes.astype(np.int64) + starts).reshape(-1)


def unflatten(ids: np.ndarray, books: Sequence[Range]) -> np.ndarray:
    """Ids [F * Q] -> codes int64 [F, Q]. Raises ValueError naming the first id out of its place."""
    ids = np.asarray(ids, dtype=np.int64)
    if len(ids) % len(books):
        raise ValueError(f"{len(ids)} ids are no whole frames of {len(books)}")
    grid = ids.reshape(-1, len(books))
    starts = np.array([book.start for book in books])
    ends = np.array([book.end for book in books])
    wrong = np.argwhere((grid < starts) | (grid > ends))
    if len(wrong):
        frame, q = (int(x) for x in wrong[0])
        raise ValueError(
            f"id {grid[frame, q]} at frame {frame} is not of {books[q].name} "
            f"({books[q].start} to {books[q].end})"
        )
    return grid - starts
