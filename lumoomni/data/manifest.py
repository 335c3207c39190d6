"""A manifest: which pairs of text and medium a data set has, one JSON object a line.

The first line is the header; records follow in the order of their ids, which are unique. A medium
is named by its path and the SHA-256 of its bytes. The same records give the same bytes.
Knows: the fields and what each task needs. Does not know: whether the files are there; the builders
look. Costs: reading holds one line; writing holds the file (400 bytes a record) and sorts it.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lumoomni.config import nearest
from lumoomni.data.asset_split import SHA256
from lumoomni.data.rows import printable
from lumoomni.errors import InputError
from lumoomni.runtime import atomic_write_bytes

SCHEMA = 1
NEEDS: dict[str, Literal["image", "audio"] | None] = {
    "i2t": "image",
    "t2i": "image",
    "a2t": "audio",
    "t2a": "audio",
    "text": None,
}
"""The tasks, and the medium that each cannot be without."""
SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*|")
"""Splits become names of folders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """A medium: its path relative to the manifest's folder, or absolute, or an fsspec URL; and the
    SHA-256 of its bytes. Raises InputError for a path or a hash that is none."""

    path: str
    sha256: str

    def __post_init__(self) -> None:
        if not self.path:
            raise InputError("an asset has no path; name its file")
        if not SHA256.fullmatch(self.sha256):
            raise InputError(
                f"{self.path} has the sha256 {self.sha256[:80]!r}; it must be 64 lower-case hex "
                "digits"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A pair of a text and a medium, and what is learned from it: `task` is i2t, a2t, t2i, t2a or
    text.

    `text` is a caption or transcript, `prompt` an instruction if there is one, `split` train or
    eval, `official` the data set's own split as it calls it.
    Raises InputError for an unknown task, an empty text, or a medium that is missing.
    """

    id: str
    source: str
    task: str
    text: str
    prompt: str = ""
    image: Asset | None = None
    audio: Asset | None = None
    split: str = ""
    official: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            raise InputError("a record has no id; give it one of its own")
        if self.task not in NEEDS:
            raise InputError(
                f"{self.id}: there is no task {self.task!r}; {nearest(self.task, NEEDS)}"
            )
        if not self.text.strip():
            raise InputError(f"{self.id}: the text is empty; leave the record out")
        needed = NEEDS[self.task]
        if needed is not None and getattr(self, needed) is None:
            raise InputError(f"{self.id}: the task {self.task} needs the field {needed}")
        if not SPLIT.fullmatch(self.split):
            raise InputError(f"{self.id}: {self.split!r} is no split; use letters, digits, - and _")

    @property
    def asset(self) -> Asset | None:
        """The medium of its task; None for text alone."""
        return {"image": self.image, "audio": self.audio, None: None}[NEEDS[self.task]]


@dataclass(frozen=True, kw_only=True)
class Header:
    """The first line: schema, the data set's name, what made it, and how many records follow; -1
    where that was not written down."""

    manifest: int
    source: str
    made_with: Any = None
    records: int = -1


FIELDS = tuple(field.name for field in dataclasses.fields(Record))
REQUIRED = ("id", "source", "task", "text")
HEADER_FIELDS = tuple(field.name for field in dataclasses.fields(Header))


def write_manifest(
    path: Path, records: Iterable[Record], *, source: str, made_with: Any = None
) -> int:
    """Write all records, sorted by id, or nothing; returns how many there are.

    Raises InputError for two records of one id, for text that is not Unicode, and a full disk.
    """
    ordered = sorted(records, key=lambda record: record.id)
    for before, record in itertools.pairwise(ordered):
        if before.id == record.id:
            raise InputError(
                f"two records have the id {record.id!r} ({_short(before)} and {_short(record)}); "
                "ids must be unique"
            )
    header = {
        "manifest": SCHEMA,
        "source": source,
        "made_with": made_with,
        "records": len(ordered),
    }
    lines = [_line(header), *(_line(_fields(record)) for record in ordered)]
    try:
        data = "".join(lines).encode()
    except UnicodeEncodeError as error:
        bad = next(line for line in lines if line != printable(line))
        raise InputError(
            f"a record holds half a surrogate pair, which no file can hold: {printable(bad)[:160]}"
        ) from error
    atomic_write_bytes(Path(path), data)
    return len(ordered)


def read_header(path: Path) -> Header:
    """The first line. Raises InputError when this is no manifest, or one of another schema."""
    for number, line in _lines(Path(path)):
        return _header(_object(line, f"{path}:{number}"), f"{path}:{number}")
    raise InputError(f"{path} is empty; build the manifest again")


def read_manifest(path: Path) -> Iterator[Record]:
    """The records in their order, as they are read.

    Raises InputError: at once for a header that is none; on the way, with the line, for a record
    that is none, for an id that stands twice or out of order, and at the end when some are missing.
    """
    return _records(Path(path), read_header(path))


def media_path(manifest: Path, asset: Asset) -> str:
    """Where an asset lies: URLs and absolute paths as they are, others in the manifest's folder."""
    if "://" in asset.path or Path(asset.path).is_absolute():
        return asset.path
    return str(Path(manifest).parent / asset.path)


def _records(path: Path, header: Header) -> Iterator[Record]:
    seen, last = 0, ""
    for number, line in _lines(path):
        if number == 1:
            continue
        where = f"{path}:{number}"
        record = _record(_object(line, where), where)
        if seen and record.id <= last:
            raise InputError(_disorder(path, number, record.id, last))
        seen, last = seen + 1, record.id
        yield record
    if header.records not in (-1, seen):
        raise InputError(
            f"{path} holds {seen} of the {header.records} records that its first line promises; "
            "get a whole copy"
        )


def _disorder(path: Path, number: int, name: str, last: str) -> str:
    """What is wrong with an id that is not greater than the one before it: it may stand twice."""
    for earlier, line in _lines(path):
        if 1 < earlier < number and json.loads(line).get("id") == name:
            return f"{path}: lines {earlier} and {number} have the id {name!r}; ids must be unique"
    return f"{path}:{number}: the id {name!r} stands after {last!r}; records must be sorted by id"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines; only line feeds part them."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield from enumerate(file, 1)
    except FileNotFoundError as error:
        raise InputError(f"there is no manifest {path}; build one with `lumo data manifest`") from (
            error
        )
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 ({error.reason}); build the manifest again"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); give a manifest that can be"
        ) from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON ({error}); build it again") from error
    if not isinstance(data, dict):
        raise InputError(f"{where} holds {line.strip()[:80]}; each line must be a JSON object")
    return data


