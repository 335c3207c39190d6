"""Text worlds: dialogues that text alone can teach, each with its one right last reply.

Knows scenes only as words. One dialogue costs about 0.2 ms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lumoomni.data.world.asking import QA, Phrasings, accept, vary, word
from lumoomni.data.world.counting import number_question
from lumoomni.data.world.language import any_caption, caption, copied, normalise
from lumoomni.data.world.nameless import rename
from lumoomni.data.world.questions import PHRASINGS as QUESTIONS
from lumoomni.data.world.questions import (
    description,
    handles,
    kinds_for,
    visual_question,
)
from lumoomni.data.world.scene import Scene, make_scene
from lumoomni.data.world.smalltalk import DAYS, INTENTS, NAMES, OPPOSITES, SOUNDS_OF, small_talk
from lumoomni.data.world.split import COLOURS, check_split, pick, rng
from lumoomni.errors import InputError

ECHO = Phrasings(
    ("Repeat: {x}", "Repeat after me: {x}", "Say: {x}", "Please say: {x}", "Please repeat: {x}"),
    ("Can you say: {x}", "Can you repeat after me: {x}"),
)
FOLLOW = Phrasings(
    ("And the {x}?", "And what about the {x}?", "What about the {x}?"), ("Tell me about the {x}.",)
)
GREETING = Phrasings(
    ("My name is {x}.", "I am {x}.", "Hello, I am {x}.", "Hi, my name is {x}."),
    ("Hello there, my name is {x}.",),
)
MY_NAME = Phrasings(
    ("What is my name?", "Who am I?", "Tell me my name.", "Do you know my name?"),
    ("Can you tell me my name?",),
)
LIKE = Phrasings(
    ("I like the colour {x}.", "The colour I like is {x}.", "I like {x}."),
    ("{x} is the colour I like.",),
)
LIKED = Phrasings(
    ("What colour do I like?", "Which colour do I like?", "Tell me the colour I like."),
    ("Tell me what colour I like.",),
)
AND_THEN = Phrasings(
    ("And after that?", "And the day after that?", "And what comes after that?"),
    ("And which day is after that?",),
)
DAY_AFTER = Phrasings(("What day comes after {x}?", "Which day comes after {x}?"), ())
PLAIN_KINDS = ("colour", "shape", "size", "count", "count_some", "exists")
RENAMED_SHARE = 0.4
"""Share of told training scenes in colours or shapes that no picture shows."""
SHARES = {"scene": 0.36, "number": 0.22, "talk": 0.18, "echo": 0.11, "follow": 0.13}


@dataclass(frozen=True)
class Dialogue:
    """Turns of (role, text), "user" and "assistant" by turns; the last one is the right reply.

    ``accepted`` holds all last replies that count as right, the canonical one first.
    ``held_out`` tells that training never asks this way (or never about these numbers).
    """

    turns: tuple[tuple[str, str], ...]
    kind: str
    accepted: tuple[str, ...]
    held_out: bool = False


def text_sample(seed: int, split: str, index: int, kind: str | None = None) -> Dialogue:
    """The dialogue of an index, a pure function of its arguments.

    The kinds are scene, number, talk, echo and follow. Raises InputError for an unknown split
    or kind.
    """
    check_split(split)
    stream = rng(seed, "text", split, index)
    if kind is None:
        draw = np.searchsorted(np.cumsum(list(SHARES.values()))[:-1], stream.random(), "right")
        kind = tuple(SHARES)[int(draw)]
    builders: dict[str, Callable[[int, str, int, np.random.Generator], Dialogue]] = {
        "scene": _scene,
        "number": _number,
        "talk": _talk,
        "echo": _echo,
        "follow": _follow,
    }
    if kind not in builders:
        raise InputError(f"unknown kind of text {kind!r}: use one of {', '.join(builders)}")
    return builders[kind](seed, split, index, stream)


def _single(qa: QA, kind: str) -> Dialogue:
    """A dialogue of one question."""
    return Dialogue(
        (("user", qa.question), ("assistant", qa.answer)), kind, qa.accepted, qa.held_out
    )


def _number(seed: int, split: str, index: int, stream: np.random.Generator) -> Dialogue:
    return _single(number_question(split, stream), "number")


def _talk(seed: int, split: str, index: int, stream: np.random.Generator) -> Dialogue:
    return _single(small_talk(split, stream), "talk")


def _described(text: str) -> str:
    """A caption as the first sentence of a question."""
    return text if text.endswith(".") else f"{text}."


def told(scene: Scene, stream: np.random.Generator) -> str:
    """A scene in words that also say how three things stand, as a picture would show it."""
    row = len(scene.things) == 3
    said = caption(scene, stream, "row") if row else any_caption(scene, stream)
    return _described(vary(said, stream))


def _scene(seed: int, split: str, index: int, stream: np.random.Generator) -> Dialogue:
    """A described scene and a question that it answers, of any kind that pictures are asked."""
    scene = make_scene(seed, split, index)
    qa = _about(scene, stream)
    asked = f"{told(scene, stream)} {qa.question}"
    return Dialogue((("user", asked), ("assistant", qa.answer)), "scene", qa.accepted, qa.held_out)


def _about(scene: Scene, stream: np.random.Generator) -> QA:
    """One question about what is there, or the request to describe it.

    Where things stand is not asked here: told scenes with such questions from the start kept the
    rest from being learned (LOG.md). `sensed.py` asks it, late in the text stage.
    """
    kinds = [kind for kind in kinds_for(scene) if kind in PLAIN_KINDS]
    kind = pick(stream, kinds if len(scene.things) == 2 else [*kinds, "describe"])
    return (
        description(scene, stream) if kind == "describe" else visual_question(scene, stream, kind)
    )


def scene_talk(seed: int, split: str, index: int, questions: int) -> Dialogue:
    """A described scene and several questions about it, one turn each.

    More answers for each description read: training learns to bind in far fewer tokens.
    """
    stream = rng(seed, "scene-talk", split, index)
    scene = make_scene(seed, split, index)
    if split == "train" and stream.random() < RENAMED_SHARE:
        scene = rename(scene, stream)
    asked = [_about(scene, stream) for _ in range(questions)]
    opening = told(scene, stream)
    turns: list[tuple[str, str]] = []
    for place, qa in enumerate(asked):
        question = f"{opening} {qa.question}" if place == 0 else qa.question
        turns += [("user", question), ("assistant", qa.answer)]
    last = asked[-1]
    return Dialogue(tuple(turns), "scene", last.accepted, any(qa.held_out for qa in asked))


def echo_line(seed: int, split: str, index: int, stream: np.random.Generator) -> str:
    """A sentence worth repeating: a caption, small talk, numbers, or words in a row."""
    choice = stream.random()
    if choice < 0.35:
        return caption(make_scene(seed, split, index))
    if choice < 0.55:
        return normalise(pick(stream, INTENTS).answer)
    if choice < 0.7:
        return normalise(number_question(split, stream).question)
    return " ".join(pick(stream, ROW_WORDS) for _ in range(int(stream.integers(1, 6))))


# Words for rows without meaning; no shape among them, so that no row can name a held-out pair.
ROW_WORDS = tuple(
    dict.fromkeys(
        name.lower()
        for name in (
            *(side for pair in OPPOSITES for side in pair),
            *COLOURS,
            *NAMES,
            *DAYS,
            *SOUNDS_OF,
            *(sounds[0] for sounds in SOUNDS_OF.values()),
        )
    )
)


def _echo(seed: int, split: str, index: int, stream: np.random.Generator) -> Dialogue:
    """A request to say a sentence back."""
    line = echo_line(seed, split, index, stream)
    asked = word(ECHO, split, stream, x=line)
    # The words come back as they are spelt in the line, whatever the request did to them.
    return Dialogue(
        (("user", asked.text), ("assistant", copied(line))), "echo", accept(line), asked.held_out
    )


def _follow(seed: int, split: str, index: int, stream: np.random.Generator) -> Dialogue:
    """Two exchanges, the second of which leans on the first."""
    choice = stream.random()
    if choice < 0.55:
        return _follow_scene(seed, split, index, stream)
    if choice < 0.75:
        name = pick(stream, NAMES)
        told, asked = word(GREETING, split, stream, x=name), word(MY_NAME, split, stream)
        reply, accepted = f"Hello {name}!", accept(name, f"your name is {name}", f"you are {name}")
    elif choice < 0.88:
        colour = pick(stream, COLOURS)
        told, asked = word(LIKE, split, stream, x=colour), word(LIKED, split, stream)
        reply, accepted = f"I like {colour} too.", accept(colour, f"you like {colour}")
    else:
        i = int(stream.integers(len(DAYS)))
        told, asked = word(DAY_AFTER, split, stream, x=DAYS[i]), word(AND_THEN, split, stream)
        reply, accepted = DAYS[(i + 1) % 7], accept(DAYS[(i + 2) % 7])
    turns = (
        ("user", told.text),
        ("assistant", reply),
        ("user", asked.text),
        ("assistant", accepted[0]),
    )
    return Dialogue(turns, "follow", accepted, told.held_out or asked.held_out)


def _follow_scene(seed: int, split: str, index: int, stream: np.random.Generator) -> Dialogue:
    """Colour, shape or size of one thing, and then of the other."""
    number = 0
    while True:
        # Few scenes fail to have two nameable things; the next stream of the index has another.
        scene = make_scene(seed, split, index, count=2 + number % 2)
        kind = pick(stream, ("colour", "shape", "size"))
        named = [(t, handles(scene, t, kind)) for t in scene.things if handles(scene, t, kind)]
        if len(named) >= 2:
            break
        number += 1
    order = stream.permutation(len(named))[:2]
    (first, first_names), (second, second_names) = (named[int(i)] for i in order)
    told = _described(vary(any_caption(scene, stream), stream))
    told_word = word(QUESTIONS[kind], split, stream, x=pick(stream, first_names))
    asked = word(FOLLOW, split, stream, x=pick(stream, second_names))
    values = [{"colour": t.colour, "shape": t.shape, "size": t.size}[kind] for t in (first, second)]
    turns = (
        ("user", f"{told} {told_word.text}"),
        ("assistant", values[0]),
        ("user", asked.text),
        ("assistant", values[1]),
    )
    accepted = accept(values[1], f"it is {values[1]}", f"a {values[1]}")
    return Dialogue(turns, "follow", accepted, told_word.held_out or asked.held_out)


def dialogue_texts() -> tuple[str, ...]:
    """Texts that together hold the words that only dialogues have."""
    every = (ECHO, FOLLOW, GREETING, MY_NAME, LIKE, LIKED, AND_THEN, DAY_AFTER)
    replies = ("Hello", "I like too", "your name is", "you are", "you like", "it is a")
    return (*(text for phrasings in every for text in phrasings.all), *replies)
