"""Sources by name: the micro-world, or real data in the layouts that people have.

A spec is `world` (for speech also `world-narrator`), or `LAYOUT:PATH`, with `?image_root=DIR`
for pictures. Real data is split by asset: all rows of one file stand on one side.
Does not know: models. Costs: the listing is read once; media are decoded when they are asked for.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from lumoomni.data.readers import LAYOUTS, Row, read
from lumoomni.data.sample import PictureItem, Source, SpeechItem, TextItem
from lumoomni.data.world.source import WorldPictures, WorldSpeech, WorldText
from lumoomni.data.world.split import share
from lumoomni.errors import InputError
from lumoomni.media.audio import load_audio
from lumoomni.media.image import load_image, resize

HELD_OUT = 0.05
MOST_MISSING = 0.05


@dataclass(frozen=True)
class Rows:
    """Usable rows by split, in an order that changes with every pass."""

    train: tuple[Row, ...]
    held: tuple[Row, ...]
    seed: int
    problems: tuple[str, ...]

    def row(self, split: str, index: int) -> Row:
        """The row of an index; training starts over in a new order, held-out rows keep theirs."""
        if split != "train":
            return self.held[index % len(self.held)]
        turn, place = divmod(index, len(self.train))
        order = list(range(len(self.train)))
        random.Random(self.seed * 1_000_003 + turn).shuffle(order)
        return self.train[order[place]]

    def size(self, split: str) -> int | None:
        """How many rows there are."""
        return len(self.train if split == "train" else self.held)


def open_rows(spec: str, seed: int, allowed: tuple[str, ...]) -> Rows:
    """Read a spec. Raises InputError when too much is missing or a side would be empty."""
    layout, _, rest = spec.partition(":")
    if layout not in allowed or not rest:
        forms = ", ".join(("world", *(f"{name}:PATH" for name in allowed)))
        raise InputError(f"{spec!r} is no source for this; use one of {forms}")
    place, _, root = rest.partition("?image_root=")
    rows = read(layout, Path(place), Path(root) if root else None)
    usable, problems = [], []
    for row in rows:
        if not row.text:
            problems.append(f"{row.where}: empty text")
        elif row.media is not None and not row.media.is_file():
            problems.append(f"{row.where}: no file {row.media}")
        else:
            usable.append(row)
    if len(problems) > MOST_MISSING * len(rows):
        raise InputError(
            f"{spec}: {len(problems)} of {len(rows)} rows cannot be used, for example "
            f"{'; '.join(problems[:3])}; run `lumo data check {layout} {place}`"
        )
    held = [row for row in usable if share("held-out", row.asset) < HELD_OUT]
    if not held and len({row.asset for row in usable}) > 1:
        last = min((row.asset for row in usable), key=lambda asset: share("held-out", asset))
        held = [row for row in usable if row.asset == last]
    kept = {row.asset for row in held}
    train = [row for row in usable if row.asset not in kept]
    if not train or not held:
        raise InputError(
            f"{spec}: {len(usable)} usable rows give {len(train)} to train on and {len(held)} to "
            "measure on; both sides need some"
        )
    return Rows(tuple(train), tuple(held), seed, tuple(problems))


@dataclass(frozen=True)
class TextRows:
    """Text files: a line with a tab is a question and its answer, others are read as replies."""

    rows: Rows

    def item(self, split: str, index: int) -> TextItem:
        row = self.rows.row(split, index)
        if row.reply:
            turns = (("user", row.text), ("assistant", row.reply))
            return TextItem(turns, (row.reply,), "pair")
        return TextItem((("assistant", row.text),), (), "line")

    def size(self, split: str) -> int | None:
        return self.rows.size(split)


@dataclass(frozen=True)
class SpeechRows:
    """Sound files with their texts; no word times are known."""

    rows: Rows
    rate: int

    def item(self, split: str, index: int) -> SpeechItem:
        row = self.rows.row(split, index)
        assert row.media is not None
        return SpeechItem(row.text, load_audio(row.media, self.rate).samples, None, row.where)

    def size(self, split: str) -> int | None:
        return self.rows.size(split)


@dataclass(frozen=True)
class PictureRows:
    """Picture files with their captions."""

    rows: Rows
    pixels: int

    def item(self, split: str, index: int) -> PictureItem:
        row = self.rows.row(split, index)
        assert row.media is not None
        image = resize(load_image(row.media), self.pixels)
        return PictureItem(image, row.text, None, row.where)

    def size(self, split: str) -> int | None:
        return self.rows.size(split)


def open_text(spec: str, seed: int) -> Source[TextItem]:
    """`world` or `txt:FILE`."""
    return WorldText(seed) if spec == "world" else TextRows(open_rows(spec, seed, ("txt",)))


def open_speech(spec: str, seed: int, rate: int = 16000) -> Source[SpeechItem]:
    """`world`, `world-narrator`, `csv:FILE`, `ljspeech:DIR` or `librispeech:DIR`."""
    if spec in ("world", "world-narrator"):
        return WorldSpeech(seed, narrator=spec == "world-narrator")
    return SpeechRows(open_rows(spec, seed, ("csv", "ljspeech", "librispeech")), rate)


def open_pictures(spec: str, seed: int, pixels: int) -> Source[PictureItem]:
    """`world` or `json:FILE?image_root=DIR`."""
    if spec == "world":
        return WorldPictures(seed, pixels)
    return PictureRows(open_rows(spec, seed, ("json",)), pixels)


def layouts() -> tuple[str, ...]:
    """The names of all layouts."""
    return tuple(LAYOUTS)
