"""Folders of token shards for tests, written as tokenizing leaves them, and spoilt on purpose."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lumoomni.data.shard_set import INDEX, ShardSet
from lumoomni.data.shards import LISTS, Counts, ShardNote, open_shard, shard_bytes
from lumoomni.uti.space import TokenSpace

Row = dict[str, Any]


def row(name: str, task: str, split: str = "train", **changes: Any) -> Row:
    """A row with every column; nothing in it but what is given."""
    empty = {column: np.zeros(0, np.int32) for column in LISTS}
    words = {"source": "fake", "official": "", "image_sha256": "", "audio_sha256": ""}
    base = {"id": name, "task": task, "split": split, "frames": 0, "meta": {}}
    return {**base, **words, **empty, **changes}


def write_shards(
    folder: Path,
    space: TokenSpace,
    rows: Sequence[Row],
    *,
    each: int = 7,
    manifest: str = "",
    note_abi: str = "",
) -> Path:
    """A finished folder of the rows, `each` a shard."""
    files: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for split in sorted({one["split"] for one in rows}):
        mine = [one for one in rows if one["split"] == split]
        total = Counts()
        for number, start in enumerate(range(0, len(mine), each)):
            note = ShardNote(abi=note_abi or space.abi, inputs="")
            data = shard_bytes(mine[start : start + each], note)
            path = folder / split / f"shard-{number:05d}.arrow"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            shard = open_shard(str(path))
            files[path.relative_to(folder).as_posix()] = {
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": len(data),
                "rows": shard.rows,
                "tokens": sum(shard.counts.tokens.values()),
            }
            total += shard.counts
        counts[split] = asdict(total)
    folder.mkdir(parents=True, exist_ok=True)
    index = {
        "schema": 1,
        "abi": space.abi,
        "space": space.meaning(),
        "manifest": manifest,
        "codec": {},
        "counts": counts,
        "files": files,
    }
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def read_rows(folder: Path) -> list[Row]:
    """All rows of a folder, to be changed and written again."""
    shards = ShardSet.open(folder)
    found = []
    for split in shards.splits:
        for i in range(shards.len(split)):
            found.append(dict(vars(shards.sample(split, i))))
    return found


def spoil(folder: Path, out: Path, change: Callable[[list[Row]], list[Row] | None]) -> Path:
    """A copy of a folder whose rows were changed before they were written and hashed."""
    shards = ShardSet.open(folder)
    rows = read_rows(folder)
    changed = change(rows)
    return write_shards(
        out, shards.space, rows if changed is None else changed, manifest=shards.index["manifest"]
    )
