"""Captions of scenes, their way back to facts, and how answers are compared.

Knows scenes, not pixels. A caption and its parse cost about 10 microseconds each.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

import numpy as np

from lumoomni.data.sample import UNTOLD
from lumoomni.data.world.scene import INVERSE, Scene, Thing
from lumoomni.data.world.split import COLOURS, HELD_OUT_PAIRS, SHAPES, SIZES, pick
from lumoomni.errors import InputError

RELATION_PHRASES = {
    "above": "above",
    "below": "below",
    "left of": "to the left of",
    "right of": "to the right of",
}
OPENINGS = {
    "canonical": "",
    "there": "there is ",
    "shows": "the picture shows ",
    "see": "i can see ",
    "row": "from left to right there is ",
    "picture": "in the picture there is ",
}
# "picture" is never used in training; "row" is for text alone, where the order has to be said.
STYLES = ("canonical", "there", "shows", "see")
HELD_OUT_STYLES = ("picture",)

_SPELLING = {"color": "colour", "colors": "colours", "colored": "coloured"}
_SIZE_WORDS = {"small": "small", "little": "small", "large": "large", "big": "large"}
_NOUN = rf"an? ({'|'.join(_SIZE_WORDS)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
_RELATION = r"(above|below|(?:to the )?left of|(?:to the )?right of)"
_OPENING = re.compile("^(?:" + "|".join(o for o in OPENINGS.values() if o) + ")")
_ONE = re.compile(f"^{_NOUN}$")
_TWO = re.compile(f"^{_NOUN} (?:is )?{_RELATION} {_NOUN}$")
_BOTH = re.compile(f"^{_NOUN} and {_NOUN}$")
_THREE = re.compile(f"^{_NOUN} (?:and )?{_NOUN} and {_NOUN}$")
_HELD_OUT = re.compile(
    r"\b(?:" + "|".join(f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS) + r")(?:s)?\b"
)


@dataclass(frozen=True, order=True)
class Attributes:
    """What a caption says of one thing."""

    size: str
    colour: str
    shape: str


@dataclass(frozen=True)
class Facts:
    """What a caption says: its things in order, and the relation of the first of two."""

    things: tuple[Attributes, ...]
    relation: str | None = None


def normalise(text: str) -> str:
    """Lower case, letters and digits only, single spaces, British spelling of colour.

    A letter with an accent is the plain one ("für" is "fur"); of other alphabets nothing is left.
    """
    if not text.isascii():
        parts = unicodedata.normalize("NFKD", text)
        text = "".join(part for part in parts if not unicodedata.combining(part))
    words = re.sub(r"[^a-z0-9]+", " ", text.lower().replace("'", "")).split()
    return " ".join(_SPELLING.get(word, word) for word in words)


def copied(words: str) -> str:
    """Words as an answer that says them back: spaced as they stand in a sentence.

    At the start of a turn a tokenizer spells words otherwise than after a space, and a copy of ids
    would not be one of words. Nothing of it is seen: replies are stripped.
    """
    return f" {words}"


def exact_match(prediction: str, accepted: tuple[str, ...]) -> bool:
    """Whether the prediction is one of the accepted answers, once both are normalised.

    Other alphabets, of which nothing is left then, are compared as they stand.
    """
    said = normalise(prediction)
    if said:
        return any(said == normalise(answer) for answer in accepted)
    plain = prediction.strip().casefold()
    return any(plain == answer.strip().casefold() for answer in accepted)


def says_held_out_pair(text: str) -> bool:
    """Whether a text names a (colour, shape) pair that training must not say."""
    return _HELD_OUT.search(normalise(text)) is not None


def article(word: str) -> str:
    """The word after its "a" or "an"."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def noun(thing: Thing) -> str:
    """All attributes of a thing: "a large red circle"."""
    return f"a {thing.size} {thing.colour} {thing.shape}"


def uncoloured(text: str) -> str:
    """A caption without its colours."""
    return " ".join(word for word in text.split() if word not in COLOURS)


def shapeless(text: str) -> str:
    """A caption that calls every shape a thing."""
    for shape in SHAPES:
        text = text.replace(shape, "thing")
    return text


