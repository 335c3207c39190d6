"""What stands in a folder of token shards: files, columns, ranges, shapes, splits and doubles.

Knows: the shards' columns and the token space that they name. Does not know: codecs, media or what
is good enough. Costs: every byte once to be hashed and once to be read; some 300 bytes of memory a
row, and for near duplicates 20 bytes a code of all splits but the largest.

Every file is opened by itself, so that one that is damaged is counted, not the end of the audit.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lumoomni.data.asset_split import held_out
from lumoomni.data.near_duplicates import near_duplicates
from lumoomni.data.shards import LISTS, Shard, open_shard
from lumoomni.data.storage import join, sha256
from lumoomni.errors import InputError
from lumoomni.gates import Metric, exact, wilson
from lumoomni.uti.space import TokenSpace
from lumoomni.uti.tasks import TASKS, cut_of, length_of

KINDS = ("image", "audio")


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The rows of one shard as columns: strings [n], `values` int32 of each list column one after
    the other, and where each row's begin and end, `starts` int [n + 1]."""

    name: str
    shard: Shard
    strings: dict[str, list[str]]
    frames: np.ndarray
    values: dict[str, np.ndarray]
    starts: dict[str, np.ndarray]

    def __len__(self) -> int:
        return self.shard.rows

    def lengths(self, column: str) -> np.ndarray:
        """Ids of each row int [n]."""
        return np.diff(self.starts[column])

    def codes(self, column: str, row: int) -> np.ndarray:
        """One row's, a view."""
        start, stop = self.starts[column][row : row + 2]
        return self.values[column][start:stop]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The shards that could be opened, and what is wrong with files: by name, why."""

    shards: tuple[Rows, ...]
    files: int
    changed: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Rows]:
        return iter(self.shards)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.shards)


def open_rows(folder: str, files: dict[str, dict[str, Any]]) -> Opened:
    """Every file of a listing {name: {sha256, ...}}, hashed and opened one by one.

    What is changed is not read: damaged Arrow can end the process that reads it.
    """
    shards: list[Rows] = []
    changed: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for name, facts in sorted(files.items()):
        path = join(folder, name)
        try:
            found, said = sha256(path), str(facts.get("sha256", "named"))
            if found != said:
                changed[name] = f"SHA-256 is {found[:12]}..., not {said[:12]}..."
        except InputError as error:
            changed[name] = str(error)
        if name in changed:
            unreadable[name] = "it was changed, and is not read"
            continue
        try:
            shards.append(_rows(name, open_shard(path)))
        except InputError as error:
            unreadable[name] = str(error)
    return Opened(shards=tuple(shards), files=len(files), changed=changed, unreadable=unreadable)


def _rows(name: str, shard: Shard) -> Rows:
    batch: Any = shard.batch
    lists = {column: batch.column(column) for column in LISTS}
    strings = ("id", "source", "task", "split", "official", "image_sha256", "audio_sha256")
    return Rows(
        name=name,
        shard=shard,
        strings={column: batch.column(column).to_pylist() for column in strings},
        frames=batch.column("frames").to_numpy(zero_copy_only=True),
        values={n: column.values.to_numpy(zero_copy_only=True) for n, column in lists.items()},
        starts={n: column.offsets.to_numpy(zero_copy_only=True) for n, column in lists.items()},
    )


def file_metrics(opened: Opened, abi: str) -> dict[str, Metric]:
    """Shares of files that are whole, that have the columns, and that name the space."""
    same = [rows.shard.note.abi == abi for rows in opened]
    return {
        "dataset.files_whole": wilson(opened.files - len(opened.changed), opened.files),
        "dataset.schema": wilson(opened.files - len(opened.unreadable), opened.files),
        "dataset.abi_match": wilson(sum(same), opened.files),
    }


def row_metrics(opened: Opened, space: TokenSpace) -> dict[str, Metric]:
    """Rows by split, and the shares whose ids are in range and whose shapes fit."""
    count = len(opened)
    by_split = Counter(split for rows in opened for split in rows.strings["split"])
    found = {f"dataset.rows_{split}": exact(n, n) for split, n in sorted(by_split.items())}
    ranged = sum(int(in_range(rows, space).sum()) for rows in opened)
    shaped = sum(int(well_shaped(rows, space).sum()) for rows in opened)
    found["dataset.rows"] = exact(count, count)
    found["dataset.in_range"] = wilson(ranged, count)
    found["dataset.shapes"] = wilson(shaped, count)
    return found


def in_range(rows: Rows, space: TokenSpace) -> np.ndarray:
    """bool [n]: text within TEXT, codes within their codebooks."""
    sizes = {"text": space.named("TEXT").size, "prompt": space.named("TEXT").size}
    sizes |= {codec.kind: codec.codebook_size for codec in space.codecs}
    good = np.ones(len(rows), dtype=bool)
    for column in LISTS:
        values = rows.values[column]
        (wrong,) = ((values < 0) | (values >= sizes.get(column, 0))).nonzero()
        good[np.searchsorted(rows.starts[column], wrong, side="right") - 1] = False
    return good


def well_shaped(rows: Rows, space: TokenSpace) -> np.ndarray:
    """bool [n]: whole pictures, whole frames, as many as are said, in the folder of their split,
    and what the task needs."""
    lengths = {column: rows.lengths(column) for column in LISTS}
    codecs = {codec.kind: codec for codec in space.codecs}
    good = np.ones(len(rows), dtype=bool)
    for kind in KINDS:
        there = lengths[kind] > 0
        good &= there == np.array([bool(one) for one in rows.strings[f"{kind}_sha256"]], bool)
        codec = codecs.get(kind)
        if codec is None:
            good &= ~there
        elif kind == "image":
            good &= ~there | (lengths[kind] == codec.tokens)
        else:
            good &= lengths[kind] == rows.frames * codec.codebooks
    split = rows.name.partition("/")[0]
    good &= np.array([one == split for one in rows.strings["split"]], bool)
    for row, task in enumerate(rows.strings["task"]):
        needed = TASKS.get(task, ())
        good[row] &= bool(needed) and all(lengths[kind][row] for kind, _ in needed)
    return good


def split_metrics(opened: Opened) -> tuple[dict[str, Metric], list[str]]:
    """Assets on two sides, rows that train on what a data set holds out, ids that stand twice, and
    the share of rows that another one repeats; and the first of each by name.

    A row's assets are its media by their hashes, or its text where it has none. Held out are those
    of which any row says so, under whatever name and with whatever else they stand elsewhere.
    """
    sides: dict[str, set[str]] = {}
    held: set[str] = set()
    names: Counter[str] = Counter()
    same: Counter[tuple[str, ...]] = Counter()
    for rows in opened:
        for row, assets in enumerate(_assets(rows)):
            for asset in assets:
                sides.setdefault(asset, set()).add(rows.strings["split"][row])
            if _held(rows.strings["official"][row]):
                held.update(assets)
            names[rows.strings["id"][row]] += 1
            words = rows.codes("text", row).tobytes() + b"|" + rows.codes("prompt", row).tobytes()
            same[
                "+".join(assets), rows.strings["task"][row], hashlib.sha256(words).hexdigest()
            ] += 1
    crossing = [asset for asset, splits in sides.items() if len(splits) > 1]
    trained = [asset for asset in held if "train" in sides[asset]]
    twice = [name for name, n in names.items() if n > 1]
    count = len(opened)
    found = {
        "dataset.split_overlap": exact(len(crossing), len(sides)),
        "dataset.official_overlap": exact(len(trained), len(sides)),
        "dataset.duplicate_ids": exact(len(twice), count),
        "dataset.duplicate_rows": wilson(count - len(same), count),
    }
    said = [f"asset {one[:12]}... is in two splits" for one in sorted(crossing)[:3]]
    said += [f"asset {one[:12]}... is held out, and trained on" for one in sorted(trained)[:3]]
    said += [f"id {one} stands twice" for one in sorted(twice)[:3]]
    return found, said


def _assets(rows: Rows) -> Iterator[list[str]]:
    for row in range(len(rows)):
        media = [rows.strings[f"{kind}_sha256"][row] for kind in KINDS]
        own = [one for one in media if one]
        yield own or [hashlib.sha256(rows.codes("text", row).tobytes()).hexdigest()]


def _held(official: str) -> bool:
    """Unknown names count as held out: they might be."""
    try:
        return held_out(official)
    except InputError:
        return True


def near_metric(opened: Opened, *, n: int, at_least: float) -> tuple[Metric, list[str]]:
    """Share of held-out media whose codes are nearly those of a medium that is trained on."""
    held: set[str] = set()
    pairs: set[str] = set()
    said: list[str] = []
    for kind in KINDS:
        held |= {key for key, split, _ in _media(opened, kind) if split != "train"}
        for pair in near_duplicates(_media(opened, kind), n=n, at_least=at_least):
            if "train" in (pair.first_split, pair.second_split):
                out = pair.second if pair.first_split == "train" else pair.first
                pairs.add(out)
                if len(said) < 3:
                    said.append(
                        f"{kind} {pair.first[:12]}... and {pair.second[:12]}... are "
                        f"{pair.similarity:.0%} the same"
                    )
    return wilson(len(pairs & held), len(held)), said


def _media(opened: Opened, kind: str) -> Iterable[tuple[str, str, np.ndarray]]:
    """Each medium once a split: (hash, split, codes)."""
    seen: set[tuple[str, str]] = set()
    for rows in opened:
        for row, name in enumerate(rows.strings[f"{kind}_sha256"]):
            key = (name, rows.strings["split"][row])
            if name and key not in seen:
                seen.add(key)
                yield (*key, rows.codes(kind, row))


def length_metrics(opened: Opened, context: int) -> dict[str, Metric]:
    """Percentiles of whole sequences, shares that are cut and that do not fit, rows without labels,
    and the share of ids that are learned."""
    lengths, cuts, learned = [], [], []
    for rows in opened:
        counts = {column: rows.lengths(column) for column in LISTS}
        tasks = np.array(rows.strings["task"], dtype=object)
        for task, parts in TASKS.items():
            (mine,) = (tasks == task).nonzero()
            own = {column: counts[column][mine] for column in LISTS}
            whole = length_of(task, **own)
            cut = cut_of(task, own["text"], whole, context)
            lengths.append(np.where(cut > 0, whole - cut, whole))
            cuts.append(cut)
            target = own[parts[-1][0]]
            learned.append(np.where(target > 0, target + 2 - np.maximum(cut, 0), 0))
    every, cut, labels = (
        np.concatenate(one) if one else np.zeros(0) for one in (lengths, cuts, learned)
    )
    count = len(every)
    found = {
        "dataset.cut": wilson(int((cut > 0).sum()), count),
        "dataset.too_long": wilson(int((cut < 0).sum()), count),
        "dataset.without_labels": exact(int((labels == 0).sum()), count),
    }
    if count:
        found["dataset.label_share"] = exact(labels.sum() / every.sum(), count)
        for percent in (50, 90, 99, 100):
            found[f"dataset.length_p{percent}"] = exact(np.percentile(every, percent), count)
    return found
