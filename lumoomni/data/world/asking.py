"""How a question is worded: phrasings, those held out, capitals, full stops and spelling.

Knows no subject. A phrasing is a template with ``{}`` fields; the held-out ones use only words
that the others teach, so that a model can be asked in a way that it never heard.
"""

from dataclasses import dataclass

import numpy as np

from lumoomni.data.world.split import pick

# How often the splits outside training ask in a held-out way.
HELD_OUT_SHARE = 0.25


@dataclass(frozen=True)
class QA:
    """A question, the one canonical answer, and all answers that count as right.

    ``held_out`` tells that training never asks this way (or never about these numbers).
    """

    question: str
    answer: str
    kind: str
    accepted: tuple[str, ...]
    held_out: bool = False


@dataclass(frozen=True)
class Phrasings:
    """Ways to ask one thing: those for every split, and those that training never uses."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Both."""
        return self.train + self.held_out


@dataclass(frozen=True)
class Wording:
    """A filled template, and whether it is one that training never uses."""

    text: str
    held_out: bool


def word(
    phrasings: Phrasings, split: str, generator: np.random.Generator, **fields: str
) -> Wording:
    """Ask in one of the ways that the split may use, with varied capitals, stops, spelling."""
    held_out = bool(phrasings.held_out) and split != "train" and generator.random() < HELD_OUT_SHARE
    template = pick(generator, phrasings.held_out if held_out else phrasings.train)
    text = template.format(**fields)
    return Wording(vary(text[0].upper() + text[1:], generator), held_out)


def vary(text: str, generator: np.random.Generator) -> str:
    """The same words: at times in American spelling, lower case, or without the last stop."""
    if generator.random() < 0.35:
        text = text.replace("olour", "olor")
    if generator.random() < 0.2:
        text = text.lower()
    if generator.random() < 0.2:
        text = text.rstrip(".?!")
    return text


def accept(answer: str, *others: str) -> tuple[str, ...]:
    """The canonical answer first, then its alternatives, each once."""
    return tuple(dict.fromkeys((answer, *others)))
