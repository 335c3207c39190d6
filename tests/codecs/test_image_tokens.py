"""Pictures to codes and back: the same in any company, and honest about what is no picture."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.codecs.facts import Coded
from lumoomni.codecs.image_tokens import ImageTokens
from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.data.world.scene import draw, make_scene
from lumoomni.errors import InputError
from lumoomni.media.image import normalise, resize

SHAPE = ImageCodecConfig(image_size=64, fine_width=16, width=32, codebook_size=300)


PICTURES = [draw(make_scene(0, "seen", i)) for i in range(12)]


def codec() -> ImageCodec:
    """Codes in pairs on both sides of what the pictures have: the last bit decides between them."""
    torch.manual_seed(0)
    made = ImageCodec(SHAPE).eval()
    with torch.no_grad():
        vectors = torch.cat([made._vectors(normalise([picture])) for picture in PICTURES])
        vectors = vectors.flatten(0, 1)[torch.randperm(12 * 64)[:150]]
        aside = 0.01 * torch.randn(vectors.shape)
        made.quantiser.codebooks[0] = torch.cat([vectors + aside, vectors - aside])
    return made


TOKENS = ImageTokens(codec(), "a" * 64)
ALONE = [TOKENS.encode(picture).codes for picture in PICTURES]


def test_facts() -> None:
    facts = TOKENS.facts
    assert (facts.kind, facts.name, facts.tokens, facts.image_size) == (
        *("image", "lumo-image-vq", 64, 64),
    )
    assert facts.codebook_size == 300 and "bicubic" in facts.preprocessing
    other = ImageTokens(ImageCodec(ImageCodecConfig(image_size=32)).eval(), "a" * 64)
    assert other.facts != facts and other.facts.tokens == 16


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=9))
def test_codes_do_not_depend_on_company(order: list[int]) -> None:
    found = TOKENS.encode_batch([PICTURES[i] for i in order])
    for place, coded in zip(order, found, strict=True):
        assert coded.codes.dtype == np.int64 and coded.codes.shape == (64, 1)
        assert np.array_equal(coded.codes, ALONE[place])


def test_codes_do_not_depend_on_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        again = [TOKENS.encode(picture).codes for picture in PICTURES]
    assert all(np.array_equal(a, b) for a, b in zip(again, ALONE, strict=True))


def test_other_sizes_are_stretched_by_the_one_resize() -> None:
    wide = np.random.default_rng(0).integers(0, 256, (90, 200, 3), dtype=np.uint8)
    assert np.array_equal(TOKENS.encode(wide).codes, TOKENS.encode(resize(wide, 64)).codes)
    back = TOKENS.decode(TOKENS.encode(wide))
    assert back.shape == (64, 64, 3) and back.dtype == np.uint8


def test_decoding_rounds_to_the_nearest_level() -> None:
    coded = Coded(ALONE[0])
    pixels = codec().decode(torch.from_numpy(ALONE[0].T))[0].permute(1, 2, 0).numpy()
    exact = np.clip((pixels.astype(np.float64) + 1) * 127.5, 0, 255)
    assert np.abs(TOKENS.decode(coded) - exact).max() < 0.51
    assert len(np.unique(TOKENS.decode(coded))) > 20


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((0, 64, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"is uint8 \[H, W, 3\], not"):
        TOKENS.encode(wrong)


def test_codes_that_it_does_not_have_are_refused() -> None:
    with pytest.raises(InputError, match="from 0 to 299"):
        TOKENS.decode(Coded(np.full((64, 1), 300)))
    with pytest.raises(InputError, match="has 64 codes, got 63"):
        TOKENS.decode(Coded(ALONE[0][:63]))


def test_training_mode_is_refused() -> None:
    trained = codec()
    tokens = ImageTokens(trained, "a" * 64)
    trained.train()
    with pytest.raises(ValueError, match="training mode"):
        tokens.encode(PICTURES[0])
    with pytest.raises(ValueError, match="evaluation mode"):
        ImageTokens(trained, "a" * 64)
