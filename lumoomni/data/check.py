"""A look at a data set before training: what is there, what is broken, what would be lost.

Measures and names; `DataReport.usable` is the only judgement, and its bounds are its fields.
Costs: every media file is decoded once.
"""

import itertools
import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lumoomni.codecs.text import TextCodec
from lumoomni.data.conversation import audio_positions
from lumoomni.data.readers import Row, read
from lumoomni.data.world.language import normalise
from lumoomni.errors import InputError
from lumoomni.media.audio import load_audio
from lumoomni.media.image import load_image
from lumoomni.runtime import Progress

RATE, HOP = 16000, 160
BYTES_A_TOKEN = 4
NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Lengths of the sounds."""

    total: float
    shortest: float
    median: float
    p95: float
    longest: float


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What was found. Lists name at most NAMED items; the counts are complete."""

    samples: int
    unreadable: int
    unreadable_named: tuple[str, ...]
    empty_texts: int
    duplicate_texts: int
    duplicates_named: tuple[str, ...]
    label_coverage: float
    truncated: float
    max_tokens: int
    tokens_counted_by: str
    seconds: Seconds | None
    ctc_infeasible_characters: float | None
    ctc_infeasible_subwords: float | None
    smallest_picture: tuple[int, int] | None
    most_unusable: float = 0.05

    @property
    def usable(self) -> bool:
        """Whether few enough samples are broken."""
        return self.unreadable + self.empty_texts <= self.most_unusable * self.samples

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {**asdict(self), "usable": self.usable}


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
    rows = read(layout, path, root)
    codec = TextCodec.load(tokenizer) if tokenizer else None
    progress = progress or Progress(silent=True)
    broken: list[str] = []
    lengths: list[float] = []
    sizes: list[tuple[int, int]] = []
    characters, subwords = [], []
    with progress.task("data check", total=len(rows), unit="sample") as bar:
        for row in rows:
            bar.update(1)
            try:
                seconds, size = _open(row, layout)
            except InputError as error:
                broken.append(f"{row.where}: {error}")
                continue
            if seconds is not None:
                lengths.append(seconds)
                frames = audio_positions(-(-int(seconds * RATE) // HOP))
                spelled = " " + normalise(row.text)
                characters.append(_needs(list(spelled)) > frames)
                if codec:
                    subwords.append(_needs(codec.encode(spelled)) > frames)
            if size is not None:
                sizes.append(size)
    texts = Counter(row.text for row in rows if row.text)
    doubles = [text for text, count in texts.items() if count > 1]
    empty = sum(not row.text for row in rows)
    tokens = [_tokens(row, codec) for row in rows]
    return DataReport(
        samples=len(rows),
        unreadable=len(broken),
        unreadable_named=tuple(broken[:NAMED]),
        empty_texts=empty,
        duplicate_texts=sum(texts[text] - 1 for text in doubles),
        duplicates_named=tuple(text[:80] for text in doubles[:NAMED]),
        label_coverage=sum(count > 0 for count in tokens) / len(rows),
        truncated=sum(count > max_tokens for count in tokens) / len(rows),
        max_tokens=max_tokens,
        tokens_counted_by=str(tokenizer) if tokenizer else f"bytes / {BYTES_A_TOKEN}",
        seconds=_seconds(lengths),
        ctc_infeasible_characters=statistics.fmean(characters) if characters else None,
        ctc_infeasible_subwords=statistics.fmean(subwords) if subwords else None,
        smallest_picture=min(sizes) if sizes else None,
    )


def _open(row: Row, layout: str) -> tuple[float | None, tuple[int, int] | None]:
    """(seconds, (height, width)) of a row's media."""
    if row.media is None:
        return None, None
    if layout == "json":
        image = load_image(row.media)
        return None, (image.shape[0], image.shape[1])
    return load_audio(row.media).seconds, None


def _needs(symbols: list[Any]) -> int:
    """Frames that CTC needs: one a symbol and a blank between equal neighbours."""
    return len(symbols) + sum(a == b for a, b in itertools.pairwise(symbols))


def _tokens(row: Row, codec: TextCodec | None) -> int:
    text = row.reply or row.text
    return len(codec.encode(text)) if codec else -(-len(text.encode()) // BYTES_A_TOKEN)


def _seconds(lengths: list[float]) -> Seconds | None:
    if not lengths:
        return None
    ordered = sorted(lengths)
    return Seconds(
        total=sum(ordered),
        shortest=ordered[0],
        median=statistics.median(ordered),
        p95=ordered[int(0.95 * (len(ordered) - 1))],
        longest=ordered[-1],
    )
