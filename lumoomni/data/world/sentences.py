"""Sentences worth saying aloud, and the closed vocabulary of the whole world.

Knows text only. One sentence costs about 0.2 ms. An eighth of all sentences is kept for the
splits outside training, whatever they speak of, so a sentence heard in training is never met
again in a test.
"""

import re

import numpy as np

from lumoomni.data.world.asking import QA
from lumoomni.data.world.counting import number_question, number_texts
from lumoomni.data.world.dialogues import dialogue_texts
from lumoomni.data.world.language import (
    RELATION_PHRASES,
    any_caption,
    caption_texts,
    normalise,
    says_held_out_pair,
)
from lumoomni.data.world.questions import question_texts, visual_question
from lumoomni.data.world.scene import make_scene
from lumoomni.data.world.smalltalk import INTENTS, small_talk, talk_texts
from lumoomni.data.world.sounds import sound_texts
from lumoomni.data.world.split import COLOURS, SHAPES, SIZES, check_split, pick, rng, share

FEWEST_WORDS, MOST_WORDS = 2, 14
KEPT_SHARE = 0.125


def _vocabulary() -> tuple[str, ...]:
    """Every word that any text of the world can hold, in lower case and alphabetical order."""
    texts = (
        *caption_texts(),
        *question_texts(),
        *number_texts(),
        *talk_texts(),
        *dialogue_texts(),
        *sound_texts(),
    )
    words = {word for text in texts for word in words_of(re.sub(r"\{\w\}", " ", text))}
    words |= {word.replace("olour", "olor") for word in words}
    return tuple(sorted(word for word in words if word.isalpha()))


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, spelt as they stand."""
    return re.findall(r"[a-z0-9]+", text.lower())


WORDS = _vocabulary()


def grammar_words() -> tuple[str, ...]:
    """The words a recogniser has to know to write down any sentence, in British spelling."""
    return tuple(sorted({normalise(word) for word in WORDS}))


# Words that the CMU dictionary of pocketsphinx lacks, in its phones.
PRONUNCIATIONS = {"lumo": "L UW M OW", "oink": "OY NG K"}


def caption_grammar() -> str:
    """The canonical captions as a JSGF grammar, for a recogniser that judges spoken captions."""
    relations = "|".join(RELATION_PHRASES.values())
    return (
        "#JSGF V1.0;\ngrammar captions;\n"
        f"<noun> = a ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)});\n"
        f"<relation> = {relations};\n"
        "public <caption> = <noun> | <noun> <relation> <noun> | <noun> <noun> and <noun>;\n"
    )


def is_kept(text: str) -> bool:
    """Whether a sentence is kept out of training, in whatever case and punctuation."""
    return share("sentence", normalise(text)) < KEPT_SHARE


def sentence(seed: int, split: str, index: int) -> str:
    """The sentence of an index: 2 to 14 words, a pure function of its arguments.

    Captions, questions, answers, small talk, numbers, and words in a row.
    """
    check_split(split)
    stream = rng(seed, "sentence", split, index)
    while True:
        text = _any(seed, split, stream)
        count = len(words_of(text))
        if not FEWEST_WORDS <= count <= MOST_WORDS or is_kept(text) != (split != "train"):
            continue
        if split == "unseen" or not says_held_out_pair(text):
            return text


def training_row(seed: int, index: int) -> str:
    """Two to six random words, each word of the world equally often, for training recognisers.

    Sentences use a few words all the time and most words rarely; rows teach the rare ones.
    """
    stream = rng(seed, "row", index)
    while True:
        text = " ".join(pick(stream, ROW_WORDS) for _ in range(int(stream.integers(2, 7))))
        if not is_kept(text) and not says_held_out_pair(text):
            return text


# Words that sound like another one ("sea") can be told apart in a sentence, but not in a row.
_SOUND_ALIKE = ("to", "too", "here", "sea", "read", "know", "color", "colors")
ROW_WORDS = tuple(word for word in WORDS if word not in _SOUND_ALIKE)


def _any(seed: int, split: str, stream: np.random.Generator) -> str:
    """Some sentence of the split, of any length."""
    choice = stream.random()
    scene = make_scene(seed, split, int(stream.integers(2**48)))
    if choice < 0.3:
        return any_caption(scene, stream)
    if choice < 0.45:
        return visual_question(scene, stream).question
    if choice < 0.58:
        return number_question(split, stream).question
    if choice < 0.68:
        return _said_in_full(visual_question(scene, stream))
    if choice < 0.82:
        return pick(stream, (small_talk(split, stream).question, pick(stream, INTENTS).answer))
    return " ".join(pick(stream, ROW_WORDS) for _ in range(int(stream.integers(3, 9))))


def _said_in_full(qa: QA) -> str:
    """The longest of the accepted answers."""
    return max(qa.accepted, key=len)
