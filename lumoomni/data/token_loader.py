"""Batches of token sequences from shards: mixed, shuffled, shared among ranks, resumable exactly.

Knows: shares of a mixture, one order over all of them, what fits, rows of samples or packed rows.
Does not know: how shards are stored, models, or how far training is.
Costs: 8 bytes a sample for its place in an epoch, a few numpy calls a sample, and with `pack` a
plan for each window of samples (lengths alone), made again from the first one after a restart.

The order. Weights are whole numbers: of any `sum(weights)` items that follow a multiple of it, each
share gives exactly its weight, spread evenly. Within a share, each epoch is a permutation of all
its samples, keyed by (seed, share, epoch). So item g is a pure function of g. Rank r of R takes the
items s + r, s + r + R, ... after the state s, and the state is one integer, the next item: with the
same state 1, 2 or 4 ranks see the same items, interleaved, and a run goes on anywhere exactly. An
item is a sample, or with `pack` a row of several.

What Grain does: reading ahead in threads that keep the order, and counting batches. Batches are
made before anything is read ahead, because Grain's order depends on it. Not taken from it: its
shuffle (its key is seed + epoch, so that the second epoch of seed 0 is the first of seed 1, and one
look-up costs forty times this one's), and its mixtures (float weights, the shortest part ends it).
"""

import hashlib
import logging
import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lumoomni.data.conversation import Batch, Encoded, collate
from lumoomni.data.packing import PackConfig, collate_packed, plan_packs
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.shards import LISTS
from lumoomni.errors import InputError
from lumoomni.ids import IGNORE
from lumoomni.uti.grammar import PAD
from lumoomni.uti.sequence import Sequence as Ids
from lumoomni.uti.space_file import refuse_other
from lumoomni.uti.tasks import Composer, cut_of, length_of, needs

MOST_WEIGHT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Share:
    """Samples of one split as one task; `weight` of every sum of weights are of them.

    `records` are the tasks of the records that are taken, by default those of `task` itself:
    `Share(task="t2a", records=("a2t",))` speaks what others write down.
    """

    shards: ShardSet
    task: str
    weight: int = 1
    split: str = "train"
    records: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """`batch_size` items a rank: sequences of at most `context` ids, or with `pack` packed rows.

    Without `shuffle` a share's samples come in their stored order. Of the items that ask for a
    picture or a sound, the share `unsaid` comes without its text, so that guidance has something to
    compare with (arXiv 2207.12598); which ones depends on the seed and the item's number alone.
    """

    batch_size: int = 8
    context: int = 1024
    pack: PackConfig | None = None
    seed: int = 0
    shuffle: bool = True
    threads: int = 1
    ahead: int = 4
    """Batches that are read ahead."""
    unsaid: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.unsaid <= 1:
            raise InputError(f"unsaid is {self.unsaid}; it is a share, from 0 to 1")
        if min(self.batch_size, self.context, self.threads, self.ahead) < 1:
            raise InputError(
                f"batch_size {self.batch_size}, context {self.context}, threads {self.threads} and "
                f"ahead {self.ahead} must all be at least 1"
            )
        if self.pack is not None and self.context > self.pack.capacity:
            raise InputError(
                f"sequences of {self.context} ids do not fit rows of {self.pack.capacity}; lower "
                "the context, or pack into longer rows"
            )


@dataclass(frozen=True)
class Kept:
    """What of a share is used: `index` int64 [n] into its split and `lengths` int64 [n] in ids.

    `cut` texts were cut at their end, `dropped` samples are too long, since media are never cut.
    `lacking` records of the right task have not what the task needs.
    """

    index: np.ndarray
    lengths: np.ndarray
    cut: int
    dropped: int
    lacking: int


def keep(share: Share, context: int) -> Kept:
    """Which samples of a share fit. Raises InputError when none does, or for an unknown task."""
    kinds = [kind for kind, _ in needs(share.task)]
    shards: list[Any] = [one.batch for one in share.shards.shards(share.split)]
    tasks = np.concatenate([batch.column("task").to_pylist() for batch in shards])
    (index,) = np.isin(tasks, share.records or (share.task,)).nonzero()
    chosen = {}
    for column in LISTS:
        starts = [batch.column(column).offsets.to_numpy(zero_copy_only=True) for batch in shards]
        chosen[column] = np.concatenate([np.diff(one) for one in starts])[index]
    whole = np.all([chosen[kind] > 0 for kind in kinds], axis=0)
    lengths = length_of(share.task, **chosen)
    cut = cut_of(share.task, chosen["text"], lengths, context)
    fits = whole & (cut >= 0)
    if not fits.any():
        raise InputError(
            f"of {len(tasks)} samples in {share.split} {len(index)} are records of "
            f"{', '.join(share.records or (share.task,))} and none fits {context} ids as "
            f"{share.task}; raise the context, or look at `lumo data stats`"
        )
    return Kept(
        index=index[fits],
        lengths=(lengths - np.maximum(cut, 0))[fits],
        cut=int((cut[fits] > 0).sum()),
        dropped=int((whole & (cut < 0)).sum()),
        lacking=int((~whole).sum()),
    )


