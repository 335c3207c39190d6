"""A look at a data set before training: what is there, what is broken, what would be lost.

Measures and names; `DataReport.usable` is the only judgement, and its bounds are its fields.
Costs: every media file is decoded once: 3 ms for six seconds of sound, 6 ms for 800 x 600 pixels.
"""

import itertools
import statistics
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lumoomni.codecs.text import TextCodec
from lumoomni.data.conversation import audio_positions
from lumoomni.data.readers import PICTURE_LAYOUTS, read
from lumoomni.data.rows import EMPTY, Row, printable, wordless
from lumoomni.data.stored import load_picture
from lumoomni.data.world.language import normalise
from lumoomni.errors import InputError
from lumoomni.media.audio import load_audio
from lumoomni.runtime import Progress

RATE, HOP = 16000, 160
BYTES_A_TOKEN = 4
NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Lengths of the sounds; p95 is the shortest length that 95 % of them do not exceed."""

    total: float
    shortest: float
    median: float
    p95: float
    longest: float


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """(height, width) of the pictures with the fewest, the median and the most pixels."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What was found. Lists name at most NAMED items; the counts are complete.

    `unusable` counts rows: malformed, without text (of a sound: without a word that can be spelled
    with a to z and 0 to 9), or with a file that cannot be read. `text_only`
    counts good conversations without a picture among those with one: no fault, but stages that
    learn from pictures leave them out. The last four shares are of the rows that they can be told
    of; None where there are none.
    """

    samples: int
    text_only: int
    unusable: int
    malformed: int
    malformed_named: tuple[str, ...]
    unreadable: int
    unreadable_named: tuple[str, ...]
    empty_texts: int
    empty_named: tuple[str, ...]
    duplicate_texts: int
    duplicates_named: tuple[str, ...]
    repeated_files: int
    repeated_named: tuple[str, ...]
    seconds: Seconds | None
    pixels: Pixels | None
    max_tokens: int
    tokens_counted_by: str
    label_coverage: float
    truncated: float
    ctc_infeasible_characters: float | None
    ctc_infeasible_subwords: float | None
    most_unusable: float = 0.05

    @property
    def usable(self) -> bool:
        """Whether few enough samples are broken, of those that are not text alone."""
        return self.unusable <= self.most_unusable * (self.samples - self.text_only)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {**asdict(self), "usable": self.usable}


@dataclass
class _Found:
    """What reading the rows brings together."""

    malformed: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unusable: int = 0
    seconds: list[float] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    characters: list[bool] = field(default_factory=list)
    subwords: list[bool] = field(default_factory=list)


def check(
    layout: str,
    path: Path,
    *,
    root: Path | None = None,
    tokenizer: Path | None = None,
    max_tokens: int = 512,
    progress: Progress | None = None,
) -> DataReport:
    """Read everything once. Raises InputError when there is nothing to read."""
    if max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens}; it must be at least 1")
    rows = read(layout, path, root)
    codec = _codec(tokenizer)
    found = _Found()
    with (progress or Progress(silent=True)).task(
        "data check", total=len(rows), unit="sample"
    ) as bar:
        for row in rows:
            _look(row, layout, codec, found)
            bar.update(1, unusable=found.unusable)
    lengths = [_tokens(row, codec) for row in rows]
    texts = Counter(_whole(row) for row in rows if row.text)
    files = Counter(asset for row in rows if row.files for asset in row.assets)
    return DataReport(
        samples=len(rows),
        text_only=sum(layout in PICTURE_LAYOUTS and row.text_only for row in rows),
        unusable=found.unusable,
        malformed=len(found.malformed),
        malformed_named=_named(found.malformed),
        unreadable=len(found.unreadable),
        unreadable_named=_named(found.unreadable),
        empty_texts=len(found.empty),
        empty_named=_named(found.empty),
        duplicate_texts=sum(count - 1 for count in texts.values()),
        duplicates_named=_repeated(texts),
        repeated_files=sum(count - 1 for count in files.values()),
        repeated_named=_repeated(files, _places(rows)),
        seconds=_seconds(found.seconds),
        pixels=_pixels(found.sizes),
        max_tokens=max_tokens,
        tokens_counted_by=str(tokenizer) if tokenizer else f"bytes / {BYTES_A_TOKEN}, a guess",
        label_coverage=sum(learned > 0 for learned, _ in lengths) / len(rows),
        truncated=sum(whole > max_tokens for _, whole in lengths) / len(rows),
        ctc_infeasible_characters=_share(found.characters),
        ctc_infeasible_subwords=_share(found.subwords),
    )


def _codec(tokenizer: Path | None) -> TextCodec | None:
    if tokenizer is None:
        return None
    return TextCodec.load(tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer)


def _look(row: Row, layout: str, codec: TextCodec | None, found: _Found) -> None:
    """Read one row's media and note what is wrong with the row."""
    usable = not row.problem
    if row.problem == EMPTY:
        found.empty.append(f"{row.where}: {row.media or EMPTY}")
    elif row.problem:
        found.malformed.append(f"{row.where}: {row.problem}")
    elif row.files and layout not in PICTURE_LAYOUTS and (problem := wordless(row.text)):
        found.empty.append(f"{row.where}: {problem}")
        usable = False
    for media in row.files:
        try:
            if layout in PICTURE_LAYOUTS:
                image = load_picture(media)
                found.sizes.append((image.shape[0], image.shape[1]))
            else:
                assert isinstance(media, Path)
                samples = len(load_audio(media, RATE).samples)
                found.seconds.append(samples / RATE)
                _feasible(row, samples, codec, found)
        except (InputError, OSError) as error:
            found.unreadable.append(f"{row.where}: {error}")
            usable = False
    found.unusable += not usable


