"""Sources by name: the micro-world, or real data in the layouts that people have.

A spec is `world` (for speech also `world-narrator`), or `LAYOUT:PATH`, for pictures also with
`?image_root=DIR` and `?text_only=skip` or `?text_only=use`: what to do with conversations that have
no picture; without it who can learn from text uses them and others leave them out. Either way they
are counted, and not as broken. Real data is split by asset: all rows that share a file, even by way
of other rows, stand on one side.
`?bodies=trust` leaves out the look that each medium is given before it is learned from.
Does not know: models. Costs: the listing is read once, each media header looked at (0.1 ms a file)
and each medium decoded once, the first time that it is used on a machine (`data/bodies.py`); after
that when they are asked for.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lumoomni.data.bodies import whole
from lumoomni.data.headers import Kind, header_problem, sound_seconds
from lumoomni.data.readers import PICTURE_LAYOUTS, read
from lumoomni.data.rows import Row, printable, wordless
from lumoomni.data.sample import (
    UNSEEN,
    PictureItem,
    PictureSource,
    Source,
    SpeechItem,
    TextItem,
)
from lumoomni.data.stored import Stored, load_picture, read_media
from lumoomni.data.watched import watched
from lumoomni.data.world.source import WorldPictures, WorldSpeech, WorldText
from lumoomni.data.world.speech import RATE, voices_folder
from lumoomni.data.world.split import SPLITS, check_split, rng, share
from lumoomni.errors import InputError
from lumoomni.media.audio import load_audio
from lumoomni.media.image import resize
from lumoomni.runtime import Progress

HELD_OUT = 0.05
MOST_UNUSABLE = 0.05
REAL_SPLITS = (*SPLITS, "other")
TEXT_LAYOUTS = ("txt", "jsonl")
OPTION = re.compile(r"[?&](image_root|text_only|bodies)=")
SPEECH_LAYOUTS = ("csv", "ljspeech", "librispeech")
HEADER_ERROR = 0.01
"""Seconds that a header, and bringing a sound to another rate, may be wrong by."""

Fits = Callable[[str, float], str]
"""(text, seconds of sound) -> why a model has no room for them, or an empty string."""


@dataclass(frozen=True)
class Rows:
    """Usable rows by split; training rows come in an order that changes with every pass."""

    train: tuple[Row, ...]
    held: tuple[Row, ...]
    seed: int
    problems: tuple[str, ...]
    text_only: int = 0
    """Conversations without a picture that were found, used or left out."""

    def row(self, split: str, index: int) -> Row:
        """The row of an index; training starts over in a new order, held-out rows keep theirs."""
        if self._side(split) is self.held:
            return self.held[index % len(self.held)]
        turn, place = divmod(index, len(self.train))
        return self.train[int(_order(self.seed, turn, len(self.train))[place])]

    def size(self, split: str) -> int | None:
        """How many rows there are."""
        return len(self._side(split))

    def _side(self, split: str) -> tuple[Row, ...]:
        check_split(split, REAL_SPLITS)
        return self.train if split == "train" else self.held


@lru_cache(maxsize=8)
def _order(seed: int, turn: int, count: int) -> np.ndarray:
    """int64[count]: the order of one pass; kept, since making it costs time for every row."""
    return rng(seed, "order", turn).permutation(count)


def open_rows(
    spec: str,
    seed: int,
    allowed: tuple[str, ...],
    kind: Kind | None,
    takes_text: bool = False,
    fits: Callable[[Row], str] | None = None,
) -> Rows:
    """Read a spec. Raises InputError when too much is unusable or a side would be empty.

    `takes_text`: rows of text alone are wanted among those with pictures. Good rows for which
    `fits` says why there is no room are left out; they do not count as unusable.
    """
    layout, _, rest = spec.partition(":")
    if layout not in allowed or not rest:
        worlds = ("world", "world-narrator") if kind == "sound" else ("world",)
        forms = ", ".join((*worlds, *(f"{name}:PATH" for name in allowed)))
        raise InputError(f"{spec!r} is no source for this; use one of {forms}")
    asked = _options(spec, rest, kind, takes_text)
    place, use = asked.place, asked.use_text
    rows = read(layout, Path(place), Path(asked.root) if asked.root else None)
    alone = sum(row.text_only for row in rows) if kind == "picture" else 0
    usable: list[Row] = []
    problems: list[str] = []
    long: list[str] = []
    for row in watched(rows, f"looking at {layout}", "row"):
        problem = row_problem(row, kind)
        if problem:
            problems.append(problem)
        elif fits is not None and (reason := fits(row)):
            long.append(printable(f"{row.where}: {reason}"))
        elif use or not (alone and row.text_only):
            usable.append(row)
    if kind is not None and asked.look:
        usable, broken = whole(usable, kind)
        problems += broken
    judged = len(rows) - alone
    if len(problems) > MOST_UNUSABLE * judged:
        raise InputError(
            f"{spec}: {len(problems)} of {judged} rows cannot be used, for example "
            f"{'; '.join(problems[:3])}; run `lumo data check {layout} {place}`"
        )
    if problems:
        Progress().say(
            f"{spec}: left out {len(problems)} of {judged} rows, for example {problems[0]}"
        )
    if long:
        said = f"{len(long)} of {judged} rows that are too long, for example {long[0]}"
        Progress().say(f"{spec}: left out {said}")
    if alone:
        done = "used as text" if use else "left out"
        Progress().say(f"{spec}: {alone} of {len(rows)} rows have no picture and are {done}")
    train, held = split_by_asset(usable)
    if not train or not held:
        raise InputError(
            f"{spec}: {len(usable)} usable rows give {len(train)} to train on and {len(held)} to "
            "measure on; both sides need some, so give at least two different files or texts"
            + (f" ({len(long)} are too long, for example {long[0]})" if long else "")
        )
    return Rows(tuple(train), tuple(held), seed, tuple(problems), alone)


@dataclass(frozen=True)
class _Asked:
    """What a spec says: the place, image_root or nothing, whether text alone is used, and whether
    media are decoded once before they are trusted."""

    place: str
    root: str
    use_text: bool
    look: bool


def _options(spec: str, rest: str, kind: Kind | None, takes_text: bool) -> _Asked:
    place, *named = OPTION.split(rest)
    options = dict(zip(named[::2], named[1::2], strict=True))
    wanted = options.get("text_only", "use" if takes_text else "skip")
    if wanted not in ("use", "skip") or ("text_only" in options and kind != "picture"):
        raise InputError(f"{spec}: text_only is use or skip, and for pictures; take it out")
    if wanted == "use" and not takes_text:
        raise InputError(
            f"{spec}: text_only=use, but this needs a picture in every sample; take it out, or set "
            "text_only=skip"
        )
    bodies = options.get("bodies", "look")
    if bodies not in ("look", "trust") or ("bodies" in options and kind is None):
        raise InputError(f"{spec}: bodies is look or trust, for pictures or sounds; take it out")
    return _Asked(place, options.get("image_root", ""), wanted == "use", bodies == "look")


def row_problem(row: Row, kind: Kind | None) -> str:
    """Why a row cannot be used, with its place and file, or an empty string."""
    if row.problem:
        return f"{row.where}: {row.problem}"
    if kind is None:
        return ""
    for media in row.files:
        found = header_problem(media, kind)
        if found:
            return printable(f"{row.where}: {media}: {found}")
    unheard = wordless(row.text) if kind == "sound" else ""
    return printable(f"{row.where}: {unheard}") if unheard else ""


def no_longer(seconds: float, setting: str) -> Fits:
    """Room for so many seconds of sound and any text; `setting` is what gives it."""

    def fits(text: str, given: float) -> str:
        if given <= seconds:
            return ""
        return f"{given:.1f} s of sound, but {setting} has room for {seconds:.1f} s; cut it"

    return fits


def split_by_asset(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """(train, held): about 5 % of the assets are held out, and each side gets one if there are two.

    Rows that share an asset are one group, also by way of other rows. A group's side depends on its
    assets alone, so data added later does not move what was held out, unless it joins two groups.
    """
    head = _groups(rows)
    assets = [head.get(row.asset, row.asset) for row in rows]
    shares = {asset: share("held-out", asset) for asset in assets}
    kept = {asset for asset, drawn in shares.items() if drawn < HELD_OUT}
    if len(shares) > 1 and len(kept) in (0, len(shares)):
        kept = {min(shares, key=lambda asset: shares[asset])}
    sides: tuple[list[Row], list[Row]] = ([], [])
    for row, asset in zip(rows, assets, strict=True):
        sides[asset in kept].append(row)
    return sides


def _groups(rows: list[Row]) -> dict[str, str]:
    """The first name of the group of each asset that stands in a row with others (union-find)."""
    above: dict[str, str] = {}

    def head(asset: str) -> str:
        while (up := above.setdefault(asset, asset)) != asset:
            # Each step halves the way for the next one.
            above[asset] = above[up]
            asset = up
        return asset

    for row in rows:
        for other in row.shared:
            first, second = sorted((head(row.asset), head(other)))
            above[second] = first
    return {asset: head(asset) for asset in list(above)}


@dataclass(frozen=True)
class TextRows:
    """Text files: conversations, and plain texts, which are read as the assistant's."""

    rows: Rows

    @property
    def problems(self) -> tuple[str, ...]:
        """Rows that were left out, with their places and reasons."""
        return self.rows.problems

    def item(self, split: str, index: int) -> TextItem:
        row = self.rows.row(split, index)
        turns = (*row.before, ("assistant", row.text))
        return TextItem(turns, (row.text,) if row.before else (), "pair" if row.before else "line")

    def size(self, split: str) -> int | None:
        return self.rows.size(split)


