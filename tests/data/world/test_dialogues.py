"""Text worlds are pure, closed in vocabulary, right in their numbers, and keep their split."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.data.world import counting, dialogues, questions, smalltalk
from lumoomni.data.world.counting import NUMBERS, is_held_out
from lumoomni.data.world.dialogues import SHARES, text_sample
from lumoomni.data.world.language import copied, exact_match, normalise, says_held_out_pair
from lumoomni.data.world.sentences import WORDS, words_of
from lumoomni.data.world.split import SPLITS
from lumoomni.errors import InputError

indices = st.integers(0, 2**31)
splits = st.sampled_from(SPLITS)
PLENTY = settings(max_examples=400, deadline=None)


@PLENTY
@given(indices, splits)
def test_dialogue_depends_on_its_index_alone(index, split):
    sample = text_sample(5, split, index)
    text_sample(5, split, index + 1)
    assert text_sample(5, split, index) == sample
    roles = [role for role, _ in sample.turns]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    last = sample.turns[-1][1]
    assert last.strip() == sample.accepted[0] and exact_match(last.lower(), sample.accepted)
    for _, text in sample.turns:
        assert set(words_of(text)) <= set(WORDS)
        assert text and "{" not in text


@PLENTY
@given(indices)
def test_training_says_nothing_that_is_held_out(index):
    for split in ("train", "seen"):
        sample = text_sample(0, split, index)
        assert not any(says_held_out_pair(text) for _, text in sample.turns)
        assert not (split == "train" and sample.held_out)


def test_kinds_come_in_their_shares():
    kinds = [text_sample(0, "train", i).kind for i in range(3000)]
    for kind, wanted in SHARES.items():
        assert abs(kinds.count(kind) / len(kinds) - wanted) < 0.04


def numbers_in(text: str) -> list[int]:
    return [NUMBERS.index(word) for word in normalise(text).split() if word in NUMBERS]


def work_out(asked: str) -> int | None:
    """The answer of a question about two numbers, from its words alone."""
    a, b = numbers_in(asked)
    if "plus" in asked or asked.startswith("add") or asked.endswith("make"):
        return a + b
    if "minus" in asked:
        return a - b
    if asked.startswith("take"):
        return b - a
    if "larger" in asked or "more" in asked:
        return max(a, b)
    if "smaller" in asked or "less" in asked:
        return min(a, b)
    return None


def test_numbers_are_right_and_held_out_pairs_stay_out():
    solved = 0
    asked_in: dict[str, set[tuple[str, ...]]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        for index in range(2500):
            sample = text_sample(0, split, index, "number")
            asked, reply = normalise(sample.turns[0][1]), sample.turns[1][1]
            if asked.startswith("count") or "please count" in asked or "can you count" in asked:
                run = [NUMBERS.index(word) for word in reply.split()]
                step = -1 if "down" in asked else 1
                assert run == list(range(run[0], run[-1] + step, step))
                assert [run[0], run[-1]] == numbers_in(asked)
                continue
            if len(numbers_in(asked)) == 2 and "between" not in asked:
                assert reply == NUMBERS[work_out(asked)]
                solved += 1
                asked_in[split].add(identity(asked))
    assert solved > 5000
    assert not asked_in["train"] & asked_in["unseen"]
    assert not asked_in["seen"] & asked_in["unseen"] and asked_in["unseen"]


def identity(asked: str) -> tuple[str, ...]:
    """What a question about two numbers asks, without its wording."""
    a, b = numbers_in(asked)
    if "plus" in asked or asked.startswith("add") or asked.endswith("make"):
        return "sum", str(a), str(b)
    if "minus" in asked:
        return "difference", str(a), str(b)
    if asked.startswith("take"):
        return "difference", str(b), str(a)
    return "larger" if "larger" in asked or "more" in asked else "smaller", str(a), str(b)


def test_a_seventh_of_the_numbers_is_held_out_and_never_both_orders():
    for kind, new in counting._NEW.items():
        share = len(new) / (len(new) + len(counting._KNOWN[kind]))
        assert 0.08 < share < 0.22
        for a, b in new:
            assert not is_held_out(kind, *((a, a - b) if kind == "difference" else (b, a)))


def test_follow_ups_answer_the_second_question():
    seen = 0
    for index in range(400):
        sample = text_sample(0, "seen", index, "follow")
        asked, reply = normalise(sample.turns[2][1]), sample.turns[3][1]
        if " name" in asked or asked == "who am i":
            assert reply in sample.turns[0][1].title()
        story = re.findall(r"(small|large) (\w+) (\w+)", normalise(sample.turns[0][1]))
        things = [t for t in story if t[2] in ("circle", "square", "triangle", "star")]
        if len(things) >= 2 and "day" not in asked:
            words = set(asked.split()) & {w for t in things for w in t}
            fits = [t for t in things if words <= set(t)]
            assert len(fits) == 1 and reply in fits[0]
            seen += 1
    assert seen > 150


def test_echoes_repeat_the_line():
    for index in range(200):
        sample = text_sample(0, "train", index, "echo")
        asked, said = sample.turns[0][1], sample.turns[1][1]
        assert normalise(asked).endswith(normalise(said))
        # The very ids, too: words at the start of a turn are spelt otherwise than after a space.
        assert asked.rstrip(".!?").endswith(said) or said != copied(said.strip())


def all_phrasings():
    yield from questions.PHRASINGS.values()
    yield from counting.PHRASINGS.values()
    yield from smalltalk.FACTS.values()
    yield from (intent.asks for intent in smalltalk.INTENTS)
    yield from (dialogues.ECHO, dialogues.FOLLOW, dialogues.GREETING, dialogues.MY_NAME)
    yield from (dialogues.LIKE, dialogues.LIKED, dialogues.AND_THEN)


def test_held_out_phrasings_are_new_but_their_words_are_not():
    trained = {t for phrasings in all_phrasings() for t in phrasings.train}
    known = {word for text in trained for word in words_of(text)}
    for phrasings in all_phrasings():
        assert len(set(phrasings.all)) == len(phrasings.all)
        for text in phrasings.held_out:
            assert normalise(text) not in {normalise(t) for t in trained}
            assert set(words_of(text)) <= known, text


def test_one_way_of_asking_has_one_answer():
    replies: dict[str, str] = {}
    for intent in smalltalk.INTENTS:
        for text in intent.asks.all:
            assert replies.setdefault(normalise(text), intent.answer) == intent.answer
        assert len(intent.answer.split()) <= 12 and len(intent.asks.train) >= 3


def test_bad_requests_say_what_to_do():
    with pytest.raises(InputError, match="unknown split"):
        text_sample(0, "dev", 0)
    with pytest.raises(InputError, match="unknown kind of text 'poem'"):
        text_sample(0, "train", 0, "poem")
