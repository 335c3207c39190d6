"""Published file layouts to plain rows: text lines, CSV, JSON captions, LJSpeech, LibriSpeech.

Knows: the layouts and their usual defects (BOM, CRLF, quoted commas, swapped columns).
Does not know: whether the media can be decoded; `data/check.py` looks.
Costs: the listing files are read once; media are not opened.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lumoomni.config import nearest
from lumoomni.errors import InputError


@dataclass(frozen=True)
class Row:
    """One sample: its text, its media file if any, and where the row came from."""

    text: str
    media: Path | None
    where: str
    reply: str = ""

    @property
    def asset(self) -> str:
        """What must not be on both sides of a split: the media file, or the text itself."""
        return str(self.media) if self.media is not None else self.text


def read(layout: str, path: Path, root: Path | None = None) -> list[Row]:
    """All rows of a data set. Raises InputError for an unknown layout or an unreadable listing."""
    if layout not in LAYOUTS:
        raise InputError(f"there is no format {layout!r}; {nearest(layout, LAYOUTS)}")
    path = Path(path)
    wants_folder = layout in ("ljspeech", "librispeech")
    if not path.exists():
        raise InputError(f"there is no {path}; give the {'folder' if wants_folder else 'file'}")
    if path.is_dir() != wants_folder:
        kinds = ("a file", "a folder")
        raise InputError(
            f"{path} is {kinds[path.is_dir()]}, but the format {layout} is {kinds[wants_folder]}"
        )
    rows = LAYOUTS[layout](path, root)
    if not rows:
        raise InputError(f"{path} holds 0 samples in the format {layout}; check path and format")
    return rows


def read_lines(path: Path, root: Path | None) -> list[Row]:
    """One sample a line; a tab parts a question from its answer."""
    rows = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            question, tab, reply = line.partition("\t")
            where = f"{path}:{number}"
            rows.append(Row(question.strip(), None, where, reply.strip() if tab else ""))
    return rows


def read_csv(path: Path, root: Path | None) -> list[Row]:
    """Columns `wav` and `text` in either order; paths are relative to the file."""
    reader = csv.DictReader(_text(path).splitlines())
    columns = [name.strip().lower() for name in reader.fieldnames or []]
    if not {"wav", "text"} <= set(columns):
        raise InputError(f"{path} has the columns {columns}; it needs a header with wav and text")
    reader.fieldnames = columns
    base = root or path.parent
    return [
        Row((row["text"] or "").strip(), base / (row["wav"] or "").strip(), f"{path}:{number}")
        for number, row in enumerate(reader, 2)
    ]


def read_captions(path: Path, root: Path | None) -> list[Row]:
    """[{"image": ..., "caption": ...}, ...] as one JSON list or one object a line."""
    text = _text(path)
    try:
        if text.lstrip().startswith("["):
            items = json.loads(text)
        else:
            items = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    base, rows = root or path.parent, []
    for number, item in enumerate(items):
        if not isinstance(item, dict) or "image" not in item or "caption" not in item:
            raise InputError(f"{path}: item {number} has no image and caption: {str(item)[:80]}")
        where = f"{path}[{number}]"
        rows.append(Row(str(item["caption"]).strip(), base / str(item["image"]), where))
    return rows


def read_ljspeech(path: Path, root: Path | None) -> list[Row]:
    """metadata.csv with id|text|normalised text, sounds in wavs/."""
    listing = path / "metadata.csv"
    if not listing.is_file():
        raise InputError(f"{path} has no metadata.csv; give the LJSpeech folder itself")
    rows = []
    for number, line in enumerate(_text(listing).splitlines(), 1):
        if line.strip():
            parts = line.split("|")
            if len(parts) < 2:
                raise InputError(f"{listing}:{number} has {len(parts)} fields, needs 2 or 3")
            media = path / "wavs" / f"{parts[0].strip()}.wav"
            rows.append(Row(parts[-1].strip(), media, f"{listing}:{number}"))
    return rows


def read_librispeech(path: Path, root: Path | None) -> list[Row]:
    """speaker/chapter/*.trans.txt, each line an id and its text, beside id.flac."""
    rows = []
    for listing in sorted(path.rglob("*.trans.txt")):
        for number, line in enumerate(_text(listing).splitlines(), 1):
            name, _, text = line.strip().partition(" ")
            if name:
                media = listing.parent / f"{name}.flac"
                rows.append(Row(text.strip(), media, f"{listing}:{number}"))
    return rows


LAYOUTS: dict[str, Callable[[Path, Path | None], list[Row]]] = {
    "txt": read_lines,
    "csv": read_csv,
    "json": read_captions,
    "ljspeech": read_ljspeech,
    "librispeech": read_librispeech,
}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start:,}: {error.reason}); convert it"
        ) from error
