"""Several conversations in one row, without padding and without reading each other.

Knows: best-fit-decreasing bins, document numbers, positions that start anew with each document.
Does not know: where samples come from. Costs: n log n for n lengths; rows hold ids, and one small
integer a token that says which document it belongs to.

A document's first token is never a label: what stands before it is another conversation.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lumoomni.data.conversation import Batch, Encoded, stack_media, stack_numbers
from lumoomni.ids import IGNORE
from lumoomni.shapes import POSITIONS, round_up


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Rows of `capacity` positions; packs are made among `window` samples that follow each other
    in a shuffled epoch, so that who stands beside whom is left to chance."""

    capacity: int = 2048
    window: int = 4096

    def __post_init__(self) -> None:
        if self.capacity < 2 or self.window < 1:
            raise ValueError(
                f"capacity must be at least 2 and window at least 1, got {self.capacity} and "
                f"{self.window}"
            )


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices into `lengths` by bin: the longest first, each where the least room is left.

    Raises ValueError for a length that fits no bin, or is not positive.
    """
    for index, length in enumerate(lengths):
        if not 0 < length <= capacity:
            raise ValueError(
                f"sample {index} has {length} positions, but a row holds 1 to {capacity}; cut it "
                "before packing, never inside a picture or a sound"
            )
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, bin), sorted
    for index in order:
        place = bisect.bisect_left(rooms, (lengths[index], -1))
        if place == len(rooms):
            bins.append([index])
            room, number = capacity, len(bins) - 1
        else:
            room, number = rooms.pop(place)
            bins[number].append(index)
        bisect.insort(rooms, (room - lengths[index], number))
    return bins


def plan_packs(lengths: Sequence[int], config: PackConfig, seed: int) -> list[tuple[int, ...]]:
    """One epoch: which samples share which row; every sample once, in a seeded order."""
    source = np.random.default_rng(seed)
    order = source.permutation(len(lengths))
    packs: list[tuple[int, ...]] = []
    for first in range(0, len(order), config.window):
        part = order[first : first + config.window]
        for chosen in best_fit([lengths[i] for i in part], config.capacity):
            shuffled = source.permutation(chosen)
            packs.append(tuple(int(part[i]) for i in shuffled))
    return [packs[i] for i in source.permutation(len(packs))]


def fill(lengths: Sequence[int], packs: Sequence[Sequence[int]], capacity: int) -> float:
    """Share of the rows' positions that hold a token."""
    used = sum(lengths[i] for pack in packs for i in pack)
    return used / max(1, capacity * len(packs))


def collate_packed(rows: Sequence[Sequence[Encoded]], pad: int = 0) -> Batch:
    """Rows of conversations -> a batch with `documents` [B, T], numbered from 0 in each row.

    Padding, to a multiple of `POSITIONS`, is a document of its own. Raises ValueError for an empty
    row or batch.
    """
    if not rows or not all(rows):
        raise ValueError("cannot pack a row of no conversations")
    pixels, mels, mel_lengths = stack_media([item for row in rows for item in row])
    width = round_up(max(sum(len(item) for item in row) for row in rows), POSITIONS)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORE, dtype=torch.long)
    documents = torch.zeros(len(rows), width, dtype=torch.long)
    for r, row in enumerate(rows):
        end = 0
        for number, item in enumerate(row):
            start, end = end, end + len(item)
            ids[r, start:end] = torch.from_numpy(item.sequence.ids)
            labels[r, start:end] = torch.from_numpy(item.sequence.labels)
            labels[r, start] = IGNORE
            documents[r, start:end] = number
        documents[r, end:] = len(row)
    return Batch(
        ids=ids,
        labels=labels,
        lengths=torch.tensor([sum(len(item) for item in row) for row in rows]),
        pixels=pixels,
        mels=mels,
        mel_lengths=mel_lengths,
        documents=documents,
        numbers=stack_numbers([list(row) for row in rows], width),
    )