@dataclass(frozen=True)
class SpeechRows:
    """Sound files with their texts; no word times are known."""

    rows: Rows
    rate: int
    fits: Fits | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """Rows that were left out, with their places and reasons."""
        return self.rows.problems

    def item(self, split: str, index: int) -> SpeechItem:
        row = self.rows.row(split, index)
        assert isinstance(row.media, Path)
        sound = load_audio(row.media, self.rate)
        if self.fits is not None and (reason := self.fits(row.text, sound.seconds)):
            raise InputError(f"{row.where}: {row.media}: {reason} (its header tells of less)")
        return SpeechItem(row.text, sound.samples, None, row.where)

    def size(self, split: str) -> int | None:
        return self.rows.size(split)


@dataclass(frozen=True)
class PictureRows:
    """Picture files with their captions, `pixels` along each side or as they are (None)."""

    rows: Rows
    pixels: int | None

    @property
    def problems(self) -> tuple[str, ...]:
        """Rows that were left out, with their places and reasons."""
        return self.rows.problems

    def item(self, split: str, index: int) -> PictureItem:
        return self._made(split, index, self._picture)

    def outline(self, split: str, index: int) -> PictureItem:
        """The item without its pictures: no file is opened."""
        return self._made(split, index, lambda media: UNSEEN)

    def fingerprints(self, split: str, index: int) -> tuple[str, ...]:
        """Of the files' bytes and the size that they are brought to: nothing is decoded."""
        files = self.rows.row(split, index).files
        size = f"{self.pixels}:".encode()
        return tuple(hashlib.sha256(size + read_media(media)).hexdigest() for media in files)

    def _made(
        self, split: str, index: int, look: Callable[[Path | Stored], np.ndarray]
    ) -> PictureItem:
        row = self.rows.row(split, index)
        turns = (*row.before, ("assistant", row.text)) if row.before else ()
        if row.text_only:
            return PictureItem(UNSEEN, row.text, None, row.where, turns=turns, text_only=True)
        image, *others = map(look, row.files)
        return PictureItem(
            image,
            row.text,
            None,
            row.where,
            turns=turns,
            others=tuple(others),
            places=row.places,
        )

    def _picture(self, media: Path | Stored) -> np.ndarray:
        image = load_picture(media)
        return image if self.pixels is None else resize(image, self.pixels)

    def size(self, split: str) -> int | None:
        return self.rows.size(split)


