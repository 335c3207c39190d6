"""Text as the senses will say it: shown captions, heard words, and when they come."""

import pytest

from lumoomni.data.conversation import Layout, text_turns
from lumoomni.data.sample import Sensed, TextItem
from lumoomni.data.sources import open_text
from lumoomni.data.world.language import bare, caption, copied, normalise, says_held_out_pair
from lumoomni.data.world.scene import make_scene
from lumoomni.data.world.sensed import TWO_SHARE, heard_talk, later_talk, shown_talk
from lumoomni.data.world.sentences import is_kept, words_of
from lumoomni.errors import InputError
from lumoomni.recipes.nano import nano
from lumoomni.stages.pretrain_text import PretrainTextConfig, curriculum
from lumoomni.uti.sequence import MARKERS, SILENCE
from tests.tiny import MEL, text_codec

SMALL = {"a", "and", "to", "the", "of", "left", "right", "above", "below"}


def test_a_shown_scene_is_bare_words_with_places() -> None:
    described = two = 0
    for index in range(300):
        talk = shown_talk(0, "seen", index, 1)
        scene = make_scene(0, "seen", index, count=2 + index % 2)
        assert talk.sensed == (Sensed("image", bare(scene)),) and len(talk.turns) == 2
        taught = shown_talk(0, "train", index, 4)
        two += len(taught.sensed) == 2
        described += any(len(reply.split()) > 7 for _, reply in taught.turns[1::2])
    assert abs(two / 300 - TWO_SHARE) < 0.08
    assert 0.2 < described / 300 < 0.7


def test_bare_words_say_all_that_a_caption_says_each_place_beside_its_thing() -> None:
    for index in range(300):
        scene = make_scene(0, "seen", index)
        said, words = bare(scene), normalise(caption(scene)).split()
        things = [f"{t.size} {t.colour} {t.shape}" for t in scene.things]
        assert all(thing in said for thing in things) and "a" not in said.split()
        places = {1: 0, 2: 2, 3: 3}[len(things)]
        assert len(said.split()) == 3 * len(things) + places
        if len(things) == 2:
            place = next(w for w in ("above", "left") if w in words)
            assert said.split()[3] == place and " ".join(words).find(said[:9]) == 2
            assert said.split()[7] == {"above": "below", "left": "right"}[place]
        if len(things) == 3:
            assert said.split()[3::4] == ["left", "middle", "right"]


def test_training_never_says_what_is_held_out() -> None:
    for index in range(400):
        talks = (shown_talk(0, "train", index, 6), later_talk(0, "train", index, 6))
        for item in (*talks, heard_talk(0, "train", index)):
            said = [text for _, text in item.turns] + [one.words for one in item.sensed]
            assert not any(says_held_out_pair(text) for text in said), said
            if item.turns[0][1] and item.sensed[0].kind == "audio":
                assert not is_kept(item.sensed[0].words)


def test_a_later_picture_is_the_one_that_is_meant() -> None:
    """Its words come before its own turn, with its number, and what is told last is told of it."""
    codec, told, together = text_codec(), 0, 0
    layout = Layout(text_codec=codec, template="compact", mel=MEL, image_positions=16)
    begin = codec.special(MARKERS["image"][0])
    for index in range(100):
        item = later_talk(0, "train", index, 6)
        assert item == later_talk(0, "train", index, 6) and len(item.turns) == 12
        first = len(item.sensed) - 1
        together += first == 2
        assert [one.turn for one in item.sensed] == [0] * first + [6]
        turns = text_turns(item)
        assert [len(turn.sensed) for turn in turns] == [first, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
        made = layout.encode(turns).sequence
        places = [i for i, one in enumerate(made.ids) if one == begin]
        answers = [i for i, one in enumerate(made.labels) if one != -100]
        assert len(places) == first + 1 and places[-2] < answers[0] < places[-1] < answers[-1]
        assert made.numbers is not None and (made.numbers >= 0).nonzero()[0][0] == places[1] + 1
        last = item.turns[-1][1]
        if last.startswith("a ") and "picture" not in item.turns[-2][1]:
            told += 1
            assert set(words_of(last)) - SMALL <= set(words_of(item.sensed[-1].words))
        short = later_talk(0, "seen", index, 1)
        assert len(short.turns) == 4 and short.accepted and short.kind == "later"
    assert told > 20 and 15 < together < 50


def test_what_is_heard_is_words_alone_and_answerable() -> None:
    kinds = {"write": 0, "look": 0, "question": 0}
    for index in range(300):
        item = heard_talk(0, "train", index)
        heard = item.sensed[-1]
        assert heard.kind == "audio" and heard.words == normalise(heard.words)
        assert 2.0 <= heard.spread <= 5.0
        if item.turns[0][1]:
            kinds["write"] += 1
            assert item.turns[1][1] == copied(heard.words)
        else:
            kinds["look" if len(item.sensed) == 2 else "question"] += 1
        assert heard_talk(0, "train", index) == item
    assert all(60 < count < 140 for count in kinds.values())


def test_words_stand_between_the_markers_and_silence_fills_the_rest() -> None:
    codec = text_codec()
    layout = Layout(text_codec=codec, template="compact", mel=MEL, image_positions=9)
    sensed = (Sensed("image", "red circle"), Sensed("audio", "is it red", 2.5))
    item = TextItem((("user", "tell"), ("assistant", "yes")), sensed=sensed)
    made = layout.encode(text_turns(item)).sequence
    ids = made.ids.tolist()
    silence = codec.special(SILENCE)
    for one, room in zip(sensed, (9, round(2.5 * len(codec.encode(" is it red")))), strict=True):
        begin, end = (ids.index(codec.special(name)) for name in MARKERS[one.kind])
        words = codec.encode(" " + one.words)
        assert ids[begin + 1 : end] == words + [silence] * (room - len(words))
    assert not made.slots
    assert made.labels.tolist().count(-100) == len(ids) - 1 - len(codec.encode("yes"))
    cut = TextItem((("user", ""), ("assistant", "a")), sensed=(Sensed("image", "red " * 40),))
    assert layout.encode(text_turns(cut)).sequence.ids.tolist().count(silence) == 0


def test_they_come_late_and_as_often_as_asked() -> None:
    config: PretrainTextConfig = nano().stage("pretrain_text").config
    rows = config.loop.steps * config.loop.batch_size * config.loop.accumulate
    draw = curriculum(config, open_text("world", 0), 0)
    late = int(config.sensed_from * rows)
    early = {draw(index).kind for index in range(late - 300, late)}
    after = [draw(index).kind for index in range(late, late + 600)]
    assert not early & {"shown", "heard", "compared", "later"}
    shown = sum(after.count(kind) for kind in ("shown", "compared", "later"))
    assert abs(after.count("later") / 600 - config.later * config.shown) < 0.05
    assert abs(shown / 600 - config.shown) < 0.07
    assert abs(after.count("heard") / 600 - config.heard) < 0.07


def test_other_peoples_text_has_no_senses() -> None:
    recipe = nano().override(["pretrain_text.data=txt:some.txt"])
    with pytest.raises(InputError, match="only the micro-world knows"):
        curriculum(recipe.stage("pretrain_text").config, open_text("world", 0), 0)