def untold(text: str, words: tuple[str, ...]) -> str:
    """A description with such words left open; commas stay."""
    return " ".join(
        word.replace(word.rstrip(","), UNTOLD) if word.rstrip(",") in words else word
        for word in text.split()
    )


def caption(
    scene: Scene, generator: np.random.Generator | None = None, style: str = "canonical"
) -> str:
    """Words for a scene that state every attribute.

    "canonical" is the one caption of a scene, the same in every run: the upper or left one of two
    things comes first, as one reads, so that a picture decides every word of it. The other styles
    put an opening before it; with a generator they tell half of the relations from the other side.
    Raises InputError for an unknown style and for an empty scene.
    """
    if style not in OPENINGS:
        raise InputError(f"unknown caption style {style!r}: use one of {', '.join(OPENINGS)}")
    if not scene.things:
        raise InputError("a caption needs at least 1 thing and this scene has 0: add one")
    names = [noun(thing) for thing in scene.things]
    relation = scene.relation
    if relation is not None:
        turned = relation in ("below", "right of")
        if style != "canonical":
            turned = generator is not None and generator.random() < 0.5
        if turned:
            names, relation = names[::-1], INVERSE[relation]
        body = f"{names[0]} {RELATION_PHRASES[relation]} {names[1]}"
    elif len(names) == 1:
        body = names[0]
    else:
        body = f"{', '.join(names[:-1])} and {names[-1]}"
    if style == "canonical":
        return body
    text = OPENINGS[style] + body
    return text[0].upper() + text[1:] + "."


def bare(scene: Scene) -> str:
    """A scene in bare words, each thing with its place: what a connector that spells says of it.

    "large red circle left small blue star right"; the upper or left one of two comes first. A
    place beside its thing is found with it, where a caption has to be understood (LOG.md).
    """
    things = [noun(thing).removeprefix("a ") for thing in scene.things]
    places: tuple[str, ...] = ("left", "middle", "right") if len(things) == 3 else ("",)
    if scene.relation is not None:
        places = (scene.relation.split()[0], INVERSE[scene.relation].split()[0])
        if scene.relation in ("below", "right of"):
            things, places = things[::-1], places[::-1]
    return " ".join(f"{thing} {place}".strip() for thing, place in zip(things, places, strict=True))


def any_caption(scene: Scene, generator: np.random.Generator) -> str:
    """A caption in a style that the scene's split may use."""
    if scene.split != "train" and generator.random() < 0.25:
        return caption(scene, generator, pick(generator, HELD_OUT_STYLES))
    return caption(scene, generator, pick(generator, STYLES))


def facts(text: str) -> Facts | None:
    """What a caption says, or None for a text that is not a caption of one to three things."""
    body = _OPENING.sub("", normalise(text))
    if found := _TWO.match(body):
        first, relation, second = found.groups()[:3], found.group(4), found.groups()[4:]
        return Facts((_attributes(first), _attributes(second)), relation.removeprefix("to the "))
    for pattern in (_ONE, _BOTH, _THREE):
        if found := pattern.match(body):
            words = found.groups()
            return Facts(tuple(_attributes(words[i : i + 3]) for i in range(0, len(words), 3)))
    return None


def _attributes(words: tuple[str, ...]) -> Attributes:
    """One noun of a parsed caption."""
    size, colour, shape = words
    return Attributes(_SIZE_WORDS[size], colour, shape)


def matches(scene: Scene, text: str) -> bool:
    """Whether a caption is true and complete: every attribute of every thing, and the relation.

    "A above B" and "B below A" are both right; three things may come in any order.
    """
    said = facts(text)
    if said is None:
        return False
    truth = tuple(Attributes(t.size, t.colour, t.shape) for t in scene.things)
    if Counter(said.things) != Counter(truth):
        return False
    if scene.relation is None:
        return said.relation is None
    if said.things == truth:
        return said.relation == scene.relation
    return said.relation == INVERSE[scene.relation]


def caption_texts() -> tuple[str, ...]:
    """Texts that together hold every word a caption can have."""
    return (*OPENINGS.values(), *RELATION_PHRASES.values(), *COLOURS, *SHAPES, *SIZES, "a an and")
