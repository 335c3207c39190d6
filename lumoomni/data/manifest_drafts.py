"""A pair as a listing names it, before its file is looked at; and what all listings share.

Knows: CSV with named columns, JSON, and files by their exact names.
Does not know: data sets, splits or hashes. Costs: the listing's own bytes; one walk of a folder.
"""

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumoomni.data.headers import Kind
from lumoomni.data.rows import Row, read_text
from lumoomni.errors import InputError

SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".mp4", ".mkv")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A text and the file that it is about. `where` is its place in the listing; `problem` says
    why it cannot be used, and `detail` of what, so that defects can be counted by their kind."""

    id: str
    where: str
    kind: Kind
    text: str = ""
    prompt: str = ""
    media: Path | None = None
    official: str = ""
    way: str = ""
    """The one task that it serves; "" for reading it and making it."""
    problem: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Cells:
    """A line of a table: its place, its cells by column, or why there are none."""

    where: str
    cells: dict[str, str]
    problem: str = ""


def read_cells(path: Path, columns: tuple[str, ...]) -> list[Cells]:
    """The lines of a CSV file with at least these columns; lines of another length say so.

    Raises InputError for a file without the columns, or that is no CSV.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; give the data set's own CSV")
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    found: list[Cells] = []
    try:
        names = [name.strip() for name in next(reader, [])]
        missing = [name for name in columns if name not in names]
        if missing:
            raise InputError(
                f"{path} has the columns {', '.join(names) or 'none'}; it needs "
                f"{', '.join(columns)}, and {', '.join(missing)} is not there"
            )
        last = reader.line_num
        for fields in reader:
            where, last = f"{path}:{last + 1}", reader.line_num
            if not fields:
                continue
            if len(fields) != len(names):
                problem = f"{len(fields)} fields where the header has {len(names)}"
                found.append(Cells(where, {}, problem))
            else:
                found.append(Cells(where, dict(zip(names, fields, strict=True))))
    except csv.Error as error:
        raise InputError(
            f"{path}:{reader.line_num} is not valid CSV ({error}); look for a quote that is never "
            "closed"
        ) from error
    return found


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises InputError when it is none."""
    if not path.is_file():
        raise InputError(f"there is no file {path}; give the data set's own JSON")
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); get a whole copy") from error


class Files:
    """The media under a folder by their exact names without the ending.

    Raises InputError for what is no folder.
    """

    def __init__(self, folder: Path, endings: tuple[str, ...]) -> None:
        self.folder = folder
        self._by_stem: dict[str, list[Path]] = {}
        for path in walk(folder):
            if path.suffix.lower() in endings:
                self._by_stem.setdefault(path.stem, []).append(path)

    def one(self, stems: Iterable[str]) -> tuple[Path | None, str, str]:
        """The one file that has any of these names whole: (path, problem, detail)."""
        stems = list(dict.fromkeys(stems))
        found = [path for stem in stems for path in self._by_stem.get(stem, [])]
        if len(found) == 1:
            return found[0], "", ""
        if not found:
            return None, "there is no such file", f"{' or '.join(stems)} under {self.folder}"
        return None, "more than one file has the name", ", ".join(map(str, found))


def walk(folder: Path) -> list[Path]:
    """All files under a folder, sorted. Raises InputError for what is no folder."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the folder that the files lie in")
    found = [Path(at) / name for at, _, names in os.walk(folder) for name in names]
    return sorted(found)


def from_row(row: Row, name: str, kind: Kind, official: str = "") -> Draft:
    """A row of `data/readers.py`; one question at most, and one medium."""
    problem, detail = row.problem, ""
    if not problem and row.others:
        problem, detail = "more than one picture", f"{1 + len(row.others)} pictures"
    asked = [said for role, said in row.before if role == "user"]
    if not problem and len(row.before) > 1:
        problem, detail = "more than one turn before the answer", f"{len(row.before)} turns"
    return Draft(
        id=name,
        where=row.where,
        kind=kind,
        text=row.text,
        prompt=asked[0].strip() if asked else "",
        media=row.media if isinstance(row.media, Path) else None,
        official=official,
        problem=problem,
        detail=detail,
    )
