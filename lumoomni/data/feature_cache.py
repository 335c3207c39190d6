"""What a frozen tower saw, kept in Arrow files, so that training need not look again.

Knows: arrays of one shape and type by the hash of their picture; shards that are whole or absent;
memory-mapped reading. Does not know: towers, pictures or training.
Costs: the features' own bytes on disk (SO400M at 384 pixels: 1.7 MB a picture in bfloat16, 940 GB
for 558,000 of them: for small towers, small sets and many epochs); reading is a copy from the
page cache. Needs `lumoomni[data]`.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumoomni.errors import InputError
from lumoomni.runtime import atomic_write_json, disk_full

SHARD = "features-{:05d}.arrow"
FACTS = "facts.json"
SHARD_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class FeatureFacts:
    """What all features of a cache share: the tower's hash, how pictures are prepared, the kind of
    device and of products that saw them (bits differ between kinds), shape and type."""

    tower: str
    prepare: str
    device: str
    shape: tuple[int, int]
    dtype: str

    @property
    def key(self) -> str:
        """Names the cache: other towers, other processors, other types, other key."""
        text = json.dumps([self.tower, self.prepare, self.device, list(self.shape), self.dtype])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def each(self) -> int:
        """Bytes of one picture's features."""
        return self.shape[0] * self.shape[1] * torch.empty(0, dtype=self.type).element_size()

    @property
    def type(self) -> torch.dtype:
        """The features' type."""
        return getattr(torch, self.dtype)


class FeatureCache:
    """Features [N, V] by picture hash, in a folder of its own under `root`.

    Raises InputError when pyarrow is missing, or when a shard cannot be read.
    """

    def __init__(self, root: Path, facts: FeatureFacts) -> None:
        self.facts, self.folder = facts, root / facts.key
        self._arrow = _arrow()
        self._places: dict[str, tuple[int, int]] = {}
        self._shards: list[Any] = []
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / FACTS).exists():
            atomic_write_json(self.folder / FACTS, {**vars(facts), "shape": list(facts.shape)})
        while (path := self._path(len(self._shards))).exists():
            self._open(path)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, keys: Sequence[str]) -> Tensor:
        """[I, N, V] in the order of the keys. Raises KeyError for one that is not kept."""
        found = torch.empty(len(keys), *self.facts.shape, dtype=self.facts.type)
        for row, key in enumerate(keys):
            shard, place = self._places[key]
            data = self._shards[shard].column("features")[place].as_buffer()
            kept = torch.frombuffer(bytearray(data), dtype=self.facts.type)
            found[row] = kept.view(self.facts.shape)
        return found

    def fill(self, made: Iterable[tuple[str, Tensor]], count: int) -> Iterator[int]:
        """Write `count` features as they come; yields how many are there. Whole shards survive.

        Raises InputError when the disk has no room for them.
        """
        needed = count * self.facts.each
        if needed > shutil.disk_usage(self.folder).free:
            raise disk_full(self.folder, needed)
        keys: list[str] = []
        rows: list[bytes] = []
        for key, features in made:
            if tuple(features.shape) != self.facts.shape or features.dtype != self.facts.type:
                raise ValueError(
                    f"features are {list(features.shape)} {features.dtype}, the cache holds "
                    f"{list(self.facts.shape)} {self.facts.dtype}"
                )
            keys.append(key)
            flat = features.detach().cpu().contiguous().view(torch.uint8).reshape(-1)
            rows.append(flat.numpy().tobytes())
            if len(rows) * self.facts.each >= SHARD_BYTES:
                self._write(keys, rows)
                keys, rows = [], []
            yield 1
        if rows:
            self._write(keys, rows)

    def _path(self, number: int) -> Path:
        return self.folder / SHARD.format(number)

    def _write(self, keys: list[str], rows: list[bytes]) -> None:
        """One shard, whole or not at all."""
        arrow, path = self._arrow, self._path(len(self._shards))
        features = arrow.array(rows, arrow.binary(self.facts.each))
        table = arrow.table({"picture": arrow.array(keys), "features": features})
        draft = path.with_suffix(".part")
        with arrow.OSFile(str(draft), "wb") as sink, arrow.ipc.new_file(sink, table.schema) as out:
            # One batch: a row's place is then the same in the table and in the file.
            out.write_batch(table.combine_chunks().to_batches()[0])
        draft.replace(path)
        self._open(path)

    def _open(self, path: Path) -> None:
        arrow = self._arrow
        try:
            table = arrow.ipc.open_file(arrow.memory_map(str(path))).read_all()
        except (arrow.ArrowInvalid, OSError) as error:
            raise InputError(
                f"{path} is no whole shard of features ({error}); remove {self.folder} and they "
                "are made again"
            ) from error
        number = len(self._shards)
        self._shards.append(table)
        for place, key in enumerate(table.column("picture").to_pylist()):
            self._places[key] = (number, place)


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise InputError("cached features need `pip install lumoomni[data]`") from error
    return pyarrow
