"""Digits for codes: what one means, what rounds to it, and that gradients go straight through."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.codecs.scalar import ScalarQuantiser, digits

LEVELS = st.lists(st.integers(2, 6), min_size=1, max_size=4).map(tuple)


@given(LEVELS)
def test_every_code_comes_back(levels: tuple[int, ...]) -> None:
    quantiser = ScalarQuantiser(levels)
    codes = torch.arange(quantiser.codebooks.shape[1])
    vectors = quantiser.lookup(codes[None, :, None])
    assert torch.equal(quantiser.codes(vectors)[0], codes)
    assert float(vectors.abs().max()) == 1 and len(vectors[0].unique(dim=0)) == len(codes)
    places = ((vectors[0] + 1) / 2 * (torch.tensor(levels) - 1)).round().long()
    assert torch.equal(digits(codes, levels), places)


@given(LEVELS, st.integers(0, 2**31))
def test_no_other_code_is_nearer_by_digits(levels: tuple[int, ...], seed: int) -> None:
    quantiser = ScalarQuantiser(levels)
    made = torch.Generator().manual_seed(seed)
    bounded = quantiser.bound(torch.randn(1, 9, len(levels), generator=made))
    chosen = quantiser.lookup(quantiser.codes(bounded)[..., None])
    # Half a step off at most, in each component.
    assert bool(((bounded - chosen).abs() <= 1 / (torch.tensor(levels) - 1) + 1e-6).all())


def test_gradients_go_straight_through() -> None:
    quantiser = ScalarQuantiser((8, 5))
    bounded = torch.rand(2, 3, 2).mul(2).sub(1).requires_grad_()
    found = quantiser(bounded)
    found.vectors.backward(torch.ones_like(found.vectors) * 3)
    assert bounded.grad is not None and bool((bounded.grad == 3).all())
    assert float(found.commitment) == 0
    assert torch.allclose(found.vectors, quantiser.lookup(found.codes), atol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="codes span 0 to 40, but each codebook has 40 entries"):
        ScalarQuantiser((8, 5)).lookup(torch.tensor([[[40], [0]]]))
    with pytest.raises(ValueError, match="make 40 codes of 2 components"):
        ImageCodecConfig(levels=(8, 5), codebook_size=40, code_width=16)
    with pytest.raises(ValueError, match="make 40 codes of 2 components"):
        ImageCodecConfig(levels=(8, 5), codebook_size=41, code_width=2)
    with pytest.raises(ValueError, match="at least 2 levels each"):
        ImageCodecConfig(levels=(8, 1), codebook_size=8, code_width=2)


def test_a_codec_of_levels_gives_the_same_codes_in_training_and_use() -> None:
    torch.manual_seed(0)
    config = ImageCodecConfig(
        image_size=32, fine_width=8, width=16, code_width=3, levels=(5, 4, 3), codebook_size=60
    )
    codec = ImageCodec(config).eval()
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        rebuilt, quantised = codec(pixels * 3)
    codes = codec.encode(pixels * 3)
    assert torch.equal(quantised.codes[..., 0], codes)
    assert torch.allclose(codec.decode(codes), rebuilt, atol=1e-5)
    assert codec.margins(pixels).shape == (2, 16, 1) and float(codec.margins(pixels).min()) >= 0
    assert not [name for name in codec.state_dict() if name.startswith("quantiser")]
