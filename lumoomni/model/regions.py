"""Reads a grid of patch vectors as a few short descriptions: what is there, and where.

Knows: a score for "a described thing is centred here", and the ids of its description, each from
the patch at the centre. (Boxless centres: arXiv 1904.07850; dense captions: arXiv 1511.07571.)
Does not know: pictures, tokenizers, or who reads the descriptions.
Costs: one map to words x (symbols + 1) scores, taken at the chosen patches only.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE = -100  # the class of a word that nobody told
# Log-odds from which a patch is a centre. A centre on the edge of a patch shares its odds with the
# next one, so that even odds miss 3 % of the things; one in seven misses none (LOG.md).
LEAST_ODDS = -1.7


@dataclass(frozen=True, kw_only=True)
class RegionReaderConfig:
    """`symbols` ids and a blank (class 0; class i + 1 is id i); `words` ids a description."""

    width: int
    symbols: int
    words: int = 4


@dataclass(frozen=True)
class Regions:
    """The most certain centres of each picture from left to right, R of them, the missing last.

    patch [B, R] counts row by row; found [B, R] is False for places that no thing took.
    """

    patch: Tensor
    found: Tensor


class RegionReader(nn.Module):
    """patches [B, N, D] -> where things are centred, and their descriptions."""

    def __init__(self, config: RegionReaderConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.width)
        self.centre = nn.Linear(config.width, 1)
        self.words = nn.Linear(config.width, config.words * (config.symbols + 1))
        # Most patches are no centre; starting at even odds would drown what is learned first.
        nn.init.constant_(self.centre.bias, -3.5)

    def centres(self, patches: Tensor) -> Tensor:
        """[..., D] -> log-odds that a described thing is centred in the patch [...]."""
        return self.centre(self.norm(patches)).squeeze(-1)

    def describe(self, patches: Tensor) -> Tensor:
        """[..., D] -> scores [..., words, symbols + 1] of the thing that the patch belongs to."""
        scores = self.words(self.norm(patches))
        return scores.unflatten(-1, (self.config.words, self.config.symbols + 1))

    def find(self, patches: Tensor, most: int) -> Regions:
        """Centres that are the likeliest of their eight neighbours, and likely enough.

        Raises ValueError when the patches are no square grid or fewer than `most`.
        """
        batch, count, _ = patches.shape
        grid = int(count**0.5)
        if grid * grid != count or count < most:
            raise ValueError(f"{count} patches are no square grid of at least {most}")
        score = self.centres(patches).float()
        best = F.max_pool2d(score.view(batch, 1, grid, grid), 3, stride=1, padding=1)
        peak = (score == best.view(batch, count)) & (score > LEAST_ODDS)
        chosen = score.masked_fill(~peak, float("-inf")).topk(most, dim=1).indices
        found = peak.gather(1, chosen)
        column_first = (chosen % grid) * grid + chosen // grid
        order = (column_first + count * ~found).argsort(dim=1)
        return Regions(chosen.gather(1, order), found.gather(1, order))

    def read(self, patches: Tensor, most: int) -> list[list[list[int]]]:
        """The likeliest ids of each found description, for each picture."""
        regions = self.find(patches, most)
        said = self.describe(take_patches(patches, regions)).argmax(-1)
        return [
            [[c - 1 for c in row if c] for row, ok in zip(rows, oks, strict=True) if ok]
            for rows, oks in zip(said.tolist(), regions.found.tolist(), strict=True)
        ]


def take_patches(patches: Tensor, regions: Regions) -> Tensor:
    """[B, N, D] at the regions' patches -> [B, R, D]."""
    index = regions.patch[..., None].expand(-1, -1, patches.shape[-1])
    return patches.gather(1, index)


def region_losses(
    reader: RegionReader, patches: Tensor, centred: Tensor, covered: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Of centres [B, N] (mean over things) and of words at K covered patches (mean over words).

    covered [K, 2] says which (picture, patch); classes [K, words] its description's classes,
    blanks at the end and IGNORE for words that nobody told.
    """
    where = F.binary_cross_entropy_with_logits(
        reader.centres(patches).float(), centred.float(), reduction="sum"
    )
    scores = reader.describe(patches[covered[:, 0], covered[:, 1]]).float()
    words = F.cross_entropy(scores.flatten(0, 1), classes.flatten(), ignore_index=IGNORE)
    return where / centred.sum().clamp(min=1), words


@torch.no_grad()
def expect_words(reader: RegionReader, classes: Tensor) -> None:
    """Start each word's scores from how often each class was seen there; classes [K, words]."""
    bias = reader.words.bias.view(reader.config.words, -1)
    for place in range(reader.config.words):
        told = classes[:, place][classes[:, place] != IGNORE]
        counts = torch.bincount(told, minlength=bias.shape[1]).float() + 0.01
        bias[place] = (counts / counts.sum()).log()
