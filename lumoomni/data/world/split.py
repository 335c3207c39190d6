"""Splits and random streams: who may see which (colour, shape) pair, and seeds that never collide.

Knows nothing of pictures, words or sound. A stream costs about 15 microseconds: one BLAKE2b
digest of the keys seeds one PCG64, so item ``i`` never depends on item ``i - 1``.

The splits:
  train   what a model may learn from; no held-out pair, no held-out phrasing, no held-out sum
  seen    new scenes and sentences made of pairs that training has
  unseen  every scene holds at least one pair that training never shows or says
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from lumoomni.errors import InputError

T = TypeVar("T")

SPLITS = ("train", "seen", "unseen")

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "black")
SHAPES = ("circle", "square", "triangle", "star")
SIZES = ("small", "large")

PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
# No colour loses more than one of its four shapes, no shape more than two of its eight colours,
# so each word stays well represented and only the combination is new.
HELD_OUT_PAIRS = (
    ("red", "star"),
    ("green", "square"),
    ("yellow", "triangle"),
    ("purple", "circle"),
    ("white", "star"),
)
TRAIN_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT_PAIRS)


def rng(seed: int, *keys: str | int) -> np.random.Generator:
    """A generator that depends on the seed and the keys alone, on any machine and Python."""
    text = "\x1f".join([str(int(seed)), *(f"{type(key).__name__}:{key}" for key in keys)])
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def share(*keys: str | int) -> float:
    """A fixed number in [0, 1) for the keys: the same in every run, for holding things out."""
    text = "\x1f".join(str(key) for key in keys)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2.0**64


def pick(generator: np.random.Generator, items: Sequence[T]) -> T:
    """One item, uniformly."""
    return items[int(generator.integers(len(items)))]


def check_split(split: str, allowed: Sequence[str] = SPLITS) -> None:
    """Raise InputError when the split has no meaning here."""
    if split not in allowed:
        raise InputError(f"unknown split {split!r}: use one of {', '.join(allowed)}")


def pairs_of(split: str) -> tuple[tuple[str, str], ...]:
    """The (colour, shape) pairs that things of a split may have."""
    check_split(split)
    return PAIRS if split == "unseen" else TRAIN_PAIRS
