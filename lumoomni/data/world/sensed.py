"""Text as the senses will say it: a picture in bare words, speech as its words, silence around.

Knows: what the connectors make of a picture and of a sentence when they make no mistake
(`train/readout.py`, `train/warm_start.py`), and what is asked about it.
Does not know: ids or positions. Costs: 0.2 ms a talk.

Late in the text stage the Thinker learns from these to read what it will be shown and told, so that
joint training has little left to do (LOG.md).
"""

from dataclasses import replace

import numpy as np

from lumoomni.data.sample import Sensed, TextItem
from lumoomni.data.world.arriving import arriving
from lumoomni.data.world.asking import QA
from lumoomni.data.world.comparing import compared, two_scenes
from lumoomni.data.world.dialogues import RENAMED_SHARE, text_sample
from lumoomni.data.world.language import bare, copied, normalise
from lumoomni.data.world.nameless import rename
from lumoomni.data.world.questions import PLACE_KINDS, description, kinds_for, visual_question
from lumoomni.data.world.scene import Scene, make_scene
from lumoomni.data.world.sentences import sentence, training_row
from lumoomni.data.world.split import pick, rng

WRITE_DOWN = (
    "Write down what is said.",
    "What is being said?",
    "Please write down the words.",
    "Write down the words that you hear.",
)
# A spoken question must make sense without anything written before it.
SPOKEN_KINDS = ("number", "talk")
PLAIN_SHARE, COUNT_SHARE = 0.25, 0.1
"""Shares of training questions about shown scenes that need not be about places, and that count."""
DESCRIBE_SHARE = 0.12
"""Share of training turns about shown scenes that ask to describe them."""
HEARD = {"question": 0.35, "write": 0.35, "look": 0.3}
TWO_SHARE = 0.3
"""Share of shown training rows with two pictures."""
SLOWEST, FASTEST = 5.0, 2.0
"""Positions that speech takes for each id of its words."""


def shown_talk(seed: int, split: str, index: int, questions: int) -> TextItem:
    """A scene in bare words, and questions, mostly about where things stand.

    A training talk also asks for the description, or shows two scenes and asks which.
    """
    stream = rng(seed, "shown-talk", split, index)
    if split == "train" and stream.random() < TWO_SHARE:
        return compared_talk(seed, split, index, questions)
    scene = _scene(seed, split, index, stream)
    turns: list[tuple[str, str]] = []
    for _ in range(questions):
        if split == "train" and stream.random() < DESCRIBE_SHARE:
            qa = description(scene, stream)
        else:
            qa = _ask(scene, stream)
        turns += [("user", qa.question), ("assistant", qa.answer)]
    return TextItem(tuple(turns), qa.accepted, "shown", (_shown(scene),))


def compared_talk(seed: int, split: str, index: int, questions: int) -> TextItem:
    """Two scenes in bare words, and questions about which shows what."""
    stream = rng(seed, "compared-talk", split, index)
    scenes = two_scenes(seed, split, index)
    if split == "train" and stream.random() < RENAMED_SHARE:
        scenes = rename(scenes[0], stream), rename(scenes[1], stream)
    turns: list[tuple[str, str]] = []
    for _ in range(questions):
        qa = compared(scenes, stream)
        turns += [("user", qa.question), ("assistant", qa.answer)]
    return TextItem(tuple(turns), qa.accepted, "compared", tuple(_shown(one) for one in scenes))


def later_talk(seed: int, split: str, index: int, questions: int) -> TextItem:
    """Pictures in two turns: half of the questions after each, about the last that came."""
    stream = rng(seed, "later-talk", split, index)
    pair, third = two_scenes(seed, split, index), _scene(seed, split, index, stream)
    if split == "train" and stream.random() < RENAMED_SHARE:
        pair = rename(pair[0], stream), rename(pair[1], stream)
    turns: list[tuple[str, str]] = []
    sensed: list[Sensed] = []
    accepted: tuple[str, ...] = ()
    for moment in arriving(pair, third, _ask, max(1, questions // 2), stream):
        sensed += [replace(_shown(scene), turn=len(turns)) for scene in moment.scenes]
        for qa in moment.asked:
            turns += [("user", qa.question), ("assistant", qa.answer)]
            accepted = qa.accepted
    return TextItem(tuple(turns), accepted, "later", tuple(sensed))


def heard_talk(seed: int, split: str, index: int) -> TextItem:
    """Speech as its words: a question, a sentence to write down, or a question about a scene."""
    stream = rng(seed, "heard-talk", split, index)
    kind = str(stream.choice(list(HEARD), p=list(HEARD.values())))
    if kind == "write":
        row = split == "train" and stream.random() < 0.25
        made = training_row(seed, index) if row else sentence(seed, split, index)
        words = normalise(made)
        turns = (("user", pick(stream, WRITE_DOWN)), ("assistant", copied(words)))
        return TextItem(turns, (words,), "heard", (_heard(words, stream),))
    if kind == "look":
        scene = _scene(seed, split, index, stream)
        qa = _ask(scene, stream)
        turns = (("user", ""), ("assistant", qa.answer))
        sensed = (_shown(scene), _heard(qa.question, stream))
        return TextItem(turns, qa.accepted, "heard", sensed)
    made = text_sample(seed, split, index, pick(stream, SPOKEN_KINDS))
    (_, question), (_, reply) = made.turns
    turns = (("user", ""), ("assistant", reply))
    return TextItem(turns, made.accepted, "heard", (_heard(question, stream),))


def _scene(seed: int, split: str, index: int, stream: np.random.Generator) -> Scene:
    """A scene of two or three things; in training often in names that no picture shows."""
    scene = make_scene(seed, split, index, count=2 + index % 2)
    renamed = split == "train" and stream.random() < RENAMED_SHARE
    return rename(scene, stream) if renamed else scene


def _ask(scene: Scene, stream: np.random.Generator) -> QA:
    kinds, drawn = PLACE_KINDS[len(scene.things)] or kinds_for(scene), 1.0
    if scene.split == "train":
        drawn = stream.random()
    if drawn < COUNT_SHARE:
        kinds = ("count_some",)
    elif drawn < COUNT_SHARE + PLAIN_SHARE:
        kinds = kinds_for(scene)
    return visual_question(scene, stream, pick(stream, kinds))


def _shown(scene: Scene) -> Sensed:
    return Sensed("image", bare(scene))


def _heard(words: str, stream: np.random.Generator) -> Sensed:
    return Sensed("audio", normalise(words), FASTEST + (SLOWEST - FASTEST) * stream.random())
