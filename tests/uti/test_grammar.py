"""The grammar: what is built is legal, what is drawn from it can be decoded, faults are placed."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumoomni.errors import InputError
from lumoomni.uti.grammar import PAD, Grammar, State
from lumoomni.uti.space import flatten, new_space, unflatten
from tests.toy_space import IMAGE, SPACE

GRAMMAR = Grammar(SPACE)


def special(name: str) -> int:
    return SPACE.special(f"<|{name}|>")


def picture() -> list[int]:
    codes = np.arange(4)[:, None]
    return [special("img_start"), *flatten(codes, SPACE.books("image")), special("img_end")]


def sound(frames: int = 3) -> list[int]:
    codes = np.ones((frames, 2), int)
    return [special("aud_start"), *flatten(codes, SPACE.books("audio")), special("aud_end")]


def text() -> list[int]:
    return [special("text_start"), 5, 6, 7, special("text_end")]


@pytest.mark.parametrize(
    "ids",
    [
        [*sound(), special("gen_text"), *text()],
        [*picture(), special("gen_text"), *text()],
        [*text(), special("gen_aud"), *sound()],
        [*text(), special("gen_img"), *picture()],
        [3, 4, *picture(), 9, *picture(), *sound(1), 8, special("gen_img"), *picture(), 2],
        [*text(), special("pad_mm"), special("pad_mm")],
        [1, 2, 3],
    ],
)
def test_the_four_tasks_and_mixtures_are_legal(ids: list[int]) -> None:
    assert GRAMMAR.check(ids) == ""


@pytest.mark.parametrize(
    ("ids", "place"),
    [
        ([*picture()[:-2], special("img_end")], 4),  # one token short
        ([*picture()[:-1], int(SPACE.books("image")[0].start), special("img_end")], 5),  # one more
        ([*sound()[:-2], special("aud_end")], 6),  # half a frame
        ([special("aud_start"), special("aud_end")], 1),
        ([special("aud_start"), SPACE.books("audio")[1].start], 1),  # codebooks swapped
        ([*text(), special("gen_img"), *sound()], 6),  # another thing than was asked for
        ([special("img_end")], 0),
        ([*text()[:-1], special("img_start")], 4),
        ([special("pad_mm"), 3], 1),
        ([SPACE.size], 0),
        ([SPACE.named("SPECIAL").end], 0),
    ],
)
def test_each_fault_is_named_with_its_place(ids: list[int], place: int) -> None:
    assert GRAMMAR.check(ids).startswith(f"at position {place}: id {ids[place]} may not follow")


def test_what_is_cut_off_is_not_finished() -> None:
    assert GRAMMAR.check(picture()) == ""
    assert GRAMMAR.check(picture()[:3]) == "after 3 ids: the image is not finished"
    assert GRAMMAR.check([*text(), special("gen_aud")]).endswith("the audio is not finished")


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_whatever_is_drawn_from_it_can_be_decoded(seed: int, most: int) -> None:
    grammar, stream = Grammar(SPACE, most_frames=most), random.Random(seed)
    state, ids = State(), []
    while len(ids) < 60 or state.kind or state.wanted:
        legal = [one for one in grammar.legal(state) if one.name != PAD]
        chosen = stream.choice(legal)
        ids.append(stream.randint(chosen.start, chosen.end))
        state = grammar.step(state, ids[-1])
        if len(ids) > 60 and state.kind == "text":
            ids.append(special("text_end"))
            state = grammar.step(state, ids[-1])
    assert grammar.check(ids) == ""
    for begin, end, kind in (("img_start", "img_end", "image"), ("aud_start", "aud_end", "audio")):
        at = [i for i, token in enumerate(ids) if token == special(begin)]
        for start in at:
            stop = ids.index(special(end), start)
            codes = unflatten(np.array(ids[start + 1 : stop]), SPACE.books(kind))  # type: ignore[arg-type]
            assert len(codes) == 4 if kind == "image" else 1 <= len(codes) <= most


def test_a_space_without_a_codec_has_no_such_segments() -> None:
    small = Grammar(new_space(100, "t", (IMAGE,)))
    names = {one.name for one in small.legal(State())}
    assert "<|img_start|>" in names and not names & {"<|aud_start|>", "<|gen_aud|>"}
    with pytest.raises(InputError, match="at position 0"):
        small.run([special("aud_start")])
