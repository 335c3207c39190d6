"""Items of different splits that are the same, or nearly: by content hash, and by runs of ids.

Two items are as similar as the Jaccard index of their sets of n-grams: shared n-grams by all. Ids
may be a text's, or a medium's local codes. An item with fewer than n ids is one n-gram, its whole.
The search is exact, up to collisions of 64-bit hashes, and depends on no order and no seed: sets
with a Jaccard index of t share one of their |x| - ceil(t |x|) + 1 first n-grams in any one order of
all n-grams (the prefix filter of all-pairs search, Bayardo et al. 2007). The order here is by how
many held-out items have them, so that what every item has (silence) comes last and n-grams that no
held-out item has, which is nearly all, come first and cost nothing.
Does not know: shards or manifests. Costs: nearly linear; about 0.4 ms an item of 6,600 ids, and 20
bytes for each id of all splits but the largest. Arrays are not copied: views of shards stay views.
"""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lumoomni.errors import InputError

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, order=True)
class Pair:
    """Two items of different splits, and how similar they are, from 0 to 1."""

    first: str
    second: str
    first_split: str
    second_split: str
    similarity: float


@dataclass(eq=False)
class _Group:
    """Items of one split with equal n-grams: their keys, and the n-grams uint64, sorted."""

    keys: list[str]
    split: str
    grams: np.ndarray


def same_assets(items: Iterable[tuple[str, str, str]]) -> list[Pair]:
    """Items (key, split, content hash) with equal bytes in different splits, sorted.

    Each is named with the first of each other split, not with all: a silent clip may stand there a
    thousand times. Items without a hash ("") are passed over.
    """
    members: dict[str, dict[str, list[str]]] = {}
    for key, split, sha256 in items:
        if sha256:
            members.setdefault(sha256, {}).setdefault(split, []).append(key)
    found: list[Pair] = []
    for splits in members.values():
        for one, other in itertools.combinations(sorted(splits), 2):
            found += _named(sorted(splits[one]), sorted(splits[other]), one, other, 1.0)
    return sorted(found)


def near_duplicates(
    items: Iterable[tuple[str, str, np.ndarray]], n: int = 8, at_least: float = 0.8
) -> list[Pair]:
    """Items (key, split, ids int [T]) of different splits that are at least so similar, sorted.

    Items with the same n-grams in one split are one for the search, and named as in `same_assets`.
    Items without ids are passed over. Raises InputError for an n below 1, for a bound outside
    (0, 1], and for ids that are no row of whole numbers.
    """
    if n < 1:
        raise InputError(f"n is {n}; n-grams need at least 1 id")
    if not 0 < at_least <= 1:
        raise InputError(f"at_least is {at_least}; a similarity to look for is above 0, at most 1")
    given = list(items)
    sizes: Counter[str] = Counter()
    for _, split, ids in given:
        sizes[split] += len(ids)
    if len(sizes) < 2:
        return []
    largest = max(sizes, key=lambda split: (sizes[split], split))
    held: dict[tuple[str, bytes], _Group] = {}
    for key, split, ids in given:
        if split != largest:
            _join(held, _Group([key], split, ngrams(ids, n)))
    index = _Index(list(held.values()), at_least)
    probes: dict[tuple[str, bytes], _Group] = {}
    for key, split, ids in given:
        if split == largest:
            grams = ngrams(ids, n)
            if index.candidates(grams):
                _join(probes, _Group([key], split, grams))
    found: list[Pair] = []
    for place, group in enumerate([*index.held, *probes.values()]):
        for other in index.candidates(group.grams):
            # Two held-out groups meet twice, of which once is enough.
            near = index.held[other]
            if near.split != group.split and not place < other:
                found += _similar(group, near, at_least)
    return sorted(found)


