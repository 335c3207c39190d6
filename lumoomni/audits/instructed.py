"""Audits of an instructed model: captions, questions, sounds, and what happens when inputs swap.

Measures, never judges. Costs: one batched greedy generation for each task and split.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lumoomni.audits.speech import word_errors
from lumoomni.audits.text import share_right
from lumoomni.data.conversation import Layout, Turn
from lumoomni.data.mixture import InstructData
from lumoomni.data.world.language import exact_match, matches, normalise
from lumoomni.data.world.questions import VISUAL_KINDS, kinds_for, visual_question
from lumoomni.data.world.scene import Scene, draw, twin, twin_kinds
from lumoomni.data.world.split import rng
from lumoomni.gates import Metric
from lumoomni.infer.answer import answer, answerable, omni_embedder
from lumoomni.model.omni import OmniModel

TWIN_OF = {"colour": "colour", "shape": "shape", "size": "size", "relation": "relation"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question and what was said, for reports."""

    task: str
    split: str
    question: str
    wanted: str
    said: str
    right: bool
    index: int


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """A model with its layout and the data to ask about."""

    model: OmniModel
    layout: Layout
    data: InstructData

    def ask(self, prompts: Sequence[tuple[Turn, ...]]) -> list[str]:
        """Greedy answers."""
        return answer(self.model.thinker, omni_embedder(self.model), self.layout, prompts)

    def task(self, task: str, split: str, count: int) -> list[Asked]:
        """Ask `count` held-out conversations of one task, or all where there are fewer; those that
        leave the Thinker no room to answer are left out."""
        count = self.data.count(split, task, count)
        every = [self.data.item(split, i, task) for i in range(count)]
        places = answerable(self.model.thinker, self.layout, [item.prompt() for item in every])
        items = [every[place] for place in places]
        said = self.ask([item.prompt() for item in items])
        out = []
        for index, item, text in zip(places, items, said, strict=True):
            wanted = item.turns[-1].text
            if task == "caption" and self.data.mixture.pictures == "world":
                right = matches(self.data.scene(split, index), text)
            else:
                right = exact_match(text, item.accepted or (wanted,))
            out.append(
                Asked(
                    task=task,
                    split=split,
                    question=item.turns[-2].text,
                    wanted=wanted,
                    said=text,
                    right=right,
                    index=index,
                )
            )
        return out


def share(asked: Sequence[Asked]) -> Metric:
    """How many were right."""
    return share_right([one.right for one in asked])


def heard_words(asked: Sequence[Asked]) -> Metric:
    """Word error rate of what was written down."""
    return word_errors([one.wanted for one in asked], [one.said for one in asked])


def picture_pairs(data: InstructData, count: int) -> list[tuple[Scene, Scene, str, str, str]]:
    """(scene, twin, question, answer, twin's answer): one attribute differs and changes the answer.

    The question is worded the same for both, so only the picture can tell them apart.
    """
    pairs = []
    for index in range(60 * count):
        scene = data.scene("seen", 10**6 + index)
        stream = rng(data.seed, "swap", index)
        kinds = [kind for kind in kinds_for(scene) if kind in VISUAL_KINDS and kind in TWIN_OF]
        if not kinds:
            continue
        kind = kinds[int(stream.integers(len(kinds)))]
        if TWIN_OF[kind] not in twin_kinds(scene):
            continue
        other = twin(scene, index, TWIN_OF[kind])
        if kind not in kinds_for(other):
            continue
        one = visual_question(scene, rng(data.seed, "swap-question", index), kind)
        two = visual_question(other, rng(data.seed, "swap-question", index), kind)
        if one.question == two.question and normalise(one.answer) != normalise(two.answer):
            pairs.append((scene, other, one.question, one.answer, two.answer))
        if len(pairs) == count:
            break
    return pairs


def picture_swap(examiner: Examiner, count: int) -> Metric:
    """Share of pairs in which the answer follows the swapped picture and fits it."""
    pairs = picture_pairs(examiner.data, count)
    prompts = [
        (Turn(role="user", text=question, images=(draw(other, examiner.data.pixels),)),)
        for _, other, question, _, _ in pairs
    ]
    said = examiner.ask(prompts)
    return share_right(
        [exact_match(text, (pair[4],)) for text, pair in zip(said, pairs, strict=True)]
    )


def sound_swap(examiner: Examiner, count: int) -> Metric:
    """Share of spoken questions whose answer follows when only the sound is swapped.

    Pairs are neighbours with different answers; right means: fits the new one, not the old one.
    """
    items = [examiner.data.item("seen", 5000 + i, "spoken") for i in range(2 * count)]
    pairs = []
    for old, new in zip(items[::2], items[1::2], strict=True):
        if normalise(old.turns[-1].text) != normalise(new.turns[-1].text):
            pairs.append((old, new))
    # The same prompt, with the sound of the new question in place of the old one's.
    prompts = [(replace(old.turns[0], sounds=new.turns[0].sounds),) for old, new in pairs]
    said = examiner.ask(prompts)
    return share_right(
        [
            exact_match(text, new.accepted) and not exact_match(text, old.accepted)
            for text, (old, new) in zip(said, pairs, strict=True)
        ]
    )


def blind_gap(examiner: Examiner, count: int) -> Metric:
    """Share of picture questions answered right when every picture is plain grey."""
    items = [examiner.data.item("seen", i, "look") for i in range(count)]
    size = examiner.data.pixels
    grey = np.full((size, size, 3), 128, dtype=np.uint8)
    prompts = [(replace(item.turns[0], images=(grey,)),) for item in items]
    said = examiner.ask(prompts)
    return share_right([exact_match(t, item.accepted) for t, item in zip(said, items, strict=True)])
