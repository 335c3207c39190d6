"""One shard: an Arrow file of tokenized samples, written in one piece and read by memory map.

Knows: the columns, and what a shard says of itself. Does not know: codecs, spaces or folders.
Costs: writing holds one shard in memory; reading costs nothing until a page is touched, and arrays
are views of the map. Needs `lumoomni[data]`.

Image and audio hold a codec's own codes, not ids of a space, so that a new layout of the space
needs no new tokenizing. Nothing in a shard is a date, a path of a machine or a random number: the
same rows are the same bytes.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lumoomni.config import canonical_json
from lumoomni.data.storage import is_url, local, read_bytes
from lumoomni.errors import InputError

STRINGS = ("id", "source", "task", "split", "official")
LISTS = ("text", "prompt", "image", "audio")
REST = ("frames", "image_sha256", "audio_sha256", "meta")
NOTE = b"lumoomni"
SCHEMA = 1
BLANK = hashlib.sha256(b"where the digest of a shard will stand").hexdigest()
DIGEST = re.compile(rb'"digest":"([0-9a-f]{64})"')


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokenized:
    """One sample. Arrays are int32 [T], read-only views of the shard; image and audio are codes of
    their codec ([N] and [F * Q], frame by frame), empty where there is none. `meta` holds side
    data, picture size, seconds and licence."""

    id: str
    source: str
    task: str
    split: str
    official: str
    text: np.ndarray
    prompt: np.ndarray
    image: np.ndarray
    audio: np.ndarray
    frames: int
    image_sha256: str
    audio_sha256: str
    meta: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A record that could not be used. `found` is the SHA-256 of the file as it was, or empty:
    while it is the same, trying again is of no use."""

    id: str
    path: str
    reason: str
    found: str = ""


@dataclass(frozen=True, kw_only=True)
class ShardNote:
    """What a shard says of itself: the ABI of its space, the hash of what it was made from, and
    the records left out. `digest` is the SHA-256 of the file as it was before it held the digest,
    with BLANK in its place."""

    abi: str
    inputs: str
    bad: tuple[Bad, ...] = ()
    digest: str = ""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Rows, tokens by column, rows by task, and records left out."""

    rows: int = 0
    bad: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            rows=self.rows + other.rows,
            bad=self.bad + other.bad,
            tokens=_added(self.tokens, other.tokens),
            tasks=_added(self.tasks, other.tasks),
        )


class Shard:
    """An opened shard; `sample` gives a row. Raises InputError when it is damaged."""

    def __init__(self, source: Any, where: str) -> None:
        arrow = pyarrow()
        try:
            reader = arrow.ipc.open_file(source)
            batches = reader.num_record_batches
            self.batch: Any = reader.get_batch(0) if batches == 1 else None
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, OSError) as error:
            raise InputError(f"{where} is no whole shard ({error}); tokenize again") from error
        if self.batch is None:
            raise InputError(f"{where} holds {batches} record batches, a shard has one")
        self.note = _note(self.batch.schema, where)
        wanted = schema()
        if not self.batch.schema.equals(wanted):
            raise InputError(
                f"{where} has the columns {_columns(self.batch.schema)}, a shard has "
                f"{_columns(wanted)}; tokenize again"
            )
        holes = [name for name in wanted.names if self.batch.column(name).null_count]
        if holes:
            raise InputError(f"{where} has missing values in {holes}, a shard has none")
        self.rows: int = self.batch.num_rows
        columns = {name: self.batch.column(name) for name in wanted.names}
        self._strings = [_Strings(columns[name]) for name in (*STRINGS, *REST[1:])]
        self._lists = [_Lists(columns[name]) for name in LISTS]
        self._frames = memoryview(columns["frames"].to_numpy(zero_copy_only=True))

    def sample(self, row: int) -> Tokenized:
        """Raises IndexError for a row that is not there."""
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of a shard of {self.rows}")
        name, source, task, split, official, image_hash, audio_hash, meta = (
            column[row] for column in self._strings
        )
        text, prompt, image, audio = (column[row] for column in self._lists)
        return Tokenized(
            id=name,
            source=source,
            task=task,
            split=split,
            official=official,
            text=text,
            prompt=prompt,
            image=image,
            audio=audio,
            frames=self._frames[row],
            image_sha256=image_hash,
            audio_sha256=audio_hash,
            meta=json.loads(meta),
        )

    @cached_property
    def counts(self) -> Counts:
        """Reads no token."""
        tasks = Counter(self.batch.column("task").to_pylist())
        return Counts(
            rows=self.rows,
            bad=len(self.note.bad),
            tokens={name: len(one.values) for name, one in zip(LISTS, self._lists, strict=True)},
            tasks=dict(sorted(tasks.items())),
        )


def shard_bytes(rows: Sequence[Mapping[str, Any]], note: ShardNote) -> bytes:
    """A shard's file. Rows hold every column; `meta` is a dict. Equal rows are equal bytes."""
    arrow = pyarrow()
    columns = [
        arrow.array(
            [canonical_json(row["meta"]) if one.name == "meta" else row[one.name] for row in rows],
            one.type,
        )
        for one in schema()
    ]
    batch = arrow.record_batch(columns, schema=schema())
    said = {**vars(note), "bad": [vars(one) for one in note.bad], "digest": BLANK}
    batch = batch.replace_schema_metadata({NOTE: canonical_json(said).encode()})
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_file(sink, batch.schema) as out:
        out.write_batch(batch)
    data = sink.getvalue().to_pybytes()
    if data.count(BLANK.encode()) != 2:
        raise ValueError("an Arrow file must hold its schema at its start and at its end")
    return data.replace(BLANK.encode(), hashlib.sha256(data).hexdigest().encode())


