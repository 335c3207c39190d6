"""Sequences of the four tasks and of mixtures: legal, labelled where asked, never cut in media."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumoomni.errors import InputError
from lumoomni.ids import IGNORE
from lumoomni.uti.grammar import Grammar
from lumoomni.uti.space import new_space, unflatten
from lumoomni.uti.tasks import Composer, Part, TooLong, cut_of, length_of, sequence, targets
from tests.toy_space import AUDIO, SPACE

GRAMMAR, COMPOSER = Grammar(SPACE), Composer(SPACE)


def none() -> np.ndarray:
    return np.zeros(0, np.int32)


@dataclass
class Sample:
    id: str = "s"
    text: np.ndarray = field(default_factory=lambda: np.array([5, 6, 7], np.int32))
    prompt: np.ndarray = field(default_factory=none)
    image: np.ndarray = field(default_factory=lambda: np.arange(4, dtype=np.int32))
    audio: np.ndarray = field(default_factory=lambda: np.array([1, 2, 3, 4], np.int32))


def special(name: str) -> int:
    return SPACE.special(f"<|{name}|>")


def numbers(below: int, least: int, most: int) -> st.SearchStrategy[np.ndarray]:
    rows = st.lists(st.integers(0, below - 1), min_size=least, max_size=most)
    return rows.map(lambda found: np.array(found, np.int32))


PARTS = st.lists(
    st.one_of(
        st.builds(Part, st.just("text"), numbers(100, 1, 6), st.booleans()),
        st.builds(Part, st.just("image"), numbers(16, 4, 4), st.booleans()),
        st.builds(
            Part,
            st.just("audio"),
            numbers(8, 2, 8).map(lambda c: c[: len(c) // 2 * 2]),
            st.booleans(),
        ),
    ),
    min_size=1,
    max_size=5,
)


def test_the_four_tasks_as_they_are_written_down() -> None:
    image, (first, second) = SPACE.books("image")[0].start, SPACE.books("audio")
    sound = [first.start + 1, second.start + 2, first.start + 3, second.start + 4]
    heard = [special("aud_start"), *sound, special("aud_end")]
    seen = [special("img_start"), *(image + i for i in range(4)), special("img_end")]
    text = [special("text_start"), 5, 6, 7, special("text_end")]
    for task, ids, learned in (
        ("a2t", [*heard, special("gen_text"), *text], text),
        ("i2t", [*seen, special("gen_text"), *text], text),
        ("t2a", [*text, special("gen_aud"), *heard], heard),
        ("t2i", [*text, special("gen_img"), *seen], seen),
        ("text", [special("gen_text"), *text], text),
    ):
        made = sequence(task, Sample(), SPACE)
        assert made.ids.tolist() == ids and made.ids.dtype == np.int64
        assert made.labels.tolist() == [IGNORE] * (len(ids) - len(learned)) + learned
        assert GRAMMAR.check(ids) == ""
        assert length_of(task, 3, 0, 4, 4) == len(ids)


def test_an_instruction_stands_before_the_text_and_is_not_learned() -> None:
    asked = Sample(prompt=np.array([9, 8], np.int32))
    prompt = [special("text_start"), 9, 8, special("text_end")]
    read, drawn = (sequence(task, asked, SPACE) for task in ("i2t", "t2i"))
    assert read.ids[6:10].tolist() == prompt and drawn.ids[:4].tolist() == prompt
    assert (read.labels[:11] == IGNORE).all() and [s.role for s in targets(read)] == ["text"]
    assert len(read) == length_of("i2t", 3, 2, 4, 4) == len(drawn)


@given(PARTS)
def test_any_mixture_is_legal_and_learned_where_it_is_asked_for(parts: list[Part]) -> None:
    made = COMPOSER.compose(parts)
    ids = made.ids.tolist()
    assert GRAMMAR.check(ids) == ""
    wanted = np.full(len(ids), IGNORE)
    for part, span in zip(parts, made.spans, strict=True):
        inside = made.ids[span.start : span.stop]
        if part.kind == "text":
            assert np.array_equal(inside, part.codes)
        else:
            back = unflatten(inside, SPACE.books(part.kind))
            assert np.array_equal(back.reshape(-1), part.codes)
        if part.target:
            wanted[span.start - 1 : span.stop + 1] = made.ids[span.start - 1 : span.stop + 1]
    assert np.array_equal(made.labels, wanted)


@given(PARTS, st.integers(0, 8))
def test_what_is_cut_is_text_at_the_end_and_nothing_else(parts: list[Part], short: int) -> None:
    whole = COMPOSER.compose(parts)
    limit = max(1, len(whole) - short)
    last = parts[-1]
    room = len(last.codes) - 1 if last.kind == "text" and last.target else 0
    if len(whole) - room > limit:
        with pytest.raises(TooLong, match=f"{len(whole)} ids do not fit into {limit}"):
            COMPOSER.compose(parts, limit=limit)
        return
    made = COMPOSER.compose(parts, limit=limit)
    assert len(made) == min(limit, len(whole)) and GRAMMAR.check(made.ids.tolist()) == ""
    assert np.array_equal(made.ids[:-1], whole.ids[: len(made) - 1])
    assert np.array_equal(made.labels[:-1], whole.labels[: len(made) - 1])
    cut = len(made) < len(whole)
    assert (made.labels[-1] == IGNORE) == (cut or not last.target)


def test_where_a_text_was_cut_its_end_is_not_learned() -> None:
    whole = sequence("i2t", Sample(), SPACE)
    made = sequence("i2t", Sample(), SPACE, limit=len(whole) - 1)
    assert made.ids.tolist() == [*whole.ids[:-2], whole.ids[-1]]
    assert made.labels.tolist() == [*whole.labels[:-2], IGNORE]


def test_what_must_go_is_known_from_lengths_alone() -> None:
    for task in ("a2t", "i2t", "t2a", "t2i"):
        whole = sequence(task, Sample(), SPACE)
        for limit in range(1, len(whole) + 2):
            cut = int(cut_of(task, np.array([3]), np.array([len(whole)]), limit)[0])
            if cut < 0:
                with pytest.raises(TooLong, match=rf"sample s, task {task}: {len(whole)} ids"):
                    sequence(task, Sample(), SPACE, limit=limit)
            else:
                assert len(sequence(task, Sample(), SPACE, limit=limit)) == len(whole) - cut
    assert int(cut_of("t2i", 3, 99, 0)) == 0


def test_codes_of_another_space_are_refused() -> None:
    for change, task, said in (
        ({"image": np.arange(5)}, "i2t", "takes 4 codes, these are 5"),
        ({"image": np.array([0, 1, 2, 16])}, "t2i", "no image of this space"),
        ({"audio": np.array([1, 2, 3])}, "a2t", "3 codes are no whole frames of 2"),
        ({"audio": np.array([1, 8])}, "t2a", "no audio of this space"),
        ({"text": np.array([1, 100])}, "a2t", "run from 1 to 100, but text is 0 to 99"),
        ({"text": none()}, "text", "sample s has no text"),
        ({"image": none()}, "i2t", "sample s has no image"),
    ):
        with pytest.raises(InputError, match=said):
            sequence(task, Sample(**change), SPACE)
    with pytest.raises(InputError, match="no task 'i2v'"):
        sequence("i2v", Sample(), SPACE)
    with pytest.raises(InputError, match="no parts"):
        COMPOSER.compose([])
    with pytest.raises(InputError, match="no image codec"):
        sequence("i2t", Sample(), new_space(100, "t", (AUDIO,)))
