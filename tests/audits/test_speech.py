"""Word error rates: refused where there is nothing to be heard."""

import pytest

from lumoomni.audits.speech import derange, word_errors
from lumoomni.errors import InputError


def test_word_errors_of_accents_count_words() -> None:
    assert word_errors(["für dich"], ["fur dich"]).value == 0.0
    assert word_errors(["für dich"], [""]).value == 1.0


@pytest.mark.parametrize("text", ["—", "Привет"])
def test_a_reference_without_words_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InputError, match=f"the text '{text}' has 0 words .* take it out"):
        word_errors(["one", text], ["one", "two"])


def test_one_text_has_no_wrong_one() -> None:
    with pytest.raises(InputError, match="the 1 held-out texts are all the same"):
        derange(["one"])
