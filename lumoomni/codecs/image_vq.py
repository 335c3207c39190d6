"""Picture codec: a small picture to a grid of codes from one codebook, and back.

Knows: how to squeeze patches of 8 x 8 pixels into one code each and rebuild them with what their
neighbours say. Does not know: words, files, or how a picture came to its size (image_tokens.py
does). Costs: nano 1.3 M parameters; 64 codes a picture of 64 pixels.

A code is made of its patch and 4 pixels around it, and of no more: the same thing has the same
codes whatever else is in the picture, and an empty sheet has one. An encoder that looks farther
rebuilds no better, and its codes are many times harder to predict (LOG.md). With `ink_digits` some
digits of a code say a colour and the others a form (codecs/ink_form.py).

With a learned codebook, it and the encoder learn as in codecs/quantiser.py (VQ-VAE, arXiv
1711.00937), on vectors scaled to one length, which keeps the codes from drifting apart (arXiv
2110.04627). With `levels`, codes are digits (codecs/scalar.py), which needs no book to be learned
and rebuilds more with as many codes.

Pixels are painted from the codes of a cell and its neighbours (codecs/painting.py).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.codecs.ink_form import InkAndForm
from lumoomni.codecs.painting import COARSE, FINE, PATCH, Mix, Paint, PaintByForm, Residual
from lumoomni.codecs.quantiser import Quantised, ResidualQuantiser, clear_nearest, margins, nearest
from lumoomni.codecs.scalar import ScalarQuantiser


@dataclass(frozen=True, kw_only=True)
class ImageCodecConfig:
    """`image_size` pixels a side make a grid of `image_size / 8` codes a side.

    `fine_width` channels stand on cells of 4 pixels, `width` on cells of 8. With `levels` of each
    of the `code_width` components, there are as many codes as their product, and `decay`,
    `restart_below` and `commitment` of the learned codebook mean nothing. Of these, the first
    `ink_digits` say a colour and the others a form (codecs/ink_form.py), and a net `ink_width` wide
    chooses the colours to paint in; with 0 all say both.
    """

    image_size: int = 64
    fine_width: int = 64
    width: int = 128
    code_width: int = 16
    codebook_size: int = 1024
    levels: tuple[int, ...] = ()
    ink_digits: int = 0
    ink_width: int = 48
    depth: int = 2
    decay: float = 0.97
    restart_below: float = 0.05
    """A code used for fewer vectors than this a batch (moving average) is restarted."""
    commitment: float = 0.025

    def __post_init__(self) -> None:
        if self.image_size < PATCH or self.image_size % PATCH:
            raise ValueError(f"image_size must be a multiple of {PATCH}, got {self.image_size}")
        widths = (self.fine_width, self.width, self.code_width, self.ink_width)
        if min(*widths, self.codebook_size, self.depth) < 1:
            raise ValueError("widths, codebook_size and depth must be at least 1")
        made = (math.prod(self.levels), len(self.levels))
        if self.levels and (min(self.levels) < 2 or made != (self.codebook_size, self.code_width)):
            raise ValueError(
                f"levels {self.levels} make {made[0]} codes of {made[1]} components with at least "
                f"2 levels each, but codebook_size is {self.codebook_size} and code_width "
                f"{self.code_width}"
            )

        if not 0 <= self.ink_digits <= max(0, len(self.levels) - 1):
            raise ValueError(
                f"ink_digits is {self.ink_digits} of {len(self.levels)} levels; use 0, or leave at "
                "least one for the form"
            )

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """Levels of the digits that belong together: colour and form, or each digit for itself."""
        if self.ink_digits:
            return self.levels[: self.ink_digits], self.levels[self.ink_digits :]
        return tuple((level,) for level in self.levels)

    @property
    def codebooks(self) -> int:
        """One: a language model then says one token a cell."""
        return 1

    @property
    def grid(self) -> int:
        """Codes a side."""
        return self.image_size // PATCH

    @property
    def tokens(self) -> int:
        """Codes a picture, row by row."""
        return self.grid**2


def _encoder(config: ImageCodecConfig) -> nn.Module:
    """pixels [B, 3, S, S] -> [B, code_width, S / 8, S / 8]."""
    fine, width, depth = config.fine_width, config.width, config.depth
    if config.ink_digits:
        form = config.code_width - config.ink_digits
        return InkAndForm(config.ink_digits, form, 2 * width, depth)
    return nn.Sequential(
        nn.PixelUnshuffle(FINE),
        Mix(3 * FINE**2, fine, 3),
        Residual(fine, 1),
        nn.PixelUnshuffle(COARSE),
        Mix(fine * COARSE**2, width, 1),
        *(Residual(width, 1) for _ in range(depth)),
        nn.GELU(),
        Mix(width, config.code_width, 1),
    )


def _decoder(config: ImageCodecConfig) -> nn.Module:
    """[B, code_width, S / 8, S / 8] -> pixels [B, 3, S, S]."""
    shape = (config.code_width, config.width, config.fine_width, config.depth)
    if config.ink_digits:
        return PaintByForm(*shape, config.ink_digits, config.ink_width)
    return Paint(*shape)


class ImageCodec(nn.Module):
    """pixels [B, 3, S, S] in [-1, 1] <-> codes [B, N], N = (S / 8) squared, row by row."""

    def __init__(self, config: ImageCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        self.quantiser = (
            ScalarQuantiser(config.levels) if config.levels else ResidualQuantiser(config)
        )
        self.decoder = _decoder(config)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Quantised]:
        """-> (rebuilt pixels [B, 3, S, S], Quantised [B, N, ...]) for training."""
        vectors = self._vectors(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            if isinstance(self.quantiser, ScalarQuantiser):
                quantised = self.quantiser(vectors)
            else:
                everywhere = torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
                quantised = self.quantiser(vectors, everywhere)
        return self._rebuild(quantised.vectors), quantised

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, S, S] -> codes [B, N] in fp32."""
        with torch.autocast(pixels.device.type, enabled=False):
            vectors = self._vectors(pixels.float())
            if isinstance(self.quantiser, ScalarQuantiser):
                return self.quantiser.codes(vectors)
            return nearest(vectors, self.quantiser.codebooks[0])

    @torch.no_grad()
    def encode_clear(self, pixels: Tensor, near: float) -> tuple[Tensor, Tensor]:
        """pixels [B, 3, S, S] -> codes [B, N], and of each picture bool [B] whether they would be
        the same if each vector were moved by `near` of the longest one."""
        with torch.autocast(pixels.device.type, enabled=False):
            raw = self._among(pixels.float())
            length = raw.norm(dim=-1)
            reach = near * length.amax(1, keepdim=True)
            vectors = self._comparable(raw)
            if isinstance(self.quantiser, ScalarQuantiser):
                clear = self.quantiser.room(vectors) > reach
                return self.quantiser.codes(vectors), clear.all(1)
            # Scaling to one length scales what moves a vector as well.
            moved = reach * self.config.code_width**0.5 / length
            codes, clear = clear_nearest(vectors, self.quantiser.codebooks[0], moved)
            return codes, clear.all(1)

    @torch.no_grad()
    def margins(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, S, S] -> [B, N, 1]: how far the next code was behind the chosen one."""
        with torch.autocast(pixels.device.type, enabled=False):
            return margins(self._vectors(pixels.float()), self.quantiser.codebooks[:1])

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, N] -> pixels [B, 3, S, S] in fp32. Raises ValueError for codes out of range."""
        with torch.autocast(codes.device.type, enabled=False):
            return self._rebuild(self.quantiser.lookup(codes[..., None]))

    def _vectors(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, N, C] float32 as codes are told apart: of one length for a learned
        codebook, in [-1, 1] for levels."""
        return self._comparable(self._encoded(pixels))

    def _encoded(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, N, C] float32, of any length."""
        return self.encoder(pixels).flatten(2).transpose(1, 2).float()

    def _among(self, pixels: Tensor) -> Tensor:
        """`_encoded` of several, but for its rounding."""
        if isinstance(self.encoder, InkAndForm):
            return self.encoder.together(pixels)
        return self._encoded(pixels)

    def _comparable(self, x: Tensor) -> Tensor:
        if isinstance(self.quantiser, ScalarQuantiser):
            return self.quantiser.bound(x)
        return F.normalize(x, dim=-1) * self.config.code_width**0.5

    def _rebuild(self, vectors: Tensor) -> Tensor:
        grid = self.config.grid
        x = vectors.transpose(1, 2).reshape(len(vectors), -1, grid, grid)
        return self.decoder(x).float()
