"""Every caption parses back to its scene; wrong captions are seen to be wrong."""

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lumoomni.data.world.language import (
    OPENINGS,
    Facts,
    any_caption,
    caption,
    exact_match,
    facts,
    matches,
    normalise,
    says_held_out_pair,
)
from lumoomni.data.world.scene import INVERSE, TWIN_KINDS, Scene, make_scene, twin, twin_kinds
from lumoomni.data.world.split import SPLITS, rng
from lumoomni.errors import InputError

indices = st.integers(0, 2**31)
splits = st.sampled_from(SPLITS)
PLENTY = settings(max_examples=200, deadline=None)


@PLENTY
@given(indices, splits, st.sampled_from(sorted(OPENINGS)))
def test_every_caption_parses_back_to_its_scene(index, split, style):
    scene = make_scene(0, split, index)
    text = caption(scene, rng(0, index), style)
    said = facts(text)
    assert isinstance(said, Facts) and len(said.things) == len(scene.things)
    assert matches(scene, text)
    assert matches(scene, text.upper() + "!") and matches(scene, normalise(text))
    assert caption(scene) == caption(scene, rng(1, index))


@PLENTY
@example(5118341, "train", "shape")  # every red shape that training has
@given(indices, splits, st.sampled_from(TWIN_KINDS))
def test_a_twin_never_fits_the_caption(index, split, kind):
    scene = make_scene(0, split, index)
    if kind not in twin_kinds(scene):
        with pytest.raises(InputError):
            twin(scene, index, kind)
        return
    other = twin(scene, index, kind)
    assert not matches(other, caption(scene))
    assert not matches(scene, caption(other))


@PLENTY
@given(indices)
def test_train_captions_never_say_a_held_out_pair(index):
    for split in ("train", "seen"):
        assert not says_held_out_pair(any_caption(make_scene(0, split, index), rng(0, index)))
    assert says_held_out_pair(any_caption(make_scene(0, "unseen", index), rng(0, index)))
    scene = make_scene(0, "train", index)
    assert not any_caption(scene, rng(1, index)).startswith("In")


def scene_with(count: int) -> Scene:
    return make_scene(0, "seen", 11, count)


def test_restatements_are_right_and_reversals_wrong():
    scene = scene_with(2)
    first, second = caption(scene).split(f" {phrase(scene.relation)} ")
    assert matches(scene, f"{second} {phrase(INVERSE[scene.relation])} {first}")
    assert matches(scene, f"There is {first} {phrase(scene.relation)} {second}!")
    assert not matches(scene, f"{second} {phrase(scene.relation)} {first}")
    assert not matches(scene, f"{first} and {second}")
    assert not matches(scene, first)


def phrase(relation: str | None) -> str:
    return f"to the {relation}" if relation in ("left of", "right of") else str(relation)


def test_three_things_may_come_in_any_order():
    scene = scene_with(3)
    turned = Scene(scene.things[::-1], scene.split, scene.key)
    assert caption(turned) != caption(scene)
    assert matches(scene, caption(turned))
    doubled = Scene((*scene.things[:2], scene.things[0]), scene.split, scene.key)
    assert not matches(scene, caption(doubled))


@pytest.mark.parametrize(
    "text",
    ["", "a red circle", "a large red circle circle", "a large red circle above", "circle red big"],
)
def test_other_texts_are_no_captions(text):
    assert facts(text) is None
    assert not matches(scene_with(1), text)


def test_answers_are_compared_by_their_words():
    assert normalise("  What COLOR is it?! ") == "what colour is it"
    assert exact_match("Red.", ("red",))
    assert exact_match("the color red", ("red", "The colour red!"))
    assert not exact_match("red circle", ("red",))
    assert not exact_match("", ("red",))
    assert exact_match(" Круг ", ("круг",)) and not exact_match("квадрат", ("круг",))
    assert says_held_out_pair("Two RED stars!") and not says_held_out_pair("red, blue star")


def test_bad_requests_say_what_to_do():
    scene = scene_with(1)
    with pytest.raises(InputError, match="unknown caption style 'rhyme'"):
        caption(scene, np.random.default_rng(0), "rhyme")
    with pytest.raises(InputError, match="has 0"):
        caption(Scene((), "train", 0))


@given(st.text(st.characters(max_codepoint=127)))
def test_accents_fold_and_plain_text_is_what_it_was(text: str) -> None:
    words = re.sub(r"[^a-z0-9]+", " ", text.lower().replace("'", "")).split()
    assert [w for w in normalise(text).split() if w[:6] != "colour"] == [
        w for w in words if w not in ("color", "colors", "colored") and w[:6] != "colour"
    ]
    assert normalise("Für Ångström, naïve café") == "fur angstrom naive cafe"
    assert normalise("—") == normalise("Привет") == ""
