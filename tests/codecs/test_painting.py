"""Painting from codes: a mask between two inks, and one that colours do not move."""

import torch

from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.codecs.painting import PaintByForm, painted

APART = ImageCodecConfig(
    image_size=32,
    fine_width=8,
    width=16,
    code_width=4,
    levels=(5, 5, 4, 4),
    codebook_size=400,
    ink_digits=2,
    ink_width=8,
    depth=1,
)


def test_the_mask_chooses_between_two_inks() -> None:
    """Shut it shows one, open the other, and it can change from pixel to pixel of a cell."""
    inks = torch.arange(6.0)[None, :, None, None].expand(1, 6, 3, 3)
    mask = torch.tensor([-20.0] * 8 + [20.0] * 8)  # the upper and the lower half of each cell
    picture = painted(mask[None, :, None, None].expand(1, 16, 3, 3), inks)
    assert picture.shape == (1, 3, 12, 12)
    rows = picture[0].reshape(3, 3, 4, 12)
    assert torch.allclose(rows[:, :, :2], torch.arange(3.0)[:, None, None, None], atol=1e-5)
    assert torch.allclose(rows[:, :, 2:], torch.arange(3.0, 6)[:, None, None, None], atol=1e-5)


def test_a_colour_does_not_move_an_edge() -> None:
    """Other digits of colour everywhere: other inks, the same mask; another form: another mask."""
    torch.manual_seed(0)
    codec = ImageCodec(APART).eval()
    decoder = codec.decoder
    assert isinstance(decoder, PaintByForm)
    masks: list[torch.Tensor] = []
    decoder.mask.register_forward_hook(lambda _module, _inputs, out: masks.append(out))
    codes = torch.randint(0, 16, (1, 16))  # digits of form alone
    first = codec.decode(codes)
    other_ink = codec.decode(codes + 16 * 7)
    codec.decode((codes + 1) % 16)
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert not torch.allclose(first, other_ink)


def test_everything_that_paints_learns() -> None:
    torch.manual_seed(0)
    codec = ImageCodec(APART)
    rebuilt, _ = codec(torch.rand(4, 3, 32, 32) * 2 - 1)
    rebuilt.square().sum().backward()
    for name, weight in codec.decoder.named_parameters():
        assert weight.grad is not None and float(weight.grad.abs().sum()) > 0, name