def _feasible(row: Row, samples: int, codec: TextCodec | None, found: _Found) -> None:
    """Note whether CTC can spell the text in the features that the sound has."""
    if row.problem or wordless(row.text):
        return
    frames = audio_positions(-(-samples // HOP))
    spelled = " " + normalise(row.text)
    found.characters.append(_needs(list(spelled)) > frames)
    if codec:
        found.subwords.append(_needs(codec.encode(spelled)) > frames)


def _needs(symbols: list[Any]) -> int:
    """Frames that CTC needs: one a symbol and a blank between equal neighbours."""
    return len(symbols) + sum(a == b for a, b in itertools.pairwise(symbols))


def _tokens(row: Row, codec: TextCodec | None) -> tuple[int, int]:
    """(tokens that are learned, tokens of all turns); none for a row that cannot be used."""
    if row.problem:
        return 0, 0
    before = sum(_count(said, codec) for _, said in row.before)
    learned = _count(row.text, codec)
    return learned, before + learned


def _count(text: str, codec: TextCodec | None) -> int:
    return len(codec.encode(text)) if codec else -(-len(text.encode()) // BYTES_A_TOKEN)


def _whole(row: Row) -> str:
    """All that is said: two questions with one answer are no duplicates."""
    return " / ".join([*(said for _, said in row.before), row.text])


def _named(lines: list[str]) -> tuple[str, ...]:
    return tuple(printable(line) for line in lines[:NAMED])


def _repeated(counts: Counter[str], places: dict[str, str] | None = None) -> tuple[str, ...]:
    """The most frequent first, by their places where these say more."""
    repeated = [(name, count) for name, count in counts.most_common(NAMED) if count > 1]
    told = places or {}
    return tuple(printable(f"{n} times: {told.get(name, name[:80])}") for name, n in repeated)


def _places(rows: list[Row]) -> dict[str, str]:
    """Where the first of the pictures inside other files stands that have one identity."""
    places: dict[str, str] = {}
    for row in rows:
        for asset, media in zip(row.assets, row.files, strict=False):
            if isinstance(media, Path):
                break
            places.setdefault(asset, str(media))
    return places


def _share(flags: list[bool]) -> float | None:
    return statistics.fmean(flags) if flags else None


def _seconds(lengths: list[float]) -> Seconds | None:
    if not lengths:
        return None
    ordered = sorted(lengths)
    return Seconds(
        total=sum(ordered),
        shortest=ordered[0],
        median=statistics.median(ordered),
        p95=ordered[-(-95 * len(ordered) // 100) - 1],
        longest=ordered[-1],
    )


def _pixels(sizes: list[tuple[int, int]]) -> Pixels | None:
    if not sizes:
        return None
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return Pixels(smallest=ordered[0], median=ordered[len(ordered) // 2], largest=ordered[-1])
