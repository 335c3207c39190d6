"""Sentences are pure, short, inside a closed vocabulary, and new outside training."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.data.world.language import caption, normalise, says_held_out_pair
from lumoomni.data.world.scene import make_scene
from lumoomni.data.world.sentences import (
    PRONUNCIATIONS,
    WORDS,
    caption_grammar,
    grammar_words,
    is_kept,
    sentence,
    words_of,
)
from lumoomni.data.world.split import SPLITS

indices = st.integers(0, 2**31)


@settings(max_examples=300, deadline=None)
@given(indices, st.sampled_from(SPLITS))
def test_sentences_are_pure_short_and_known(index, split):
    text = sentence(4, split, index)
    sentence(4, split, index + 1)
    assert sentence(4, split, index) == text
    words = words_of(text)
    assert 2 <= len(words) <= 14 and set(words) <= set(WORDS)
    assert set(normalise(text).split()) <= set(grammar_words())


def test_no_sentence_of_training_comes_back_in_a_test():
    heard = {normalise(sentence(0, "train", i)) for i in range(3000)}
    for split in ("seen", "unseen"):
        assert not heard & {normalise(sentence(1, split, i)) for i in range(400)}
    assert not any(is_kept(text) for text in heard)
    assert not any(says_held_out_pair(text) for text in heard)
    assert not any(says_held_out_pair(sentence(0, "seen", i)) for i in range(400))
    assert any(says_held_out_pair(sentence(0, "unseen", i)) for i in range(100))
    # Long texts differ nearly always, so the train stream does not run dry.
    assert len(heard) > 1800


def test_training_speech_holds_every_word():
    heard = {w for i in range(6000) for w in normalise(sentence(0, "train", i)).split()}
    assert set(grammar_words()) <= heard


def test_recogniser_can_be_told_every_caption():
    grammar = caption_grammar()
    body = grammar.split("<noun> = ")[1].replace("<noun>", "").replace("public <caption>", "")
    assert set(words_of(body)) - {"relation"} <= set(grammar_words())
    noun = re.search(r"<noun> = (.*);", grammar)
    relation = re.search(r"<relation> = (.*);", grammar)
    assert noun and relation
    for index in range(200):
        said = normalise(caption(make_scene(0, SPLITS[index % 3], index)))
        n, r = noun.group(1), f"(?:{relation.group(1)})"
        assert re.fullmatch(f"{n}|{n} {r} {n}|{n} {n} and {n}", said)


def test_recogniser_dictionary_lacks_only_the_listed_words():
    pocketsphinx = pytest.importorskip("pocketsphinx")
    decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
    missing = {word for word in WORDS if decoder.lookup_word(word) is None}
    assert missing == set(PRONUNCIATIONS)
    decoder.add_jsgf_string("captions", caption_grammar())


def test_vocabulary_has_the_promised_size():
    assert 250 <= len(WORDS) <= 450
    assert list(WORDS) == sorted(set(WORDS)) and {"color", "colour", "twenty"} <= set(WORDS)
