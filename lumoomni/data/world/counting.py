"""Small numbers in words: sums, differences, comparisons and counting, up to twenty.

Knows numbers from zero to twenty. A fixed seventh of the sums, differences and comparisons is
held out of training, but never both orders of one: what is new can be worked out from what is
known.
"""

from collections.abc import Callable

import numpy as np

from lumoomni.data.world.asking import QA, Phrasings, accept, word
from lumoomni.data.world.split import pick, share

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen", "twenty"),
)
MOST = len(NUMBERS) - 1
LONGEST_COUNT = 7
HELD_OUT_NUMBERS = 0.3  # of one order of each pair, so about 15 % of all

PHRASINGS = {
    "sum": Phrasings(
        (
            "What is {a} plus {b}?",
            "How much is {a} plus {b}?",
            "Add {a} and {b}.",
            "{a} plus {b} is what?",
            "What do {a} and {b} make?",
        ),
        ("How much do {a} and {b} make?", "Tell me what {a} plus {b} is."),
    ),
    "difference": Phrasings(
        (
            "What is {a} minus {b}?",
            "How much is {a} minus {b}?",
            "Take {b} from {a}.",
            "{a} minus {b} is what?",
        ),
        ("Take {b} from {a}, what is it?", "Tell me what {a} minus {b} is."),
    ),
    "larger": Phrasings(
        (
            "Which is larger, {a} or {b}?",
            "Which number is larger, {a} or {b}?",
            "What is more, {a} or {b}?",
            "Is {a} or {b} larger?",
        ),
        ("What is larger, {a} or {b}?", "Tell me which is larger, {a} or {b}."),
    ),
    "smaller": Phrasings(
        (
            "Which is smaller, {a} or {b}?",
            "Which number is smaller, {a} or {b}?",
            "What is less, {a} or {b}?",
            "Is {a} or {b} smaller?",
        ),
        ("What is smaller, {a} or {b}?", "Tell me which is smaller, {a} or {b}."),
    ),
    "next": Phrasings(
        (
            "What comes after {a}?",
            "Which number comes after {a}?",
            "What number comes next after {a}?",
        ),
        ("Tell me what comes after {a}.",),
    ),
    "previous": Phrasings(
        (
            "What comes before {a}?",
            "Which number comes before {a}?",
            "What number comes just before {a}?",
        ),
        ("Tell me what comes before {a}.",),
    ),
    "between": Phrasings(
        ("What comes between {a} and {b}?", "Which number is between {a} and {b}?"),
        ("What number is between {a} and {b}?",),
    ),
    "count": Phrasings(
        ("Count from {a} to {b}.", "Please count from {a} to {b}.", "Count up from {a} to {b}."),
        ("Can you count from {a} to {b}?",),
    ),
    "down": Phrasings(
        ("Count down from {a} to {b}.", "Please count down from {a} to {b}."),
        ("Can you count down from {a} to {b}?",),
    ),
}


def number_forms(value: int) -> tuple[str, ...]:
    """Answers that mean this number, the word first."""
    zero = ("none", "no") if value == 0 else ()
    return accept(NUMBERS[value], str(value), *zero)


def is_held_out(kind: str, a: int, b: int) -> bool:
    """Whether training never asks this about these two numbers in this order."""
    # A sum's partner is the other order; a difference's partner takes away the rest.
    partner = (a, a - b) if kind == "difference" else (b, a)
    if (a, b) == partner:
        return False
    low, high = sorted([(a, b), partner])
    key = f"{kind}:{low}:{high}"
    chosen = low if share(key, "order") < 0.5 else high
    return (a, b) == chosen and share(key) < HELD_OUT_NUMBERS


def _sums() -> list[tuple[int, int]]:
    return [(a, b) for a in range(MOST + 1) for b in range(MOST + 1 - a)]


def _differences() -> list[tuple[int, int]]:
    return [(a, b) for a in range(MOST + 1) for b in range(a + 1)]


def _different() -> list[tuple[int, int]]:
    return [(a, b) for a in range(MOST + 1) for b in range(MOST + 1) if a != b]


_PAIRS = {
    "sum": _sums(),
    "difference": _differences(),
    "larger": _different(),
    "smaller": _different(),
}
_KNOWN = {k: [p for p in pairs if not is_held_out(k, *p)] for k, pairs in _PAIRS.items()}
_NEW = {k: [p for p in pairs if is_held_out(k, *p)] for k, pairs in _PAIRS.items()}
_RESULTS: dict[str, Callable[[int, int], int]] = {
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "larger": max,
    "smaller": min,
}
# Sums and differences have the most to learn, so they come more often.
_KINDS = (*("sum",) * 3, *("difference",) * 3, "larger", "smaller", *PHRASINGS)


def number_question(split: str, generator: np.random.Generator) -> QA:
    """A question about small numbers; the unseen split asks about held-out pairs only."""
    kind = pick(generator, tuple(_PAIRS) if split == "unseen" else _KINDS)
    if kind in _PAIRS:
        return _pair_question(kind, split, generator)
    if kind in ("count", "down"):
        return _counting(kind, split, generator)
    if kind == "between":
        a = int(generator.integers(MOST - 1))
        fields, value = {"a": NUMBERS[a], "b": NUMBERS[a + 2]}, a + 1
    elif kind == "next":
        value = int(generator.integers(1, MOST + 1))
        fields = {"a": NUMBERS[value - 1]}
    else:
        value = int(generator.integers(MOST))
        fields = {"a": NUMBERS[value + 1]}
    asked = word(PHRASINGS[kind], split, generator, **fields)
    accepted = number_forms(value)
    return QA(asked.text, accepted[0], kind, accepted, asked.held_out)


def _pair_question(kind: str, split: str, generator: np.random.Generator) -> QA:
    """A sum, a difference or a comparison."""
    a, b = pick(generator, (_NEW if split == "unseen" else _KNOWN)[kind])
    asked = word(PHRASINGS[kind], split, generator, a=NUMBERS[a], b=NUMBERS[b])
    accepted = number_forms(_RESULTS[kind](a, b))
    return QA(asked.text, accepted[0], kind, accepted, asked.held_out or split == "unseen")


def _counting(kind: str, split: str, generator: np.random.Generator) -> QA:
    """Counting up or down over three to seven numbers."""
    length = int(generator.integers(3, LONGEST_COUNT + 1))
    first = int(generator.integers(MOST - length + 2))
    run = NUMBERS[first : first + length]
    if kind == "down":
        run = run[::-1]
    asked = word(PHRASINGS[kind], split, generator, a=run[0], b=run[-1])
    return QA(asked.text, " ".join(run), kind, accept(" ".join(run)), asked.held_out)


def number_texts() -> tuple[str, ...]:
    """Texts that together hold every word of these questions and answers."""
    return (*(t for phrasings in PHRASINGS.values() for t in phrasings.all), *NUMBERS)
