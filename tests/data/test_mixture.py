"""The instruction mixture: pure in its index, true to its pictures, and blind to held-out pairs."""

import numpy as np

from lumoomni.data.mixture import WITHOUT_COLOURS, InstructData, InstructMixture
from lumoomni.data.world.comparing import two_scenes
from lumoomni.data.world.language import caption, matches, normalise, says_held_out_pair
from lumoomni.data.world.questions import PHRASINGS
from lumoomni.data.world.scene import draw, make_scene
from lumoomni.data.world.split import COLOURS, SHAPES

DATA = InstructData(InstructMixture(), 0, 32)
DESCRIBING = PHRASINGS["describe"].all


def test_items_depend_on_their_index_alone() -> None:
    for task in ("caption", "look", "write_down", "spoken", "spoken_look", "text"):
        one, two = (DATA.item("train", 3, task) for _ in range(2))
        assert [t.text for t in one.turns] == [t.text for t in two.turns]
        for a, b in zip(one.turns, two.turns, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a.images, b.images, strict=True))
            assert all(np.array_equal(x, y) for x, y in zip(a.sounds, b.sounds, strict=True))


def test_training_asks_several_questions_about_one_picture_and_measuring_asks_one() -> None:
    named = 0
    for index in range(40):
        train, held = DATA.item("train", index, "look"), DATA.item("seen", index, "look")
        assert 2 <= len(train.turns) <= 16 and len(held.turns) == 2
        assert [len(t.images) for t in train.turns] == [1] + [0] * (len(train.turns) - 1)
        said = [t.text for t in train.turns if t.role == "assistant"]
        scenes = [make_scene(0, "train", index, count) for count in (None, 2, 3)]
        shown = [s for s in scenes if np.array_equal(draw(s, 32), train.turns[0].images[0])]
        if shown:
            named += 1
            assert len(said) == 8 and any(matches(shown[0], text) for text in said)
            continue
        # Without a name: nothing that is asked or said names all colours, or all shapes.
        words = set(normalise(" ".join(t.text for t in train.turns)).split())
        assert not words & set(COLOURS) or not words & set(SHAPES)
    assert 20 < named < 36


def test_training_asks_mostly_where_things_stand_and_measuring_asks_all_alike() -> None:
    def share(split: str) -> float:
        asked = [
            turn.text
            for index in range(300)
            for turn in DATA.item(split, index, "look").turns
            if turn.role == "user"
        ]
        words = ("where", "left", "right", "above", "below", "middle")
        return sum(any(w in text.lower() for w in words) for text in asked) / len(asked)

    assert share("train") > 0.38 > 0.3 > share("seen") > 0.1


def test_no_training_conversation_names_a_held_out_pair() -> None:
    for index in range(400):
        for turn in DATA.item("train", index).turns:
            assert not says_held_out_pair(turn.text), turn.text


def test_descriptions_without_colours_name_none() -> None:
    asked = 0
    for index in range(60):
        turns = DATA.item("train", index, "caption").turns
        coloured = any(colour in turns[1].text.replace(",", "").split() for colour in COLOURS)
        assert coloured != (turns[0].text in WITHOUT_COLOURS)
        asked += not coloured
    assert 5 < asked < 30
    assert all(
        DATA.item("seen", i, "caption").turns[0].text not in WITHOUT_COLOURS for i in range(40)
    )


def test_world_transcripts_are_spelt_as_they_sound() -> None:
    for index in range(10):
        text = DATA.item("seen", index, "write_down").turns[-1].text
        assert text == text.lower() and not set(text) & set(".?!,")


def test_another_picture_comes_half_the_way_and_is_meant_from_there() -> None:
    data, firsts = InstructData(InstructMixture(later=1.0), 0, 32), set[int]()
    for index in range(40):
        turns = data.item("train", index, "look").turns
        shown = [place for place, turn in enumerate(turns) if turn.images]
        assert len(turns) == 16 and shown == [0, 8]
        assert not np.array_equal(turns[0].images[0], turns[8].images[0])
        asked = data.item("seen", index, "later")
        first, *rest = (len(turn.images) for turn in asked.turns)
        firsts.add(first)
        assert rest == [0, 1, 0] and first in (1, 2)
        last = two_scenes(0, "seen", index)[1] if first == 1 else make_scene(0, "seen", index)
        assert np.array_equal(asked.turns[2].images[0], draw(last, 32))
        if asked.turns[2].text in DESCRIBING:
            assert asked.turns[-1].text == caption(last) and asked.accepted[0] == caption(last)
    assert firsts == {1, 2} and data.item("seen", 3, "look").kind == "look"
    plain = InstructData(InstructMixture(), 0, 32)
    assert all(plain.item("train", index, "look").kind == "look" for index in range(20))
