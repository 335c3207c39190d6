"""Answers about scenes are worked out again here, from the words of the question alone."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.data.world.asking import QA
from lumoomni.data.world.language import exact_match, matches, normalise, says_held_out_pair
from lumoomni.data.world.questions import (
    PHRASINGS,
    VISUAL_KINDS,
    description,
    kinds_for,
    visual_question,
)
from lumoomni.data.world.scene import Scene, Thing, make_scene
from lumoomni.data.world.split import SPLITS, rng
from lumoomni.errors import InputError

indices = st.integers(0, 2**31)
splits = st.sampled_from(SPLITS)
PLENTY = settings(max_examples=400, deadline=None)
RELATION = re.compile(r"(above|below|left of|right of)")
NUMBERS = ("zero", "one", "two", "three")


def referred(scene: Scene, words: str) -> Thing:
    """The one thing that fits every attribute word of a phrase."""
    fits = list(scene.things)
    for word in words.split():
        if any(word in (t.colour, t.shape, t.size) for t in make_all()):
            fits = [t for t in fits if word in (t.colour, t.shape, t.size)]
    assert len(fits) == 1, (words, scene)
    return fits[0]


def make_all() -> list[Thing]:
    colours = ["red", "green", "blue", "yellow", "orange", "purple", "white", "black"]
    shapes = ["circle", "square", "triangle", "star"]
    return [Thing(c, s, z, 0, 0, 1) for c in colours for s in shapes for z in ("small", "large")]


def stands(scene: Scene, x: Thing, relation: str, y: Thing) -> bool:
    """Whether x stands in the relation to y, by their places."""
    dx, dy = x.x - y.x, x.y - y.y
    if len(scene.things) == 2 and (abs(dy) > abs(dx)) != (relation in ("above", "below")):
        return False
    return {"above": dy < 0, "below": dy > 0, "left of": dx < 0, "right of": dx > 0}[relation]


def solve(scene: Scene, qa: QA) -> str:
    """The answer, found without the code under test."""
    asked = normalise(qa.question).replace("to the left of", "left of")
    asked = asked.replace("to the right of", "right of")
    if qa.kind in ("colour", "shape", "size"):
        asked = asked.replace("large or small", "").replace("small or large", "")
        thing = referred(scene, asked.replace("what shape", "").replace("how big", ""))
        return {"colour": thing.colour, "shape": thing.shape, "size": thing.size}[qa.kind]
    if qa.kind == "count":
        return NUMBERS[len(scene.things)]
    if qa.kind == "count_some":
        named = list(asked.replace("squares", "square").split())
        named = [word.removesuffix("s") for word in named]
        words = {w for t in make_all() for w in (t.colour, t.shape, t.size)} & set(named)
        (word,) = words
        return NUMBERS[sum(word in (t.colour, t.shape, t.size) for t in scene.things)]
    if qa.kind == "exists":
        return "yes" if any(f"{t.colour} {t.shape}" in asked for t in scene.things) else "no"
    if qa.kind == "place":
        (named,) = re.findall("left|middle|right", asked)
        side = ("left", "middle", "right").index(named)
        thing = sorted(scene.things, key=lambda t: t.x)[side]
        return f"a {thing.size} {thing.colour} {thing.shape}"
    if qa.kind == "where":
        thing = referred(scene, asked)
        (other,) = [t for t in scene.things if t is not thing]
        (relation,) = [
            r for r in ("above", "below", "left of", "right of") if stands(scene, thing, r, other)
        ]
        spoken = f"to the {relation}" if "of" in relation else relation
        return f"{spoken} the {other.colour} {other.shape}"
    left, relation, right = RELATION.split(asked, maxsplit=1)
    if qa.kind == "relation":
        right = right.replace("is it true", "")
        x, y = referred(scene, left), referred(scene, right)
        return "yes" if stands(scene, x, relation, y) else "no"
    y = referred(scene, right)
    (x,) = [t for t in scene.things if t is not y and stands(scene, t, relation, y)]
    return f"a {x.size} {x.colour} {x.shape}"


@PLENTY
@given(indices, splits)
def test_answers_are_true(index, split):
    scene = make_scene(0, split, index)
    for kind in kinds_for(scene):
        qa = visual_question(scene, rng(0, "ask", index), kind)
        assert qa == visual_question(scene, rng(0, "ask", index), kind)
        assert qa.kind == kind and qa.answer == qa.accepted[0] == solve(scene, qa)
        assert exact_match(qa.answer.upper() + "!", qa.accepted)
        assert len(qa.answer.split()) <= 12
        if split != "unseen":
            texts = (qa.question, *qa.accepted)
            assert not any(says_held_out_pair(text) for text in texts)
        assert not (qa.held_out and split == "train")


@PLENTY
@given(indices, splits)
def test_descriptions_fit_the_scene(index, split):
    scene = make_scene(0, split, index)
    qa = description(scene, rng(0, index))
    assert all(matches(scene, answer) for answer in qa.accepted)


def test_yes_and_no_are_balanced_and_every_kind_comes():
    answers: dict[str, list[str]] = {}
    for index in range(3000):
        qa = visual_question(make_scene(0, "train", index), rng(0, "ask", index))
        answers.setdefault(qa.kind, []).append(qa.answer)
    assert set(answers) == set(VISUAL_KINDS)
    for kind in ("relation", "exists"):
        assert 0.42 < answers[kind].count("yes") / len(answers[kind]) < 0.58
    assert 0.1 < answers["count_some"].count("zero") / len(answers["count_some"]) < 0.5
    assert min(len(found) for found in answers.values()) > 60


def patterns(templates: tuple[str, ...]) -> list[re.Pattern[str]]:
    """Templates as patterns of normalised questions."""
    plain = [normalise(t.format(x="QQ", y="QQ", r="QQ")) for t in templates]
    return [re.compile(text.replace("qq", "[a-z ]+")) for text in plain]


def test_held_out_phrasings_stay_out_of_training():
    used = set()
    for index in range(700):
        for split in ("train", "seen"):
            scene = make_scene(0, split, index)
            for kind in kinds_for(scene):
                qa = visual_question(scene, rng(1, index), kind)
                asked = normalise(qa.question)
                new = [p for p in patterns(PHRASINGS[kind].held_out) if p.fullmatch(asked)]
                assert bool(new) == qa.held_out
                assert any(p.fullmatch(asked) for p in patterns(PHRASINGS[kind].all))
                assert not (new and split == "train")
                used.update(new)
    assert len(used) == sum(len(PHRASINGS[kind].held_out) for kind in VISUAL_KINDS)


def test_names_do_not_give_the_answer_away():
    for index in range(600):
        scene = make_scene(0, "train", index)
        for kind in ("colour", "shape"):
            if kind in kinds_for(scene):
                qa = visual_question(scene, rng(2, index), kind)
                assert qa.answer not in normalise(qa.question).split()


def test_unfitting_kinds_are_refused():
    with pytest.raises(InputError, match="kind 'place' does not fit"):
        visual_question(make_scene(0, "train", 0, 1), rng(0), "place")
