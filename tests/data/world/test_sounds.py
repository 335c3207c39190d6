"""Sounds are pure, keep their split, and a judge that hears only the signal names them right."""

import numpy as np
import pytest

from lumoomni.data.world.hearing import classify
from lumoomni.data.world.language import exact_match
from lumoomni.data.world.sentences import WORDS, words_of
from lumoomni.data.world.sounds import (
    BEAT,
    CHOICES,
    EVENTS,
    HELD_OUT_ORDERS,
    RATE,
    make_sound,
    named_events,
    sound_request,
)
from lumoomni.data.world.split import SPLITS, rng
from lumoomni.errors import InputError

BEAT_SAMPLES = int(BEAT * RATE)


def test_sound_depends_on_its_index_alone():
    for split in SPLITS:
        first = make_sound(0, split, 7)
        make_sound(0, split, 8)
        again = make_sound(0, split, 7)
        assert np.array_equal(first.samples, again.samples) and first.caption == again.caption
        assert first.samples.dtype == np.float32 and np.abs(first.samples).max() <= 1
        assert not np.array_equal(first.samples[:800], make_sound(0, split, 8).samples[:800])


@pytest.mark.parametrize("split", SPLITS)
def test_judge_names_the_events(split):
    sounds = [make_sound(9, split, i) for i in range(400)]
    right = [classify(sound.samples) == sound.events for sound in sounds]
    assert np.mean(right) >= 0.98


def test_judge_does_not_mind_level_or_light_noise():
    for index in range(60):
        sound = make_sound(1, "seen", index)
        hiss = rng(0, index).standard_normal(len(sound.samples)) * 0.002
        assert classify(sound.samples * 0.2) == sound.events
        assert classify(sound.samples + hiss) == sound.events


def test_judge_hears_nothing_in_silence():
    assert classify(np.zeros(RATE)) == () and classify(np.zeros(0)) == ()


def test_captions_name_the_events_and_only_known_words():
    for index in range(300):
        sound = make_sound(0, "train", index)
        assert named_events(sound.caption) == sound.events
        assert set(words_of(sound.caption)) <= set(WORDS)
        asked = sound_request(sound, rng(0, index))
        assert exact_match(sound.caption, asked.accepted) and not asked.held_out
        assert set(words_of(asked.question)) <= set(WORDS)


def test_length_words_are_true():
    seen = set()
    for index in range(400):
        sound = make_sound(2, "train", index)
        if len(sound.events) == 1 and sound.events[0] in ("beep", "buzz", "noise"):
            loud = np.flatnonzero(np.abs(sound.samples) > 0.1)
            seconds = (loud[-1] - loud[0]) / RATE
            assert ("long" if seconds > 0.4 else "short") in sound.caption
            seen.add(sound.caption)
    assert len(seen) == 6


def test_orders_of_the_unseen_split_are_never_trained():
    trained = {make_sound(0, "train", i).events for i in range(900)}
    assert {(event,) for event in EVENTS} <= trained
    assert not trained & set(HELD_OUT_ORDERS)
    unseen = {make_sound(0, "unseen", i).events for i in range(100)}
    assert unseen <= set(HELD_OUT_ORDERS) and len(HELD_OUT_ORDERS) >= 5
    # Each event still stands first and second in training.
    pairs = [events for events in trained if len(events) == 2]
    assert {a for a, _ in pairs} == {b for _, b in pairs} == set(EVENTS)


def test_bad_requests_say_what_to_do():
    with pytest.raises(InputError, match="unknown split"):
        make_sound(0, "loud", 0)


def test_cues_say_what_their_sounds_say():
    for split in ("train", "unseen"):
        for index in range(60):
            sound = make_sound(4, split, index)
            cue = sound.as_cue()
            assert (cue.caption, cue.events, cue.split) == (sound.caption, sound.events, split)
            assert classify(cue.samples) == cue.events
            assert (cue.samples[:BEAT_SAMPLES] != sound.samples[:BEAT_SAMPLES]).any()


def test_cues_are_few_and_begin_on_beats():
    cues = [make_sound(4, "train", i, cue=True) for i in range(400)]
    by_caption: dict[str, set[bytes]] = {}
    for cue in cues:
        by_caption.setdefault(cue.caption, set()).add(cue.samples.tobytes())
        # The hiss of each beat is that of the first.
        assert (cue.samples[:BEAT_SAMPLES] == cue.samples[-BEAT_SAMPLES:]).all()
        assert len(cue.samples) % BEAT_SAMPLES == 0
    drums = by_caption["a drum"]
    assert 1 < len(drums) <= CHOICES**3 * 3 * 2
