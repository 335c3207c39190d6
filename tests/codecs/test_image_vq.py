"""The picture codec: shapes, what a code reaches, and that it learns."""

import pytest
import torch

from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig

CONFIG = ImageCodecConfig(
    image_size=32, fine_width=8, width=16, code_width=4, codebook_size=20, depth=1
)


def filled() -> ImageCodec:
    torch.manual_seed(0)
    codec = ImageCodec(CONFIG).eval()
    codec.quantiser.codebooks.normal_()
    return codec


def test_sizes() -> None:
    codec = filled()
    codes = codec.encode(torch.rand(3, 3, 32, 32) * 2 - 1)
    assert codes.shape == (3, 16) and CONFIG.tokens == 16 and CONFIG.grid == 4
    assert codec.decode(codes).shape == (3, 3, 32, 32)
    with pytest.raises(ValueError, match="codes span 0 to 20"):
        codec.decode(torch.tensor([[20] * 15 + [0]]))
    with pytest.raises(ValueError, match="image_size must be a multiple of 8, got 36"):
        ImageCodecConfig(image_size=36)
    with pytest.raises(ValueError, match="depth must be at least 1"):
        ImageCodecConfig(depth=0)


def test_codes_stand_row_by_row() -> None:
    """Where a code changes the picture, by its centre of mass (y, x)."""
    codec, codes = filled(), torch.zeros(1, 16, dtype=torch.long)
    before, line = codec.decode(codes), torch.arange(32.0)
    centre = {}
    for place in (0, 3, 12):
        other = codes.clone()
        other[0, place] = 7
        moved = (codec.decode(other) - before).square().mean(1)[0]
        share = moved / moved.sum()
        centre[place] = (float(share.sum(1) @ line), float(share.sum(0) @ line))
    assert centre[0][0] < 13 and centre[0][1] < 13
    assert centre[3][0] < 13 and centre[3][1] > 19
    assert centre[12][0] > 19 and centre[12][1] < 13


def test_training_and_use_see_the_same_codes_and_pixels() -> None:
    codec = filled()
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        rebuilt, quantised = codec(pixels)
    codes = codec.encode(pixels)
    assert torch.equal(quantised.codes[..., 0], codes)
    assert torch.allclose(codec.decode(codes), rebuilt, atol=1e-5)
    length = codec._vectors(pixels).square().mean(-1)
    assert torch.allclose(length, torch.ones_like(length), atol=1e-4)


def test_it_learns_bars_that_the_mean_does_not_know() -> None:
    torch.manual_seed(1)
    codec = ImageCodec(CONFIG)
    optim = torch.optim.AdamW(codec.parameters(), lr=5e-3)

    def bars(count: int) -> torch.Tensor:
        where = torch.rand(count, 1, 1, 1) * 24
        row = ((torch.arange(32) - where).abs() < 5).float() * 2 - 1
        return row.expand(count, 3, 32, 32) * torch.tensor([1.0, -1.0, 0.5])[:, None, None]

    for _ in range(80):
        pixels = bars(16)
        rebuilt, quantised = codec(pixels)
        loss = ((rebuilt - pixels) ** 2).mean() + 0.025 * quantised.commitment / (16 * 16)
        loss.backward()
        optim.step()
        optim.zero_grad()
    codec.eval()
    pixels = bars(64)
    codes = codec.encode(pixels)
    left = float((codec.decode(codes) - pixels).square().mean())
    assert left < 0.25 * float(pixels.var(0).mean())
    assert len(codes.unique()) >= 5


def test_gradients_reach_the_encoder_through_the_codes() -> None:
    codec = ImageCodec(CONFIG)
    rebuilt, _ = codec(torch.rand(4, 3, 32, 32))
    rebuilt.square().sum().backward()
    first = codec.encoder[1].weight
    assert isinstance(first, torch.nn.Parameter) and first.grad is not None
    assert float(first.grad.abs().sum()) > 0
