"""Another picture in a later turn: a question that names none is about the last that came.

Knows scenes and their questions, not pixels. Does not know how many tasks use it. Costs: the
questions', 30 microseconds each.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lumoomni.data.world.asking import QA
from lumoomni.data.world.comparing import compared
from lumoomni.data.world.questions import description
from lumoomni.data.world.scene import Scene

TOGETHER_SHARE = 0.3
"""Share of talks that begin with two pictures at once, so that the later one is the third."""
BOTH_SHARE = 0.25
"""Share of training questions after the second picture that ask which of the two has something."""
DESCRIBE_SHARE = 0.4
"""Share of the questions about one picture that ask to describe it: nothing in them says which."""

Ask = Callable[[Scene, np.random.Generator], QA]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What comes in one turn, and what is asked from there to the next picture."""

    scenes: tuple[Scene, ...]
    asked: tuple[QA, ...]


def arriving(
    pair: tuple[Scene, Scene], third: Scene, ask: Ask, questions: int, stream: np.random.Generator
) -> tuple[Moment, Moment]:
    """Two moments of a talk, `questions` in each, of which the last is about the last picture.

    Either the pair comes one after the other, or together and `third` after it.
    """

    def about(scene: Scene) -> QA:
        told = stream.random() < DESCRIBE_SHARE
        return description(scene, stream) if told else ask(scene, stream)

    if stream.random() < TOGETHER_SHARE:
        both = tuple(compared(pair, stream) for _ in range(questions))
        alone = tuple(about(third) for _ in range(questions))
        return Moment(scenes=pair, asked=both), Moment(scenes=(third,), asked=alone)
    first, last = pair
    before = tuple(about(first) for _ in range(questions))
    mixed = [
        compared(pair, stream) if stream.random() < BOTH_SHARE else about(last)
        for _ in range(questions - 1)
    ]
    after = (*mixed, about(last))
    return Moment(scenes=(first,), asked=before), Moment(scenes=(last,), asked=after)