def _header(data: dict[str, Any], where: str) -> Header:
    if "manifest" not in data:
        raise InputError(
            f"{where} is no header of a manifest; the first line must be "
            '{"manifest": 1, "source": ..., "made_with": ...}'
        )
    if data["manifest"] != SCHEMA or isinstance(data["manifest"], bool):
        raise InputError(
            f"{where}: the manifest has schema {data['manifest']}, this version reads {SCHEMA}; "
            "build it again"
        )
    _known(data, HEADER_FIELDS, where)
    source, count = data.get("source"), data.get("records", -1)
    if not isinstance(source, str):
        raise InputError(f"{where}: the header needs source as text, found {source!r}")
    if not isinstance(count, int) or isinstance(count, bool) or count < -1:
        raise InputError(f"{where}: records is {count!r}; it must be a number of records")
    return Header(manifest=SCHEMA, source=source, made_with=data.get("made_with"), records=count)


def _record(data: dict[str, Any], where: str) -> Record:
    _known(data, FIELDS, where)
    missing = [name for name in REQUIRED if name not in data]
    if missing:
        raise InputError(f"{where}: the record has no {' and no '.join(missing)}")
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name in ("image", "audio"):
            values[name] = None if value is None else _asset(value, f"{where}: {name}")
        elif isinstance(value, str):
            values[name] = value
        else:
            raise InputError(f"{where}: {name} is {str(value)[:80]}; it must be text")
    try:
        return Record(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _asset(value: Any, where: str) -> Asset:
    if not isinstance(value, dict):
        raise InputError(f'{where} is {str(value)[:80]}; it must be {{"path", "sha256"}}')
    _known(value, ("path", "sha256"), where)
    if not all(isinstance(value.get(name), str) for name in ("path", "sha256")):
        raise InputError(f"{where} needs path and sha256 as text; found {', '.join(value)}")
    try:
        return Asset(**value)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _known(data: dict[str, Any], names: tuple[str, ...], where: str) -> None:
    for name in data:
        if name not in names:
            raise InputError(f"{where} has an unknown field {name!r}; {nearest(name, names)}")


def _fields(record: Record) -> dict[str, Any]:
    """What is said of a record; fields that may be empty and are, are left out."""
    found: dict[str, Any] = {}
    for name in FIELDS:
        value = getattr(record, name)
        if isinstance(value, Asset):
            found[name] = {"path": value.path, "sha256": value.sha256}
        elif value or name in REQUIRED:
            found[name] = value
    return found


def _line(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n"


def _short(record: Record) -> str:
    asset = record.asset
    return asset.path if asset else repr(record.text[:40])
