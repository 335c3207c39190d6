"""The instruction mixture: pure in its index, true to its pictures, and blind to held-out pairs."""

import numpy as np

from lumoomni.data.mixture import WITHOUT_COLOURS, InstructData, InstructMixture
from lumoomni.data.world.language import matches, says_held_out_pair
from lumoomni.data.world.split import COLOURS

DATA = InstructData(InstructMixture(), 0, 32)


def test_items_depend_on_their_index_alone() -> None:
    for task in ("caption", "look", "write_down", "spoken", "spoken_look", "text"):
        one, two = (DATA.item("train", 3, task) for _ in range(2))
        assert [t.text for t in one.turns] == [t.text for t in two.turns]
        for a, b in zip(one.turns, two.turns, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a.images, b.images, strict=True))
            assert all(np.array_equal(x, y) for x, y in zip(a.sounds, b.sounds, strict=True))


def test_training_asks_several_questions_about_one_picture_and_measuring_asks_one() -> None:
    for index in range(20):
        train, held = DATA.item("train", index, "look"), DATA.item("seen", index, "look")
        assert len(train.turns) in (10, 12) and len(held.turns) == 2
        assert [len(t.images) for t in train.turns] == [1] + [0] * (len(train.turns) - 1)
        said = [t.text for t in train.turns if t.role == "assistant"]
        assert any(matches(DATA.scene("train", index), text) for text in said)


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
    assert 10 < asked < 40
    assert all(
        DATA.item("seen", i, "caption").turns[0].text not in WITHOUT_COLOURS for i in range(40)
    )


def test_world_transcripts_are_spelt_as_they_sound() -> None:
    for index in range(10):
        text = DATA.item("seen", index, "write_down").turns[-1].text
        assert text == text.lower() and not set(text) & set(".?!,")
