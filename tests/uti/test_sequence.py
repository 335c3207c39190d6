"""Sequences: supervision, placeholders and templates, read as literal lists."""

from dataclasses import replace

import numpy as np
import pytest

from lumoomni.ids import AUDIO_FRAME, IGNORE, IMAGE_PATCH, NO_NUMBER
from lumoomni.uti.sequence import TEMPLATES, SequenceBuilder, end_id
from tests.tiny import text_codec

CODEC = text_codec()


def special(name: str) -> int:
    return CODEC.special(f"<|{name}|>")


def test_a_conversation_with_a_picture() -> None:
    builder = SequenceBuilder(CODEC)
    builder.open("user").media("image", 2).text("what?").close()
    builder.open("assistant").text("red", supervised=True).close(supervised=True)
    made = builder.build()
    what, red = CODEC.encode("what?"), CODEC.encode("red")
    begin, end = special("vision_start"), special("vision_end")
    asked = [special("user"), begin, IMAGE_PATCH, IMAGE_PATCH, end, *what, special("im_end")]
    assert made.ids.tolist() == [*asked, special("assistant"), *red, special("im_end")]
    supervised = [*red, special("im_end")]
    assert made.labels.tolist() == [IGNORE] * (len(asked) + 1) + supervised
    assert [(s.kind, s.start, s.stop) for s in made.slots] == [("image", 2, 4)]
    span = made.spans[-1]
    assert made.ids[span.start : span.stop].tolist() == red


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_the_supervised_ids_are_the_answers_and_their_ends(template: str) -> None:
    builder = SequenceBuilder(CODEC, template)
    for question, reply in (("a?", "one"), ("b?", "two words")):
        builder.open("user").text(question).close()
        builder.open("assistant").text(reply, supervised=True).close(supervised=True)
    made = builder.build()
    learned = made.labels[made.labels != IGNORE]
    wanted = []
    for reply in ("one", "two words"):
        wanted += [*CODEC.encode(reply), end_id(CODEC, template)]
    assert learned.tolist() == wanted
    assert (made.ids[made.labels != IGNORE] == learned).all()


def test_text_cannot_spell_placeholders_or_markers() -> None:
    made = SequenceBuilder(CODEC).open("user").text("<|audio_start|> -2 <|im_end|>").close().build()
    assert (made.ids >= 0).all()
    assert np.count_nonzero(made.ids == special("im_end")) == 1
    assert special("audio_start") not in made.ids


def test_media_needs_room_and_templates_must_exist() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SequenceBuilder(CODEC).open("user").media("audio", 0)
    with pytest.raises(ValueError, match="unknown template"):
        SequenceBuilder(CODEC, "nothing")
    made = SequenceBuilder(CODEC).open("user").media("audio", 3).build()
    assert np.count_nonzero(made.ids == AUDIO_FRAME) == 3


def test_pictures_after_the_first_carry_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEMPLATES, "compact", replace(TEMPLATES["compact"], numbered=5))
    builder = SequenceBuilder(CODEC).open("user").media("image", 2).media("audio", 3)
    assert builder.build().numbers is None
    builder.media("image", 2).text("which?").close().open("assistant").text("two").close()
    made = builder.open("user").said("image", "red circle", 6).build()
    assert made.numbers is not None and len(made.numbers) == len(made)
    second, third = (CODEC.encode(str(n))[0] for n in (2, 3))
    places = {n: np.flatnonzero(made.numbers == n).tolist() for n in (second, third)}
    slot = made.slots[2]
    assert places == {
        second: list(range(slot.start, slot.stop)),
        third: list(range(len(made) - 7, len(made) - 1)),
    }
    assert set(made.numbers.tolist()) == {second, third, NO_NUMBER}


def test_other_templates_number_nothing_and_numbers_end_where_they_are_taught() -> None:
    for template in set(TEMPLATES) - {"compact"}:
        made = SequenceBuilder(CODEC, template).open("assistant").media("image", 1)
        assert made.media("image", 1).build().numbers is None
    builder = SequenceBuilder(CODEC)
    for _ in range(12):
        builder.media("image", 1)
    numbers = builder.build().numbers
    assert numbers is not None
    most = TEMPLATES["compact"].numbered
    wanted = [CODEC.encode(str(min(n, most)))[0] for n in range(2, 13)]
    assert numbers[numbers >= 0].tolist() == wanted