def listed(data: bytes, shard: Shard) -> dict[str, Any]:
    """What a folder's index says of a shard's file."""
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "rows": shard.rows,
        "tokens": sum(shard.counts.tokens.values()),
    }


def intact(data: bytes) -> bool:
    """Whether a shard's file is, to the byte, what was written. Reads it as bytes, since Arrow may
    end the process on damaged rows."""
    found = DIGEST.search(data)
    if found is None:
        return False
    blank = data.replace(found[1], BLANK.encode())
    return hashlib.sha256(blank).hexdigest().encode() == found[1]


def open_shard(path: str) -> Shard:
    """By memory map where it is local, else from memory. Raises InputError naming the file."""
    arrow = pyarrow()
    if is_url(path):
        return Shard(arrow.py_buffer(read_bytes(path)), path)
    try:
        # The map lives as long as views of it do; the file itself need not stay open.
        with arrow.memory_map(str(local(path))) as source:
            return Shard(source, path)
    except (OSError, arrow.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be opened ({error}); tokenize again") from error


def schema() -> Any:
    """The columns of every shard, without its note."""
    arrow = pyarrow()
    return arrow.schema(
        [(name, arrow.string()) for name in STRINGS]
        + [(name, arrow.list_(arrow.int32())) for name in LISTS]
        + [(name, arrow.int32() if name == "frames" else arrow.string()) for name in REST]
    )


def pyarrow() -> Any:
    """The package. Raises InputError when it is missing."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise InputError("shards need `pip install lumoomni[data]`") from error
    return pyarrow


class _Strings:
    """Texts of a column, decoded one at a time."""

    def __init__(self, column: Any) -> None:
        _, starts, data = column.buffers()
        self._starts = memoryview(b"" if starts is None else starts).cast("i")
        self._data = memoryview(b"" if data is None else data)

    def __getitem__(self, row: int) -> str:
        return str(self._data[self._starts[row] : self._starts[row + 1]], "utf-8")


class _Lists:
    """Views int32 [T] of a column of lists."""

    def __init__(self, column: Any) -> None:
        self.values: np.ndarray = column.values.to_numpy(zero_copy_only=True)
        self._starts = memoryview(column.offsets.to_numpy(zero_copy_only=True))

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self._starts[row] : self._starts[row + 1]]


def _note(found: Any, where: str) -> ShardNote:
    try:
        said = json.loads((found.metadata or {})[NOTE])
        if said["schema"] > SCHEMA:
            raise InputError(
                f"{where} was written with schema {said['schema']}, this version reads up to "
                f"{SCHEMA}; upgrade lumoomni"
            )
        return ShardNote(**{**said, "bad": tuple(Bad(**one) for one in said["bad"])})
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} is an Arrow file, but no shard of ours ({error!r})") from error


def _columns(found: Any) -> str:
    return ", ".join(f"{one.name}: {one.type}" for one in found)


def _added(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}
