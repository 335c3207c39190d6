"""Counts of a tokenized data set: rows, tokens, lengths, and how evenly codes are used.

Knows: the shards' columns. Does not know: what is good. Costs: every code is read once.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lumoomni.audits.dataset_rows import LISTS, Opened, length_metrics, open_rows
from lumoomni.data.shard_set import ShardSet


@dataclass(frozen=True, kw_only=True)
class CodeUse:
    """One codebook: codes counted, entropy in bits of at most `most`, codes that never came."""

    codes: int
    entropy: float
    most: float
    dead: int
    size: int


@dataclass(frozen=True, kw_only=True)
class DatasetStats:
    """Rows by "split task source", ids by column, lengths of whole sequences in ids, the shares
    that are cut or do not fit, and the use of each codebook."""

    rows: dict[str, int]
    tokens: dict[str, int]
    left_out: int
    lengths: dict[str, float]
    cut: float
    too_long: float
    books: dict[str, CodeUse]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return asdict(self)


def dataset_stats(folder: str | Path, context: int) -> DatasetStats:
    """Raises InputError for a folder that is not whole."""
    shards = ShardSet.open(folder)
    files = {n: said for n, said in shards.index["files"].items() if n.endswith(".arrow")}
    opened = open_rows(str(folder), files)
    rows = Counter(
        f"{split} {task} {source}"
        for one in opened
        for split, task, source in zip(
            *(one.strings[name] for name in ("split", "task", "source")), strict=True
        )
    )
    measured = length_metrics(opened, context)
    prefix = "dataset.length_"
    return DatasetStats(
        rows=dict(sorted(rows.items())),
        tokens={name: sum(len(one.values[name]) for one in opened) for name in LISTS},
        left_out=sum(len(one.shard.note.bad) for one in opened),
        lengths={n.removeprefix(prefix): m.value for n, m in measured.items() if prefix in n},
        cut=measured["dataset.cut"].value,
        too_long=measured["dataset.too_long"].value,
        books=code_use(opened, shards),
    )


def code_use(opened: Opened, shards: ShardSet) -> dict[str, CodeUse]:
    """Each codebook's use, over all splits."""
    found = {}
    for codec in shards.space.codecs:
        counts = np.zeros((codec.codebooks, codec.codebook_size), dtype=np.int64)
        for rows in opened:
            grid = rows.values[codec.kind].reshape(-1, codec.codebooks)
            for q in range(codec.codebooks):
                counts[q] += np.bincount(grid[:, q], minlength=codec.codebook_size)
        for (name, size), used in zip(codec.ranges(), counts, strict=True):
            found[name] = CodeUse(
                codes=int(used.sum()),
                entropy=entropy_bits(used),
                most=float(np.log2(size)),
                dead=int((used == 0).sum()),
                size=size,
            )
    return found


def entropy_bits(counts: np.ndarray) -> float:
    """Of how often each code came [K], in bits; 0 for none."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) if len(shares) else 0.0
