"""The same text and voice give the same samples anywhere; word times follow the sound."""

import hashlib
import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lumoomni.data.world.speech import (
    NARRATOR,
    OTHER_FAMILY,
    RATE,
    TRAIN_VOICES,
    UNHEARD_VOICES,
    Voice,
    augment,
    synthesize,
    voice,
)
from lumoomni.data.world.split import rng
from lumoomni.errors import InputError

FIRST = "There is a large red circle to the left of the small blue square."
SECOND = "What is seven plus four?"


def digest(text: str, who: Voice) -> str:
    """A short name for the samples."""
    return hashlib.sha256(synthesize(text, who).samples.tobytes()).hexdigest()


@pytest.mark.parametrize("who", [NARRATOR, TRAIN_VOICES[9], UNHEARD_VOICES[-1], OTHER_FAMILY[1]])
def test_samples_do_not_depend_on_what_was_said_before(who):
    before = digest(FIRST, who)
    digest(SECOND, TRAIN_VOICES[4])
    assert digest(FIRST, who) == before
    assert digest(FIRST, who) == before
    assert digest(SECOND, who) != before


def test_every_voice_speaks_its_own_way_and_again_the_same():
    everyone = TRAIN_VOICES + UNHEARD_VOICES + OTHER_FAMILY
    first = [digest("six squares", who) for who in everyone]
    assert [digest("six squares", who) for who in reversed(everyone)] == first[::-1]
    assert len(set(first)) == len(everyone)


def test_another_process_speaks_the_same():
    code = (
        "import hashlib; from lumoomni.data.world.speech import *; "
        f"synthesize('hello', TRAIN_VOICES[2]); s = synthesize({FIRST!r}, NARRATOR); "
        "print(hashlib.sha256(s.samples.tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(FIRST, NARRATOR)


def test_threads_and_forks_speak_the_same():
    texts = [FIRST, SECOND] * 6
    alone = [digest(text, NARRATOR) for text in texts]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(digest, texts, [NARRATOR] * 12)) == alone
    if "fork" in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.starmap(digest, [(text, NARRATOR) for text in texts]) == alone


@pytest.mark.parametrize("text", [FIRST, SECOND, "hello", "a red star, a blue square and a circle"])
@pytest.mark.parametrize("who", [NARRATOR, TRAIN_VOICES[20], OTHER_FAMILY[0]])
def test_word_times_increase_and_cover_the_sound(text, who):
    speech = synthesize(text, who)
    assert speech.samples.dtype == np.float32
    assert 0.5 < np.abs(speech.samples).max() <= 0.81
    said = [text[word.start_char : word.end_char] for word in speech.words]
    assert said == text.replace(",", "").replace(".", "").replace("?", "").split()
    assert speech.words[0].start_s == 0.0
    assert speech.words[-1].end_s == pytest.approx(len(speech.samples) / RATE)
    for left, right in zip(speech.words[:-1], speech.words[1:], strict=True):
        assert left.end_s == right.start_s
    assert all(0.02 < word.end_s - word.start_s < 1.2 for word in speech.words)


def test_word_times_point_at_the_word():
    speech = synthesize("six, square", NARRATOR)
    pause = speech.words[1].start_s
    # The comma is the only silence inside, and it lies before the second word.
    quiet = np.abs(speech.samples[int((pause - 0.08) * RATE) : int((pause - 0.02) * RATE)]).max()
    assert quiet < 0.05


def test_quiet_edges_are_short():
    samples = np.abs(synthesize(SECOND, NARRATOR).samples)
    loud = np.flatnonzero(samples > 0.02)
    assert loud[0] <= 0.06 * RATE and len(samples) - loud[-1] <= 0.08 * RATE


def test_rate_and_pitch_are_heard():
    slow = synthesize(FIRST, Voice(rate_wpm=130)).samples
    fast = synthesize(FIRST, Voice(rate_wpm=200)).samples
    assert len(slow) > 1.3 * len(fast)
    low, high = synthesize("a", Voice(pitch=10)).samples, synthesize("a", Voice(pitch=90)).samples
    assert strongest_period(low) > 1.3 * strongest_period(high)


def strongest_period(samples: np.ndarray) -> int:
    """Samples between two beats of the voice, by autocorrelation (60..400 Hz)."""
    both = np.correlate(samples, samples, "full")[len(samples) - 1 :]
    return 40 + int(both[40:266].argmax())


def test_voices_of_the_splits_never_meet():
    trained = {who.key for who in TRAIN_VOICES}
    assert not trained & {who.key for who in UNHEARD_VOICES + OTHER_FAMILY}
    for index in range(200):
        assert voice(0, "train", index).key in trained
        assert voice(0, "unseen", index).key not in trained
        assert voice(0, "other", index).family == "klatt"
    assert voice(0, "train", 5) == voice(0, "train", 5)
    drawn = [voice(0, "train", i) for i in range(200)]
    assert len({who.key for who in drawn}) > 30 and len({who.rate_wpm for who in drawn}) > 40


def test_augmented_speech_is_still_that_speech():
    clean = synthesize(SECOND, NARRATOR).samples
    heard = [augment(clean, rng(0, "augment", i)) for i in range(8)]
    assert np.array_equal(heard[0], augment(clean, rng(0, "augment", 0)))
    for noisy in heard:
        assert noisy.shape == clean.shape and noisy.dtype == np.float32
        assert np.corrcoef(noisy, clean)[0, 1] > 0.9
        assert not np.array_equal(noisy, clean)


def test_bad_requests_say_what_to_do():
    with pytest.raises(InputError, match="at least one word"):
        synthesize(" ?! ")
    with pytest.raises(InputError, match="no voice 'xx-none'"):
        synthesize("hello", Voice(name="xx-none"))
    with pytest.raises(ValueError, match="rate_wpm is 20"):
        Voice(rate_wpm=20)
    with pytest.raises(InputError, match="unknown split"):
        voice(0, "night", 0)
