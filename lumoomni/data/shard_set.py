"""A finished folder of shards: opened, verified, and read by split and number.

Knows: `shards.json`, the hash of each file, and the token space that the codes belong to.
Does not know: codecs, tasks or batches. Costs: verifying reads every file once (`verify=False`
skips it); a sample costs some microseconds, and no memory but the pages that it lies on.

    shards = ShardSet.open("runs/shards")
    shards.sample("train", 0).image      # int32 [N], a view of the file
"""

import json
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

from lumoomni.data import storage
from lumoomni.data.shards import SCHEMA, Counts, Shard, Tokenized, open_shard
from lumoomni.errors import InputError
from lumoomni.uti.space import TokenSpace
from lumoomni.uti.space_file import refuse_other, space_of

INDEX = "shards.json"
ERRORS = "errors.jsonl"
NEEDED = ("abi", "space", "manifest", "codec", "counts", "files")


class ShardSet:
    """Samples of a folder of shards. Make one with `open`. Can be sent to other processes."""

    def __init__(self, path: str, index: dict[str, Any]) -> None:
        """`index` is what `shards.json` says, checked by `open`."""
        self.path, self.index = path, index
        self.space: TokenSpace = space_of(index["space"], f"{path}/{INDEX}")
        self.abi: str = self.space.abi
        self._names: dict[str, list[str]] = {}
        for name in sorted(index["files"], key=_order):
            if name.endswith(".arrow"):
                self._names.setdefault(name.partition("/")[0], []).append(name)
        self._ends = {
            split: list(accumulate(int(index["files"][name]["rows"]) for name in names))
            for split, names in self._names.items()
        }
        self._open: dict[str, Shard] = {}

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True, abi: str = "") -> "ShardSet":
        """Raises InputError for a folder that is unfinished, lacks a file or has one too many, or
        belongs to another space than `abi`; with `verify`, also for any changed byte, by name."""
        path = str(path)
        index = _index(path)
        try:
            found = cls(path, index)
            found._same_meaning(abi)
            _same_files(path, index["files"])
            if verify:
                found._verify()
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{path}/{INDEX} is damaged ({error!r}); tokenize again") from error
        return found

    @property
    def splits(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(sorted(self._names))

    @property
    def counts(self) -> dict[str, Counts]:
        """What each split holds."""
        return {name: Counts(**said) for name, said in self.index["counts"].items()}

    def len(self, split: str) -> int:
        """Rows of a split. Raises InputError naming the splits when there is no such one."""
        return self._of(split)[-1]

    def sample(self, split: str, index: int) -> Tokenized:
        """A row by its number in the split. Raises IndexError beyond the last."""
        ends = self._of(split)
        if not 0 <= index < ends[-1]:
            raise IndexError(f"row {index} of {ends[-1]} in {split} of {self.path}")
        number = bisect_right(ends, index)
        shard = self._shard(self._names[split][number])
        return shard.sample(index - (ends[number - 1] if number else 0))

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split in their order, opened."""
        self._of(split)
        return [self._shard(name) for name in self._names[split]]

    def _of(self, split: str) -> list[int]:
        if split not in self._ends:
            raise InputError(f"{self.path} has no split {split!r}; it has {', '.join(self.splits)}")
        return self._ends[split]

    def _shard(self, name: str) -> Shard:
        """Opened at its first use; a map that nobody touches costs no memory."""
        found = self._open.get(name)
        if found is None:
            path = storage.join(self.path, name)
            found = self._open[name] = open_shard(path)
            refuse_other(self.abi, found.note.abi, path)
            rows = self.index["files"][name]["rows"]
            if found.rows != rows:
                raise InputError(f"{path} holds {found.rows} rows, {INDEX} says {rows}")
        return found

    def _same_meaning(self, abi: str) -> None:
        said = str(self.index["abi"])
        if self.abi != said:
            raise InputError(
                f"{self.path}/{INDEX} says that its ABI hash is {said[:12]}..., but its space "
                f"hashes to {self.abi[:12]}...; it was changed by hand, so tokenize again"
            )
        if abi:
            refuse_other(abi, self.abi, self.path)

    def _verify(self) -> None:
        for name, said in self.index["files"].items():
            path = storage.join(self.path, name)
            if storage.sha256(path) != said["sha256"]:
                raise InputError(
                    f"{path} changed since it was made: its SHA-256 is not the one in {INDEX}; "
                    "restore it, or tokenize into a new folder"
                )
            if name.endswith(".arrow"):
                self._shard(name)
        told = {name: sum(self._shard(n).rows for n in self._names[name]) for name in self.splits}
        counted = {name: one.rows for name, one in self.counts.items()}
        if told != counted:
            raise InputError(f"{self.path} holds {told} rows, {INDEX} says {counted}")

    def __len__(self) -> int:
        return sum(ends[-1] for ends in self._ends.values())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def _order(name: str) -> tuple[int, str]:
    """Shard 100000 comes after shard 99999."""
    return len(name), name


def _index(path: str) -> dict[str, Any]:
    where = storage.join(path, INDEX)
    if not storage.exists(where):
        if not storage.exists(path):
            raise InputError(f"there is no {path}; give the folder that `lumo tokenize` wrote")
        raise InputError(
            f"{path} has no {INDEX}: tokenizing is unfinished, or this is no folder of shards; run "
            "the same `lumo tokenize` again"
        )
    try:
        index = json.loads(storage.read_bytes(where))
        schema = int(index["schema"])
        missing = [name for name in NEEDED if name not in index]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} is damaged ({error!r}); tokenize again") from error
    if schema > SCHEMA:
        raise InputError(
            f"{where} was written with schema {schema}, this version reads up to {SCHEMA}; "
            "upgrade lumoomni"
        )
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}; tokenize again")
    return index


def _same_files(path: str, files: dict[str, Any]) -> None:
    """Raises InputError for a file that is missing, too many, or of another length; on a web
    server, which lists nothing, none can be too many."""
    there = storage.listing(path) if storage.lists(path) else storage.sizes(path, files)
    missing = [name for name in files if name not in there]
    if missing:
        raise InputError(f"{path} lacks {missing[0]}, which {INDEX} lists; restore it")
    extra = [name for name in there if name not in files and name != INDEX]
    if extra:
        raise InputError(f"{path} holds {extra[0]}, which {INDEX} does not list; take it away")
    for name, said in files.items():
        if there[name] not in (said["bytes"], None):
            raise InputError(
                f"{storage.join(path, name)} has {there[name]:,} bytes, {INDEX} says "
                f"{said['bytes']:,}; it was cut off or changed, so restore it"
            )
