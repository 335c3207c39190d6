"""What stands out in each cell of a picture, told apart: in which colour, and in which form.

Knows: pixels, windows of 16 around cells of 8, the picture's ground. Does not know: codes or words.
Costs: a median of the picture, a softmax over 256 pixels and a few products for each cell.

Codes that one encoder makes of all it sees are codes of a colour and a form at once: who never drew
a red star has never met the codes of one. Here the colour is measured, as that of the pixels that
are farthest from the ground, and the form is how much of each pixel has that colour, whichever it
is. So all red things share their digits of colour, and all stars those of form, and a thing that
nobody has seen is coded as well as any (LOG.md). Pictures without a ground are not what it is for.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.codecs.company import product

CELL, AROUND = 8, 4
WINDOW = CELL + 2 * AROUND
KEEN, DULL = 16.0, 0.2
"""How much more a pixel counts for the colour, the farther it is from the ground, as a share of
the farthest one's squared distance; what is added to that has grain of a ground averaged."""
FAINT, SURE = 0.12, 40.0
"""Squared distance from the ground (of [-1, 1], summed over colours) below which nothing stands
out, and how sharp that limit is: slopes and grain of grounds stay below."""
SOFT = 0.01


class InkAndForm(nn.Module):
    """pixels [B, 3, S, S] in [-1, 1] -> [B, ink + form, S / 8, S / 8], colour first."""

    def __init__(self, ink: int, form: int, width: int, depth: int) -> None:
        super().__init__()
        self.ink = nn.Sequential(
            nn.Linear(3, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, ink),
        )
        self.look = nn.Linear(WINDOW**2, width)
        self.think = nn.ModuleList(
            nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.form = nn.Sequential(nn.GELU(), nn.Linear(width, form))

    def forward(self, pixels: Tensor) -> Tensor:
        ink, cover = stands_out(pixels)
        x = self.look(cover)
        for block in self.think:
            x = x + block(x)
        grid = [side // CELL for side in pixels.shape[-2:]]
        return torch.cat([self.ink(ink), self.form(x)], -1).transpose(1, 2).unflatten(2, grid)

    def together(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, N, ink + form], cells row by row: `forward` but for its rounding."""
        ink, cover = stands_out(pixels)
        x = product(cover, self.look.weight, self.look.bias)
        for block in self.think:
            assert isinstance(block, nn.Sequential)
            x = x + _through(block, x)
        return torch.cat([_through(self.ink, ink), _through(self.form, x)], -1)


def _through(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = product(x, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else layer(x)
    return x


def stands_out(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(colour [B, N, 3], the share of it [B, N, 256] that each pixel around a cell has), cells row
    by row. Where nothing stands out the colour is the ground's, and the share 0."""
    ground = _median(pixels.flatten(2))
    off = F.pad(pixels - ground[:, :, None, None], (AROUND,) * 4, mode="replicate")
    far = _windows(off.square().sum(1, keepdim=True)).squeeze(1)  # [B, 256, N]
    off = _windows(off)
    keen = (KEEN * far / (far.amax(1, keepdim=True) + DULL)).softmax(1)
    change = (off * keen[:, None]).sum(2)  # [B, 3, N]
    size = change.square().sum(1, keepdim=True)  # [B, 1, N]
    cover = (off * change[:, :, None]).sum(1) / (size + SOFT)
    cover = cover * torch.sigmoid(SURE * (size - FAINT))
    return (change + ground[:, :, None]).transpose(1, 2), cover.transpose(1, 2)


def _windows(x: Tensor) -> Tensor:
    """[B, C, S + 2 AROUND, S + 2 AROUND] -> [B, C, 256, N]: what is around each cell."""
    cut = x.unfold(2, WINDOW, CELL).unfold(3, WINDOW, CELL)
    return cut.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(2, 3)


def _median(x: Tensor) -> Tensor:
    """[..., N] -> [...]: the lower median, as torch has it."""
    if type(x) is not Tensor or x.device.type != "cpu" or x.requires_grad:
        return x.median(-1).values
    middle = (x.shape[-1] - 1) // 2  # numpy finds it in a fifth of the time
    return torch.from_numpy(np.partition(x.numpy(), middle, axis=-1)[..., middle])
