"""What spaces are audited with: held-out media, hard texts, and how near codes were to flip."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.audits.token_inputs import held_out
from lumoomni.codecs.image_tokens import ImageTokens
from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.codecs.quantiser import margins
from lumoomni.codecs.speech_tokens import SpeechTokens
from lumoomni.errors import InputError
from lumoomni.uti.interface import UTI
from tests.audits.token_stand_ins import (
    TEXT,
    CellCodec,
    StepCodec,
    failed,
    fitted_codec,
    inputs,
    judged,
    space_of,
)
from tests.tiny import MEL

SMALL = inputs(pictures=3, sounds=2)


def test_inputs_are_held_out_or_the_users(tmp_path: Any) -> None:
    uti = space_of(CellCodec(), StepCodec())
    found = held_out(uti.space, pictures=2, sentences=1)
    assert len(found.pictures) == 2 and found.pictures[0].shape == (64, 64, 3)
    assert found.names["audio"][0] in found.texts
    again = held_out(uti.space, pictures=2, sentences=1)
    assert [again.digest(k) for k in ("text", "image", "audio")] == [
        found.digest(k) for k in ("text", "image", "audio")
    ]
    assert held_out(uti.space, pictures=1, sentences=1).digest("image") != found.digest("image")
    assert not held_out(space_of(CellCodec()).space, pictures=1, sentences=1).sounds
    with pytest.raises(InputError, match="there is no file"):
        held_out(uti.space, pictures=1, sentences=1, picture_files=[tmp_path / "a.png"])
    with pytest.raises(InputError, match="has no image codec"):
        held_out(
            space_of(StepCodec()).space, pictures=1, sentences=1, picture_files=[tmp_path / "a.png"]
        )


UTI_OF_TEXT: UTI = space_of()


@settings(max_examples=150, deadline=None)
@given(st.text() | st.lists(st.sampled_from(list(dict(UTI_OF_TEXT.space.specials)))).map("".join))
def test_text_comes_back_to_the_letter(text: str) -> None:
    span = UTI_OF_TEXT.encode(text)
    assert UTI_OF_TEXT.decode(span) == text
    assert all(int(token) in UTI_OF_TEXT.space.named("TEXT") for token in span.ids)


def test_text_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    uti, plain = space_of(CellCodec()), TEXT.encode
    monkeypatch.setattr(type(TEXT), "encode", lambda self, text: plain(text.strip()))
    found, verdict = judged(uti, SMALL)
    assert (
        "text.back" in failed(verdict) and "does not come back" in found.report.notes["text.back"]
    )
    first = uti.space.special("<|gen_img|>")
    monkeypatch.setattr(
        type(TEXT), "encode", lambda self, text: [first] if "gen_img" in text else plain(text)
    )
    _, verdict = judged(uti, SMALL)
    assert {"text.inside", "text.back"} <= failed(verdict)


def test_margins_of_our_codecs_are_gaps_between_distances() -> None:
    books = torch.tensor([[[0.0, 0.0], [4.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    gaps = margins(torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 0.25]]), books)
    assert gaps[:, 0].tolist() == pytest.approx([3 - 1, 0, np.hypot(4, 0.25) - 0.25])
    assert gaps[2, 1] == pytest.approx(0.75 - 0.25)
    torch.manual_seed(0)
    picture = ImageCodec(ImageCodecConfig(image_size=16, fine_width=8, width=8, codebook_size=8))
    picture.quantiser.codebooks.normal_()
    shown = ImageTokens(picture.eval(), "e" * 64)
    assert shown.margins(np.zeros((20, 30, 3), np.uint8)).shape == (4, 1)
    said = SpeechTokens(fitted_codec(), MEL, "c" * 64)
    samples = inputs(sounds=1).sounds[0].samples
    gaps = said.margins(samples)
    codes = said.encode(samples).codes
    assert gaps.shape == codes.shape and gaps.min() >= 0 and gaps.max() > 0
    # A vector that moves by less than half its margin keeps its code.
    move = float(np.percentile(gaps[:, 0], 40)) / 2
    with torch.no_grad():
        said._codec.encode_out.bias[0] += move
    changed = said.encode(samples).codes[:, 0] != codes[:, 0]
    assert changed.any() and gaps[changed, 0].max() <= 2 * move < gaps[:, 0].max()
