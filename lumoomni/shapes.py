"""Few shapes: sizes that differ from batch to batch, rounded up to a few that come again and again.

Knows: by how much. Does not know: what is padded, or how padding is kept out of results.
Costs: at most `step` - 1 rows more; a handful of milliseconds for every shape that is new.

A processor's matrix product is compiled for its exact shape when the shape first comes, and kept
(oneDNN does this for bfloat16 and for convolutions). At laptop sizes compiling takes as long as
several products: where every batch has a length of its own it was half of all training (LOG.md).
"""

import torch.nn.functional as F
from torch import Tensor

POSITIONS = 8
"""Padded sequences are multiples of this."""
MEL_FRAMES = 64
"""So are padded log-mels: eight features of an audio tower."""
ROWS = 32
"""And rows that were picked out of a batch: positions that are learned, or go one way."""


def round_up(size: int, step: int) -> int:
    """The least multiple of `step` that is not below `size`."""
    return -(-size // step) * step


def fill_up(x: Tensor, dim: int, step: int) -> Tensor:
    """x with zeros behind it along axis `dim` >= 0, up to a multiple of `step`."""
    missing = round_up(x.shape[dim], step) - x.shape[dim]
    return F.pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, missing)) if missing else x


def whole_rows(x: Tensor) -> Tensor:
    """x [N, ...] with zero rows behind it up to a multiple of `ROWS`."""
    return fill_up(x, 0, ROWS)
