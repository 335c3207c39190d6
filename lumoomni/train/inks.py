"""The colour digits of a picture codec, learned first and alone.

Knows: colours of things and of their grounds, and the net that gives a colour its digits.
Does not know: forms, pictures' decoders or files. Costs: 2 s a try on one thread.

Which colours share digits is decided in a codec's first updates, by chance, and is not mended by
later ones: in one run half of all black things came back green. Colours alone are so little to
learn that several tries cost seconds, and the one that keeps them best is taken (LOG.md).
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lumoomni.codecs.image_vq import ImageCodec
from lumoomni.codecs.ink_form import InkAndForm, stands_out
from lumoomni.codecs.scalar import ScalarQuantiser

COVERED = 0.3
"""Share of a pixel's distance from the ground above which a cell counts as one of a thing."""


@dataclass(frozen=True, kw_only=True)
class InkConfig:
    """`tries` fresh starts of `updates` updates each on `batch` colours, half of them of things and
    half of grounds; none leaves the digits to the codec's own training."""

    tries: int = 3
    updates: int = 800
    batch: int = 512
    lr: float = 1e-2
    pictures: int = 640
    """Training pictures that the colours are taken from."""

    def __post_init__(self) -> None:
        if self.tries < 0 or min(self.updates, self.batch, self.pictures) < 1:
            raise ValueError("tries must be at least 0; updates, batch and pictures at least 1")


@dataclass(frozen=True, kw_only=True)
class Inks:
    """Colours [n, 3] in [-1, 1] of cells where a thing stands, and [m, 3] of empty ones."""

    things: Tensor
    grounds: Tensor


@torch.no_grad()
def inks_of(pixels: Tensor) -> Inks:
    """The colours of pictures [B, 3, S, S], one for each cell."""
    colours, cover = stands_out(pixels)
    sure = cover.abs().amax(-1) > COVERED
    return Inks(things=colours[sure], grounds=colours[~sure])


def learn_inks(codec: ImageCodec, inks: Inks, config: InkConfig, seed: int) -> float:
    """Give the codec the colour net that keeps the colours of things and of grounds best.

    Returns the mean squared distance that its digits leave of both, summed over channels. Raises
    ValueError for a codec without digits of colour, or pictures that hold no things or no ground.
    """
    if not isinstance(codec.encoder, InkAndForm):
        raise ValueError("this codec has no digits of colour; set ink_digits")
    if not len(inks.things) or not len(inks.grounds):
        raise ValueError(f"{len(inks.things)} colours of things, {len(inks.grounds)} of grounds")
    levels = codec.config.levels[: codec.config.ink_digits]
    best, least = codec.encoder.ink, float("inf")
    for number in range(config.tries):
        # The codec's own start is as good as any.
        net = copy.deepcopy(codec.encoder.ink)
        if number:
            _start_anew(net, seed + number)
        left = _learn(net, ScalarQuantiser(levels), inks, config, seed + number)
        if left < least:
            best, least = net, left
    codec.encoder.ink.load_state_dict(best.state_dict())
    return least


def _learn(
    net: nn.Module, quantiser: ScalarQuantiser, inks: Inks, config: InkConfig, seed: int
) -> float:
    """Train `net` beside a decoder of its own, through rounded digits; what these leave."""
    source = torch.Generator().manual_seed(seed)
    width = 64
    back = nn.Sequential(
        nn.Linear(quantiser.codebooks.shape[-1], width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, 3),
    )
    _start_anew(back, seed + 1_000_003)
    optimiser = torch.optim.Adam([*net.parameters(), *back.parameters()], lr=config.lr)

    def off(colours: Tensor) -> Tensor:
        made = back(quantiser(quantiser.bound(net(colours))).vectors)
        return (made - colours).square().sum(-1).mean()

    half = config.batch // 2
    counts = ((inks.things, config.batch - half), (inks.grounds, half))
    for update in range(config.updates):
        rows = [x[torch.randint(len(x), (count,), generator=source)] for x, count in counts]
        rate = min((update + 1) / 50, 1 - update / config.updates)
        for group in optimiser.param_groups:
            group["lr"] = config.lr * rate
        optimiser.zero_grad()
        off(torch.cat(rows)).backward()
        optimiser.step()
    with torch.no_grad():
        return float(off(inks.things) + off(inks.grounds)) / 2


def _start_anew(net: nn.Module, seed: int) -> None:
    """Linear layers as torch starts them, from `seed` and no other chance."""
    source = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            for tensor in layer.parameters():
                limit = layer.in_features**-0.5
                nn.init.uniform_(tensor, -limit, limit, generator=source)
