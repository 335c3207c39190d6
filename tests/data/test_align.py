"""Word times become frame owners: monotone, complete, or refused."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lumoomni.data.align import frame_owners, symbol_frames, token_starts
from lumoomni.data.world.speech import WordTime

WORDS = (WordTime(0, 3, 0.0, 0.2), WordTime(4, 10, 0.2, 0.8), WordTime(11, 14, 1.0, 1.2))
#        "red circle, now": red | cir cle | , | now
OFFSETS = [(0, 3), (3, 7), (7, 10), (10, 11), (11, 14)]
SPOKEN = [True, True, True, False, True]


def test_tokens_share_their_word_by_characters() -> None:
    assert token_starts(OFFSETS, SPOKEN, WORDS) == [0.0, 0.2, 0.5, None, 1.0]


def test_frames_belong_to_the_token_being_said() -> None:
    made = frame_owners(OFFSETS, SPOKEN, WORDS, frames=12, rate=10)
    assert made is not None
    assert made.owner.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 4, 4]
    assert made.progress.tolist() == [0, 1, 0, 1, 2, 0, 1, 2, 3, 4, 0, 1]


@given(st.integers(1, 40), st.floats(0.5, 60))
def test_every_spoken_token_gets_a_frame_or_none_is_made(frames: int, rate: float) -> None:
    made = frame_owners(OFFSETS, SPOKEN, WORDS, frames=frames, rate=rate)
    if frames < sum(SPOKEN):
        assert made is None
    else:
        assert made is not None
        assert set(made.owner.tolist()) == {0, 1, 2, 4}
        assert (np.diff(made.owner) >= 0).all()


def test_words_without_times_cannot_be_aligned() -> None:
    assert frame_owners(OFFSETS, SPOKEN, WORDS[:2], frames=20, rate=10) is None
    assert frame_owners(OFFSETS, [False] * 5, WORDS, frames=20, rate=10) is None


def test_symbols_are_named_late_in_their_span() -> None:
    frames = symbol_frames([0.0, 0.4, None], frames=20, rate=10, end_s=1.0)
    assert frames == [3, 8, -1]
