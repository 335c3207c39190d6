"""The speech codec learns, counts, and streams to the same bits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.codecs.speech_rvq import CodecStream, SpeechCodec, SpeechCodecConfig, nearest

CONFIG = SpeechCodecConfig(n_mels=8, stride=4, width=16, code_width=6, codebook_size=12, depth=1)


def filled() -> SpeechCodec:
    torch.manual_seed(0)
    codec = SpeechCodec(CONFIG).eval()
    codec.quantiser.codebooks.normal_()
    return codec


CODEC = filled()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.lists(st.integers(1, 9), max_size=20))
def test_a_stream_gives_the_same_bits(frames: int, cuts: list[int]) -> None:
    codes = torch.randint(12, (frames, 2), generator=torch.Generator().manual_seed(frames))
    whole = CODEC.decode(codes)
    assert whole.shape == (frames * 4, 8)
    stream, parts, place = CodecStream(CODEC), [], 0
    for cut in cuts:
        parts.append(stream.push(codes[place : place + cut]))
        place += cut
    parts += [stream.push(codes[place:]), stream.flush()]
    assert torch.equal(torch.cat(parts), whole)


def test_padding_changes_nothing() -> None:
    mel = torch.randn(1, 21, 8)
    alone = CODEC.encode(mel)
    padded = torch.cat([mel, torch.full((1, 30, 8), 9.0)], 1)
    assert torch.equal(CODEC.encode(padded, torch.tensor([21]))[:, : alone.shape[1]], alone)
    assert alone.shape == (1, 6, 2)


def test_decoding_what_was_encoded_uses_the_chosen_vectors() -> None:
    codes = torch.randint(12, (5, 2))
    vectors = CODEC.quantiser.lookup(codes)
    books = CODEC.quantiser.codebooks
    assert torch.allclose(vectors, books[0][codes[:, 0]] + books[1][codes[:, 1]])
    assert torch.equal(nearest(books[0], books[0]), torch.arange(12))
    with pytest.raises(ValueError, match=r"span 0 to 12, but each codebook has 12"):
        CODEC.quantiser.lookup(torch.tensor([[0, 12]]))


def test_training_moves_codebooks_and_beats_the_mean() -> None:
    torch.manual_seed(1)
    codec = SpeechCodec(CONFIG)
    phase = torch.rand(64, 1, 1) * 6
    mel = torch.sin(torch.arange(40)[None, :, None] * 0.3 + phase + torch.arange(8)) * 2 - 1
    lengths = torch.full((64,), 40)
    optim = torch.optim.AdamW(codec.parameters(), lr=5e-3)
    for _ in range(150):
        rebuilt, quantised, _ = codec(mel, lengths)
        loss = ((rebuilt - mel) ** 2).mean() + 1e-3 * quantised.commitment / 640
        loss.backward()
        optim.step()
        optim.zero_grad()
    codec.eval()
    with torch.no_grad():
        rebuilt, quantised, _ = codec(mel, lengths)
    assert float(((rebuilt - mel) ** 2).mean()) < 0.2 * float(mel.var())
    assert len(quantised.codes[..., 0].unique()) >= 6


def test_gradients_reach_the_encoder_through_the_codes() -> None:
    codec = SpeechCodec(CONFIG)
    rebuilt, _, _ = codec(torch.randn(4, 16, 8), torch.full((4,), 16))
    rebuilt.square().sum().backward()
    assert codec.encode_in.weight.grad is not None
    assert float(codec.encode_in.weight.grad.abs().sum()) > 0