def open_text(spec: str, seed: int) -> Source[TextItem]:
    """`world`, `txt:FILE` or `jsonl:FILE`."""
    if spec == "world":
        return WorldText(seed)
    return TextRows(open_rows(spec, seed, TEXT_LAYOUTS, None))


def open_speech(
    spec: str, seed: int, rate: int = RATE, fits: Fits | None = None
) -> Source[SpeechItem]:
    """`world`, `world-narrator`, `csv:FILE`, `ljspeech:DIR` or `librispeech:DIR`.

    Files that `fits` has no room for are left out, counted and said; the world's sentences are
    short.
    Raises InputError for another `rate` of the world, which speaks at 16 kHz only.
    """
    if spec in ("world", "world-narrator"):
        if rate != RATE:
            raise InputError(f"the world speaks at {RATE} Hz, not at {rate} Hz; resample its items")
        voices_folder()  # before anyone is forked: its children share it
        return WorldSpeech(seed, narrator=spec == "world-narrator")

    def room(row: Row) -> str:
        assert fits is not None and isinstance(row.media, Path)
        seconds = sound_seconds(row.media)
        if seconds is None:
            seconds = load_audio(row.media, rate).seconds
        return fits(row.text, seconds + HEADER_ERROR)

    rows = open_rows(spec, seed, SPEECH_LAYOUTS, "sound", fits=room if fits else None)
    return SpeechRows(rows, rate, fits)


WORLD_PIXELS = 384


def open_pictures(
    spec: str, seed: int, pixels: int | None, *, takes_text: bool = False
) -> PictureSource:
    """`world`; `json:`, `llava:` or `coco:` FILE, or `hf:` DIR, with `?image_root=DIR`; or
    `webdataset:` with a tar, a folder of them or a pattern such as `train-{000000..000012}.tar`.

    Pictures of `pixels` along each side; with None files keep their size. Conversations without a
    picture are there with `takes_text`, unless the spec says `text_only=skip`.
    """
    if spec == "world":
        return WorldPictures(seed, pixels or WORLD_PIXELS)
    return PictureRows(open_rows(spec, seed, PICTURE_LAYOUTS, "picture", takes_text), pixels)


def text_only(source: PictureSource) -> int:
    """How many conversations without a picture its listing has, used or left out."""
    return source.rows.text_only if isinstance(source, PictureRows) else 0
