"""Two pictures: questions that name one of them have one right answer, and both orders come."""

from collections import Counter

import pytest

from lumoomni.data.mixture import InstructData, InstructMixture
from lumoomni.data.world.comparing import compared, two_scenes
from lumoomni.data.world.language import caption, normalise, says_held_out_pair
from lumoomni.data.world.scene import Scene
from lumoomni.data.world.sensed import compared_talk
from lumoomni.data.world.split import COLOURS, SHAPES, SIZES, rng


def fits(scene: Scene, name: str) -> bool:
    """Whether a picture shows what is named: every attribute said, of one thing."""
    said = set(name.split())
    return any(
        said & set(COLOURS) <= {t.colour}
        and said & set(SHAPES) <= {t.shape}
        and said & set(SIZES) <= {t.size}
        for t in scene.things
    )


def test_what_is_asked_for_is_in_the_picture_that_is_named_and_in_no_other() -> None:
    answers = Counter[str]()
    for index in range(300):
        scenes = two_scenes(0, "seen", index)
        asked = compared(scenes, rng(0, "t", index), "which")
        assert asked.kind == "which"
        place = {"the first": 0, "the second": 1}[asked.answer]
        words = normalise(asked.question).replace("first", "").replace("second", "")
        name = words.split(" one " if "one has" in words else " has ", 1)[-1]
        assert fits(scenes[place], name) and not fits(scenes[1 - place], name), asked
        answers[asked.answer] += 1
    assert min(answers.values()) > 110


def test_whether_one_of_them_has_it_is_told_by_half_with_yes() -> None:
    yes = 0
    for index in range(200):
        scenes = two_scenes(0, "train", index)
        asked = compared(scenes, rng(0, "h", index), "has")
        words = normalise(asked.question)
        place = int("second picture" in words)
        name = words.replace("the first picture", "").replace("the second picture", "")
        assert (asked.answer == "yes") == fits(scenes[place], name), asked
        yes += asked.answer == "yes"
    assert 75 < yes < 125


def test_what_one_of_them_shows_is_its_caption_or_its_count() -> None:
    for index in range(100):
        scenes = two_scenes(0, "train", index)
        shown = compared(scenes, rng(0, "s", index), "shown")
        place = int("second" in normalise(shown.question))
        assert shown.answer == caption(scenes[place])
        counted = compared(scenes, rng(0, "c", index), "counted")
        place = int("second" in normalise(counted.question))
        assert counted.answer == ("one", "two")[len(scenes[place].things) - 1]


def test_training_never_names_a_held_out_pair_and_unseen_always_shows_one() -> None:
    for index in range(200):
        talk = compared_talk(0, "train", index, 6)
        assert len(talk.sensed) == 2 and len(talk.turns) == 12
        said = [text for _, text in talk.turns] + [one.words for one in talk.sensed]
        assert not any(says_held_out_pair(text) for text in said)
        scenes = two_scenes(0, "unseen", index)
        assert any(says_held_out_pair(caption(scene)) for scene in scenes)


@pytest.mark.parametrize("task", ["compare", "count", "relation"])
def test_the_mixture_measures_them_one_question_each(task: str) -> None:
    data = InstructData(InstructMixture(), 0, 32)
    for index in range(40):
        made = data.item("seen", index, task)
        assert len(made.turns) == 2 and made.kind == task and made.accepted
        assert len(made.turns[0].images) == (2 if task == "compare" else 1)
    learned = data.item("train", 0, "compare")
    assert len(learned.turns) == 2 * data.mixture.looks