class Order:
    """Item g -> (share, place in the share); pure. Sizes are samples, weights whole numbers."""

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[int], *, seed: int = 0, shuffle: bool = True
    ) -> None:
        if not weights or any(not isinstance(w, int) or w < 1 for w in weights):
            raise InputError(
                f"weights are {list(weights)}; give each share a whole number of at least 1"
            )
        common = math.gcd(*weights)
        self._weights = [weight // common for weight in weights]
        if sum(self._weights) > MOST_WEIGHT:
            raise InputError(
                f"weights sum to {sum(self._weights):,}, at most {MOST_WEIGHT:,} is possible; "
                "round them"
            )
        turns = [
            ((2 * i + 1) / (2 * weight), share, i)
            for share, weight in enumerate(self._weights)
            for i in range(weight)
        ]
        self._turns = [(share, i) for _, share, i in sorted(turns)]
        self._sizes, self._seed, self._shuffle = list(sizes), seed, shuffle
        self._epochs: dict[tuple[int, int], np.ndarray] = {}

    def __call__(self, item: int) -> tuple[int, int]:
        """The share of an item, and which of the share's samples it is."""
        block, turn = divmod(item, len(self._turns))
        share, before = self._turns[turn]
        epoch, place = divmod(block * self._weights[share] + before, self._sizes[share])
        if not self._shuffle:
            return share, place
        return share, int(self._epoch(share, epoch)[place])

    def _epoch(self, share: int, epoch: int) -> np.ndarray:
        found = self._epochs.get((share, epoch))
        if found is None:
            found = permutation(self._sizes[share], key(self._seed, share, epoch))
            # The one before may still be asked for, by a thread that is a batch behind.
            self._epochs.pop((share, epoch - 2), None)
            self._epochs[share, epoch] = found
        return found


def without_text(made: Ids) -> Ids:
    """A sequence whose texts that are read say nothing: their two markers stay. It has no spans."""
    told = [one for one in made.spans if one.role == "text" and made.labels[one.start] == IGNORE]
    drop = np.concatenate([np.arange(one.start, one.stop) for one in told])
    return Ids(np.delete(made.ids, drop), np.delete(made.labels, drop), (), ())


def key(*parts: object) -> int:
    """64 bits that name a tuple of numbers and words, equal on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


def permutation(count: int, seed: int) -> np.ndarray:
    """int64 [count]: 0 .. count - 1 in the order of their hashes (splitmix64), so that it does not
    depend on a library's version (doi 10.1145/2660193.2660195)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return np.argsort(z, kind="stable")


class _Rows:
    """Packed row number -> items; windows are planned one after the other and kept by their last
    row, the plans of a few of them whole."""

    def __init__(self, lengths: Any, pack: PackConfig, seed: int) -> None:
        self._lengths, self._pack, self._seed = lengths, pack, seed
        self._ends: list[int] = []
        self._plans: dict[int, list[tuple[int, ...]]] = {}
        self._lock = threading.Lock()

    def __call__(self, row: int) -> list[int]:
        with self._lock:
            while not self._ends or self._ends[-1] <= row:
                number = len(self._ends)
                rows = len(self._plan(number))
                self._ends.append((self._ends[-1] if self._ends else 0) + rows)
            number = int(np.searchsorted(self._ends, row, side="right"))
            start = self._ends[number - 1] if number else 0
            first = number * self._pack.window
            return [first + i for i in self._plan(number)[row - start]]

    def _plan(self, number: int) -> list[tuple[int, ...]]:
        if number not in self._plans:
            first = number * self._pack.window
            lengths = [self._lengths(first + i) for i in range(self._pack.window)]
            seed = key(self._seed, "rows", number)
            self._plans[number] = plan_packs(lengths, self._pack, seed)
            for old in sorted(self._plans)[:-3]:
                del self._plans[old]
        return self._plans[number]


class TokenLoader:
    """Endless batches of shares, for rank `rank` of `ranks`.

    Raises InputError when shares are of different token spaces, or nothing fits.
    """

    def __init__(
        self, shares: Sequence[Share], config: LoaderConfig, *, rank: int = 0, ranks: int = 1
    ) -> None:
        if not shares:
            raise InputError("a loader of no shares gives nothing; name at least one")
        if not 0 <= rank < ranks:
            raise InputError(f"there is no rank {rank} of {ranks}; ranks count from 0")
        space = shares[0].shards.space
        for number, share in enumerate(shares):
            refuse_other(space.abi, share.shards.abi, f"share {number} ({share.task})")
        self.shares, self.config, self.rank, self.ranks = tuple(shares), config, rank, ranks
        self.kept = tuple(keep(share, config.context) for share in shares)
        sizes = [len(one.index) for one in self.kept]
        weights = [share.weight for share in shares]
        self._order = Order(sizes, weights, seed=config.seed, shuffle=config.shuffle)
        self._composer, self._pad = Composer(space), space.special(PAD)
        self._rows = config.pack and _Rows(self._length, config.pack, config.seed)

    def item(self, number: int) -> Ids:
        """Sample number `number` of the mixture as a sequence."""
        place, index = self._order(number)
        share, row = self.shares[place], int(self.kept[place].index[index])
        sample = share.shards.sample(share.split, row)
        made = self._composer.sequence(share.task, sample, limit=self.config.context)
        return without_text(made) if self._unsaid(share.task, number) else made

    def items(self, number: int) -> list[int]:
        """The samples of item `number`: itself, or those of a packed row."""
        return self._rows(number) if self._rows else [number]

    def batch(self, number: int, state: int = 0) -> Batch:
        """Batch `number` after a state; pure. Padding is `<|pad_mm|>`, without labels."""
        first = state + number * self.config.batch_size * self.ranks + self.rank
        numbers = range(first, first + self.config.batch_size * self.ranks, self.ranks)
        rows = [[_bare(self.item(i)) for i in self.items(n)] for n in numbers]
        if self._rows:
            return collate_packed(rows, self._pad)
        return collate([row[0] for row in rows], self._pad)

    def batches(self, state: int = 0) -> "Batches":
        """An endless iterator from a state on. Raises InputError for a negative one."""
        if state < 0:
            raise InputError(f"state {state} is no place in the data; it counts items from 0")
        return Batches(self, state)

    def _unsaid(self, task: str, number: int) -> bool:
        kind, _ = needs(task)[-1]
        drawn = key(self.config.seed, "unsaid", number)
        return kind != "text" and drawn < self.config.unsaid * 2**64

    def _length(self, number: int) -> int:
        place, index = self._order(number)
        return int(self.kept[place].lengths[index])


class Batches(Iterator[Batch]):
    """Batches from a state on; `state` is where the next one begins, for all ranks alike."""

    def __init__(self, loader: TokenLoader, state: int) -> None:
        grain, config = _grain(), loader.config
        self._each, self._from = config.batch_size * loader.ranks, state
        most = (sys.maxsize - state) // self._each
        numbers = grain.MapDataset.range(most)
        made = numbers.map(lambda number: loader.batch(number, state))
        options = grain.ReadOptions(
            num_threads=config.threads, prefetch_buffer_size=max(config.ahead, config.threads)
        )
        self._batches = iter(made.to_iter_dataset(options))

    def __next__(self) -> Batch:
        return next(self._batches)

    @property
    def state(self) -> int:
        """The next item: one integer to be saved."""
        state: Mapping[str, int] = self._batches.get_state()
        return self._from + int(state["next_index"]) * self._each

    def close(self) -> None:
        """Stop reading ahead."""
        self._batches.close()


def _bare(made: Ids) -> Encoded:
    return Encoded(sequence=made, pixels=(), mels=())


def _grain() -> Any:
    """Grain, without its line about a profiler that is not there."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        import grain
    except ImportError as error:
        raise InputError(
            "reading token shards needs grain; install it with `pip install 'lumoomni[data]'`"
        ) from error
    finally:
        log.setLevel(before)
    return grain


def epoch_items(kept: Sequence[Kept], weights: Sequence[int]) -> int:
    """Items until every share was seen once, those with small weights last."""
    common = math.gcd(*weights)
    total = sum(weights) // common
    return max(
        math.ceil(len(one.index) / (weight // common)) * total
        for one, weight in zip(kept, weights, strict=True)
    )
