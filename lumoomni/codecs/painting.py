"""How a picture codec paints: two soft layers of ink, and a sharp mask between them.

Knows: vectors of codes on cells of 8 pixels, and the pixels they stand for. Does not know: how
codes are made. Costs: nano 0.8 M parameters, 70 million multiplications a picture of 64 pixels.

Where a shape ends is one number that changes slowly, and an edge that is a little off is still an
edge, no blur. Where codes say a colour and a form apart (codecs/ink_form.py), the mask is made of
the form alone: who has learned a star in one colour paints it in any, those that no star ever came
in among them (LOG.md).

Kernels of 3 x 3 are kept as matrices [out, in * 9], so that Muon moves them like any hidden matrix.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FINE, COARSE = 4, 2
PATCH = FINE * COARSE
SHARP = 4.0
"""How much the mask's numbers are raised, so that edges can be narrow from the start."""
INKS = 6
"""Channels of two layers of three colours."""


class Mix(nn.Module):
    """Convolution, [B, C, H, W] -> [B, out, H, W]: its kernel of `side` squared is a matrix."""

    def __init__(self, source: int, target: int, side: int) -> None:
        super().__init__()
        self.side = side
        fan = source * side**2
        self.weight = nn.Parameter(torch.empty(target, fan).uniform_(-(fan**-0.5), fan**-0.5))
        self.bias = nn.Parameter(torch.zeros(target))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.view(len(self.weight), x.shape[1], self.side, self.side)
        return F.conv2d(x, kernel, self.bias, padding=self.side // 2)


class Residual(nn.Module):
    """x + mix(gelu(mix(gelu(x)))) over [B, D, H, W]; reaches `side // 2` cells to each side."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.around = Mix(width, width, side)
        self.here = Mix(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.here(F.gelu(self.around(F.gelu(x))))


class Paint(nn.Module):
    """vectors [B, C, H, W] on cells of 8 pixels -> pixels [B, 3, H * 8, W * 8]; mask and inks are
    made of the same."""

    def __init__(self, code_width: int, width: int, fine: int, depth: int) -> None:
        super().__init__()
        self.features = _to_fine(code_width, width, fine, depth)
        self.mask = Mix(fine, FINE**2, 3)
        self.inks = _layers(fine, INKS)

    def forward(self, vectors: Tensor) -> Tensor:
        features = self.features(vectors)
        return painted(self.mask(features), self.inks(features))


class PaintByForm(nn.Module):
    """vectors [B, C, H, W] of which the first `ink_digits` say a colour -> as `Paint`; the mask is
    made of the others alone, the inks, in a smaller net `ink_width` wide, of all."""

    def __init__(
        self, code_width: int, width: int, fine: int, depth: int, ink_digits: int, ink_width: int
    ) -> None:
        super().__init__()
        self.ink_digits = ink_digits
        self.features = _to_fine(code_width - ink_digits, width, fine, depth)
        self.mask = Mix(fine, FINE**2, 3)
        self.inks = nn.Sequential(
            Mix(code_width, ink_width, 3),
            Residual(ink_width, 3),
            nn.GELU(),
            _layers(ink_width, INKS * COARSE**2),
            nn.PixelShuffle(COARSE),
        )

    def forward(self, vectors: Tensor) -> Tensor:
        form = vectors[:, self.ink_digits :]
        return painted(self.mask(self.features(form)), self.inks(vectors))


def painted(mask: Tensor, inks: Tensor) -> Tensor:
    """mask [B, 16, H, W] and inks [B, 6, H, W] on cells of FINE pixels -> [B, 3, H * 4, W * 4].

    Below 0 the mask shows the first three channels of ink, above 0 the others.
    """
    share = torch.sigmoid(SHARP * F.pixel_shuffle(mask, FINE))
    size = [side * FINE for side in inks.shape[-2:]]
    spread = F.interpolate(inks, size, mode="bilinear", align_corners=False)
    under, over = spread[:, :3], spread[:, 3:]
    return under + share * (over - under)


def _to_fine(source: int, width: int, fine: int, depth: int) -> nn.Sequential:
    """[B, source, H, W] on cells of 8 pixels -> [B, fine, 2 H, 2 W] on cells of 4."""
    return nn.Sequential(
        Mix(source, width, 3),
        *(Residual(width, 3) for _ in range(depth + 1)),
        Mix(width, fine * COARSE**2, 1),
        nn.PixelShuffle(COARSE),
        Residual(fine, 3),
        Residual(fine, 3),
        nn.GELU(),
    )


def _layers(source: int, target: int) -> Mix:
    """The last step to inks: two layers of one ink would leave the mask nothing to learn from."""
    mix = Mix(source, target, 3)
    nn.init.uniform_(mix.bias, -0.7, 0.7)
    return mix
