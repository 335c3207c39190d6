"""Shards: random reads beside HF `datasets`, tokens a second into batches, and tokenizing.

Knows: the same shards for both readers; interleaved rounds; medians; the rate of tokenizing
in the middle half of its time, so that neither starting workers nor the last of them counts.
Does not know: training. Costs: a few minutes. Needs `pip install datasets` for the first part.

    python -m benchmarks.shards [--json shards.json] [--quick]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.shards_world import write_manifest_of_media, write_shards, write_space
from lumoomni.data.manifest import Record, media_path, read_manifest
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.tokenize_run import tokenize
from lumoomni.media.audio import load_audio
from lumoomni.media.image import load_image
from lumoomni.runtime import Progress
from lumoomni.uti.interface import UTI

ROUNDS = 5
WIDTH = 1024


def reads(folder: Path, count: int, cache: Path) -> dict[str, float]:
    """Rows a second in random order, ours and those of `datasets` in the faster of two formats."""
    import datasets

    shards = ShardSet.open(folder)
    theirs: Any = datasets.load_dataset(
        "arrow",
        data_files=str(folder / "train/*.arrow"),
        split="train",
        cache_dir=str(cache),
    )
    arrays = theirs.with_format("numpy")
    order = np.random.default_rng(0).permutation(shards.len("train"))
    ways: dict[str, tuple[Callable[[int], Any], int]] = {
        "ours": (lambda i: shards.sample("train", i), count),
        "datasets_lists": (lambda i: theirs[i], count // 10),
        "datasets_numpy": (lambda i: arrays[i], count // 10),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (read, most) in ways.items():
            places = [int(i) for i in np.resize(order, most)]
            began = time.perf_counter()
            for place in places:
                read(place)
            rates[name].append(most / (time.perf_counter() - began))
    found = {name: statistics.median(values) for name, values in rates.items()}
    return {**found, "ratio": found["ours"] / max(v for k, v in found.items() if k != "ours")}


def batches(shards: ShardSet, rows: int) -> Iterator[np.ndarray]:
    """int64 [rows, WIDTH]: text and codes one after the other, in order; the rest is left out."""
    start = shards.space.named("IMAGE").start
    room = np.empty(rows * WIDTH, dtype=np.int64)
    used = 0
    for place in range(shards.len("train")):
        one = shards.sample("train", place)
        for part, shift in ((one.text, 0), (one.image, start)):
            took = min(len(part), len(room) - used)
            np.add(part[:took], shift, out=room[used : used + took], casting="unsafe")
            used += took
            if used == len(room):
                yield room.reshape(rows, WIDTH).copy()
                used = 0


def sequential(folder: Path) -> dict[str, float]:
    """Tokens a second into batches of 8 x WIDTH, in order."""
    shards = ShardSet.open(folder)
    rates = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        tokens = sum(batch.size for batch in batches(shards, 8))
        rates.append(tokens / (time.perf_counter() - began))
    return {"tokens_per_s": statistics.median(rates)}


class Clock(Progress):
    """When how many samples were done."""

    def __init__(self) -> None:
        super().__init__(silent=True)
        self.seen: list[tuple[float, int]] = []

    @contextmanager
    def task(self, name: str, *, total: int, unit: str = "step", start: int = 0) -> Iterator[Any]:
        yield self

    def update(self, advance: int = 1, **numbers: float) -> None:
        self.seen.append((time.perf_counter(), advance))

    @property
    def rate(self) -> float:
        """Samples a second of the middle half: all workers have come, and none has run out."""
        quarter = len(self.seen) // 4
        part = self.seen[quarter : len(self.seen) - quarter]
        return sum(n for _, n in part[1:]) / (part[-1][0] - part[0][0])


def one_at_a_time(uti: UTI, manifest: Path) -> float:
    """Samples a second of a plain loop with all threads of torch."""
    records = list(read_manifest(manifest))
    encode_record(uti, manifest, records[0])
    began = time.perf_counter()
    for record in records:
        encode_record(uti, manifest, record)
    return len(records) / (time.perf_counter() - began)


def encode_record(uti: UTI, manifest: Path, record: Record) -> None:
    """What the loop does with a record."""
    uti.encode(record.text)
    if record.image is not None:
        uti.encode(load_image(media_path(manifest, record.image)))
    if record.audio is not None:
        uti.encode(load_audio(media_path(manifest, record.audio)))


def tokenizing(root: Path, count: int, *, noise: bool = False) -> dict[str, float]:
    """Samples a second: the loop, one worker, two workers; medians of interleaved rounds."""
    space = write_space(root)
    manifest = write_manifest_of_media(root / "media", count, noise=noise)
    uti = UTI.load(space)
    ways = ("loop", "workers_1", "workers_2")
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(3):
        rates["loop"].append(one_at_a_time(uti, manifest))
        for workers in (1, 2):
            clock, out = Clock(), root / f"out-{turn}-{workers}"
            tokenize(
                manifest,
                space,
                out,
                workers=workers,
                rows_per_shard=max(1, count // 32),
                progress=clock,
            )
            rates[f"workers_{workers}"].append(clock.rate)
    found = {name: statistics.median(values) for name, values in rates.items()}
    return {
        **found,
        "over_loop": found["workers_2"] / found["loop"],
        "second_worker": found["workers_2"] / found["workers_1"],
        "threads_of_loop": torch.get_num_threads(),
    }


def main() -> None:
    """Print all, optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root, count = Path(name), 256 if options.quick else 4096
        folder = write_shards(root / "shards", 4 if options.quick else 20)
        found = {
            "reads": reads(folder, 2_000 if options.quick else 20_000, root / "cache"),
            "sequential": sequential(folder),
            "tokenizing": tokenizing(root / "tokens", count),
            "of noise": tokenizing(root / "noise", count, noise=True),
        }
    for name, row in found.items():
        print(f"{name:>12}  " + "  ".join(f"{k} {v:,.4g}" for k, v in row.items()))
    if options.json:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
