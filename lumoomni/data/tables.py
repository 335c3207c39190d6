"""Arrow and Parquet files as tables that are read a group of rows at a time.

Knows: Arrow's stream format, memory-mapped, and Parquet; files that are cut off.
Does not know: what the columns mean. Needs `lumoomni[data]`.
Costs: a group of an Arrow file is not copied; one of a Parquet file is unpacked when one of its
rows is wanted (0.1 s for 1,000 pictures) and KEPT of them stay in memory.
"""

import io
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from lumoomni.data.rows import printable
from lumoomni.data.stored import Window
from lumoomni.errors import InputError

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
KEPT = 4
_UNPACKING = threading.Lock()


@dataclass(frozen=True, eq=False)
class Table:
    """One file: its column names with Arrow types, and the row that each of its groups begins at.

    `batches` of an Arrow file; None for Parquet.
    """

    path: Path
    types: dict[str, Any]
    starts: tuple[int, ...]
    batches: tuple[Any, ...] | None

    def column(self, group: int, name: str) -> Any:
        """An Arrow array of one column of a group. Raises OSError for a damaged file."""
        if self.batches is None:
            return _unpacked(self, group, name)
        return self.batches[group].column(name)


@dataclass(frozen=True, slots=True)
class Cell:
    """The bytes of one picture: `part` of a list of them, or None for a column of one each."""

    table: Table
    column: str
    group: int
    row: int
    part: int | None
    size: int

    @property
    def container(self) -> Path:
        return self.table.path

    def open(self) -> BinaryIO:
        value = self.table.column(self.group, self.column)[self.row]
        data = stored_bytes(value if self.part is None else value.values[self.part])
        view = memoryview(data).cast("B")

        def fetch(start: int, count: int) -> memoryview:
            return view[start : start + count]

        # Arrow's own reader refuses to seek past the end, which Pillow does.
        return io.BufferedReader(Window(self.size, fetch))

    def __str__(self) -> str:
        part = "" if self.part is None else f" {self.part}"
        number = self.table.starts[self.group] + self.row
        return printable(f"{self.table.path}[{number}] {self.column}{part}")


def stored_bytes(value: Any) -> Any:
    """Arrow's buffer of a picture: a struct with `bytes`, or bytes; None where there are none."""
    kinds = arrow().types
    if kinds.is_struct(value.type):
        if not value.is_valid or "bytes" not in value:
            return None
        value = value["bytes"]
    held = kinds.is_binary(value.type) or kinds.is_large_binary(value.type)
    return value.as_buffer() if held and value.is_valid else None


def parts_of(value: Any) -> list[Any] | None:
    """The scalars of a list; None for a scalar that is no list."""
    kinds = arrow().types
    if not kinds.is_list(value.type) and not kinds.is_large_list(value.type):
        return None
    return list(value.values) if value.is_valid else []


def open_table(path: Path) -> Table:
    """A `.parquet`, or an Arrow stream. Raises InputError for a file that is not whole."""
    pyarrow = arrow()
    name = printable(str(path))
    if not path.is_file():
        raise InputError(f"there is no file {name}; the data set names it, so get a whole copy")
    try:
        return _parquet(path) if path.suffix == ".parquet" else _arrow_stream(path)
    except (pyarrow.ArrowException, OSError) as error:
        said = _first_line(error)
        raise InputError(f"{name} is damaged or cut off ({said}); get a whole copy") from error


def arrow() -> Any:
    """The library. Raises InputError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("the format hf needs `pip install lumoomni[data]`") from error
    return pyarrow


def _arrow_stream(path: Path) -> Table:
    pyarrow = arrow()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(END_OF_STREAM)))
        # A stream that lost its tail between two batches would read as a shorter one.
        if file.read() != END_OF_STREAM:
            raise OSError("it has no end mark")
    with pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))) as reader:
        batches = tuple(reader)
        types = {field.name: field.type for field in reader.schema}
    return Table(path, types, _starts([batch.num_rows for batch in batches]), batches)


def _parquet(path: Path) -> Table:
    pyarrow = arrow()
    with pyarrow.parquet.ParquetFile(str(path), memory_map=True) as file:
        types = {field.name: field.type for field in file.schema_arrow}
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return Table(path, types, _starts(counts), None)


def _starts(counts: list[int]) -> tuple[int, ...]:
    """Where each group begins, and where the last one ends."""
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return tuple(starts)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _unpacked(table: Table, group: int, name: str) -> Any:
    """A column of a Parquet row group; in reading order each group is unpacked once, by one thread
    while others that want it wait: unpacked by each, it would take the memory of all."""
    with _UNPACKING:
        return _kept(table, group, name)


@lru_cache(maxsize=KEPT)
def _kept(table: Table, group: int, name: str) -> Any:
    pyarrow = arrow()
    try:
        with pyarrow.parquet.ParquetFile(str(table.path), memory_map=True) as file:
            found = file.read_row_group(group, columns=[name], use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise OSError(f"{table.path} is damaged ({_first_line(error)})") from error
    return found.column(name)