def ngrams(ids: np.ndarray, n: int) -> np.ndarray:
    """The hashed n-grams uint64 [G] of ids [T], sorted, each once; none of no ids.

    Raises InputError for anything but a row of whole numbers.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise InputError(
            f"ids have shape {list(ids.shape)} and type {ids.dtype}; near duplicates are looked "
            "for in rows of whole numbers"
        )
    if not len(ids):
        return np.zeros(0, np.uint64)
    mixed, width = _mixed(ids.astype(np.int64).astype(np.uint64)), min(n, len(ids))
    count = len(mixed) - width + 1
    # The width counts, so that a short item is not the same as a part of a long one.
    hashes = np.full(count, width, np.uint64)
    for place in range(width):
        hashes = hashes * _MULTIPLIER + mixed[place : place + count]
    return np.unique(_mixed(hashes))


class _Index:
    """Which held-out groups have which n-gram among their first ones."""

    def __init__(self, held: list[_Group], at_least: float) -> None:
        self.held, self._at_least = held, at_least
        every = np.concatenate([np.zeros(0, np.uint64), *(group.grams for group in self.held)])
        self._grams, self._counts = np.unique(every, return_counts=True)
        self._sizes = np.array([len(group.grams) for group in self.held], np.int64)
        firsts = [self._first(group.grams) for group in self.held]
        owners = np.repeat(np.arange(len(firsts)), [len(first) for first in firsts])
        places = np.concatenate([np.zeros(0, np.int64), *firsts])
        order = np.argsort(places, kind="stable")
        self._places, self._owners = places[order], owners[order]

    def candidates(self, grams: np.ndarray) -> list[int]:
        """Held-out groups that may be as similar: they share a first n-gram, and are not too large
        or too small."""
        first = self._first(grams)
        starts = np.searchsorted(self._places, first, "left")
        ends = np.searchsorted(self._places, first, "right")
        runs = [self._owners[a:b] for a, b in zip(starts, ends, strict=True) if b > a]
        if not runs:
            return []
        met = np.unique(np.concatenate(runs))
        smaller = np.minimum(self._sizes[met], len(grams))
        greater = np.maximum(self._sizes[met], len(grams))
        return met[smaller >= self._at_least * greater - 1e-9].tolist()

    def _first(self, grams: np.ndarray) -> np.ndarray:
        """Places, among the index's n-grams, of those of the first n-grams that it has."""
        places = np.searchsorted(self._grams, grams)
        known = places < len(self._grams)
        known[known] = self._grams[places[known]] == grams[known]
        needed = len(grams) - math.ceil(self._at_least * len(grams) - 1e-9) + 1
        # Those that no held-out item has come first of all, and find nothing.
        needed -= int(len(grams) - known.sum())
        places = places[known]
        return places[np.lexsort((places, self._counts[places]))][: max(needed, 0)]


def _join(groups: dict[tuple[str, bytes], _Group], one: _Group) -> None:
    """Add to the group of the same n-grams, or begin one."""
    digest = hashlib.blake2b(one.grams.tobytes(), digest_size=16).digest()
    known = groups.setdefault((one.split, digest), one)
    if known is not one:
        known.keys += one.keys


def _similar(one: _Group, other: _Group, at_least: float) -> list[Pair]:
    shared = len(np.intersect1d(one.grams, other.grams, assume_unique=True))
    similarity = shared / (len(one.grams) + len(other.grams) - shared)
    if similarity < at_least:
        return []
    a, b = sorted((one, other), key=lambda group: group.split)
    return _named(sorted(a.keys), sorted(b.keys), a.split, b.split, similarity)


def _named(
    first: list[str], second: list[str], first_split: str, second_split: str, similarity: float
) -> list[Pair]:
    """Each key of one side with the first of the other."""
    pairs = [(key, second[0]) for key in first] + [(first[0], key) for key in second[1:]]
    return [Pair(a, b, first_split, second_split, similarity) for a, b in pairs]


def _mixed(values: np.ndarray) -> np.ndarray:
    """uint64 to uint64 in which each bit depends on all (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
