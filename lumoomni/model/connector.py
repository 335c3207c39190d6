"""Connectors: from a tower's feature width to the Thinker's, with a fixed number of positions.

Knows: pooling a square grid of patch vectors, one linear map, and where on the grid each is; and
a second path through a choice among symbols, each with an embedding: speech as it is spelled, and
the things in a picture as they are described.
Does not know: which tower the features come from, or where in a sequence they go.
Costs: D_in x D_out + D_out parameters; at the seed's sizes 33,024 (pictures) and 49,408 (sound).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.regions import STANDS, RegionReader, RegionReaderConfig, stands, take_patches
from lumoomni.model.vision import VisionFeatures


@dataclass(frozen=True, kw_only=True)
class LinearConnectorConfig:
    """`side` x `side` positions from a pooled patch grid; side 0 is the CLS vector alone.

    `places` adds a learned vector for each row and column of the grid; with regions, each
    description ends in one more position that says where the thing stands. `symbols` above 0 adds a
    path softmax(features -> symbols) -> embeddings: speech as soft text (arXiv 1911.08876), which
    a recogniser's head and the Thinker's table can fill from the start.

    `regions` above 0 reads a picture as up to so many descriptions of `words` soft words each, from
    left to right, after one position for the whole picture (CLS); `side` is then not used, and
    `grid` says how many places a row has.
    """

    source_width: int
    target_width: int
    side: int = 0
    places: bool = False
    symbols: int = 0
    regions: int = 0
    words: int = 0
    grid: int = 0

    def __post_init__(self) -> None:
        if self.symbols < 0:
            raise ValueError(f"symbols must be 0 or positive, got {self.symbols}")
        if self.side < 0:
            raise ValueError(f"side must be 0 (CLS only) or positive, got {self.side}")
        if self.regions and min(self.words, self.grid, self.symbols) < 1:
            raise ValueError(
                f"{self.regions} regions need words, a grid and symbols, got {self.words}, "
                f"{self.grid} and {self.symbols}"
            )

    @property
    def positions(self) -> int:
        """Positions that one picture takes."""
        if self.regions:
            return 1 + self.regions * (self.words + self.places)
        return self.side**2 or 1


def _reader(config: LinearConnectorConfig) -> RegionReader:
    return RegionReader(
        RegionReaderConfig(
            width=config.source_width, symbols=config.symbols - 1, words=config.words
        )
    )


class LinearConnector(nn.Module):
    """One Linear. Pictures: [B, N, D_in] -> [B, positions, D_out]; sound: frames to frames."""

    def __init__(self, config: LinearConnectorConfig) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(config.source_width, config.target_width)
        width, symbols = config.target_width, config.symbols
        self.reader = _reader(config) if config.regions else None
        spells = symbols > 0 and not config.regions
        self.spell = nn.Linear(config.source_width, symbols) if spells else None
        self.symbol_table = nn.Parameter(torch.randn(symbols, width) * 0.02) if symbols else None
        # Rows and columns apart, so that "above" and "left of" look the same everywhere.
        side = (config.grid if config.regions else config.side) if config.places else 0
        self.row_table = nn.Parameter(torch.randn(side, width)) if side else None
        self.column_table = nn.Parameter(torch.randn(side, width)) if side else None
        told = config.places and config.regions > 0
        self.stand_table = nn.Parameter(torch.randn(len(STANDS) + 1, width)) if told else None
        self.stand_shift = nn.Parameter(torch.zeros(len(STANDS) + 1, width)) if told else None

    def forward(self, features: Tensor) -> Tensor:
        """[..., D_in] -> [..., D_out]: the linear path alone."""
        return self.project(features)

    def speech(self, features: Tensor, mask: Tensor) -> Tensor:
        """[B, F, D_in] with mask [B, F] -> the valid positions of all clips in a row [K, D_out].

        With symbols, the frames that begin a symbol come first in each clip, as they would stand
        in text, and the frames between them follow in order: the count stays one a frame, and
        neighbours in speech are neighbours for the Thinker, as they are in what it has read.
        """
        if self.spell is None or self.symbol_table is None:
            return self.project(features[mask])
        scores = self.spell(features).float()
        heard = scores.argmax(-1)
        before = F.pad(heard[:, :-1], (1, 0))
        begins = (heard != 0) & (heard != before) & mask
        said = scores.softmax(-1).to(features.dtype) @ self.symbol_table.to(features.dtype)
        out = self.project(features) + said * begins[..., None]
        rank = torch.where(begins, 0, 1) + torch.where(mask, 0, 2)
        order = rank.argsort(dim=1, stable=True)
        return out.gather(1, order[..., None].expand_as(out))[mask]

    def picture(self, features: VisionFeatures) -> Tensor:
        """[B, positions, D_out]: descriptions of regions, the CLS vector, or the patch grid
        averaged to side x side.

        Raises ValueError when the grid does not divide evenly.
        """
        if self.reader is not None:
            return self._described(features, self.reader)
        out = self.project(self.pooled(features))
        if self.row_table is None or self.column_table is None:
            return out
        places = self.row_table[:, None] + self.column_table[None, :]
        return out + places.flatten(0, 1).to(out.dtype)

    def _described(self, features: VisionFeatures, reader: RegionReader) -> Tensor:
        """[B, positions, D_out]: the whole, then each found thing in its words and its place.

        Words of things that are not there stay empty, and so do their places.
        """
        assert self.symbol_table is not None
        found = reader.find(features.patches, self.config.regions)
        patches = take_patches(features.patches, found)
        # The likeliest word alone, as text would have it: a mixture of two is none that was read
        # before. Gradients pass as if it were the mixture (arXiv 1308.3432).
        soft = reader.describe(patches).float().softmax(-1)
        hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
        said = (hard + soft - soft.detach()).to(patches.dtype)
        out = said @ self.symbol_table.to(patches.dtype)
        out = out + self.project(patches)[:, :, None]
        if self.row_table is not None and self.column_table is not None:
            row, column = found.patch // self.config.grid, found.patch % self.config.grid
            places = self.row_table[row] + self.column_table[column]
            if self.stand_table is not None and self.stand_shift is not None:
                where = stands(found)
                places = places + self.stand_table[where]
                out = out + self.stand_shift[where][:, :, None].to(out.dtype)
            out = torch.cat([out, places[:, :, None].to(out.dtype)], 2)
        out = out * found.found[:, :, None, None]
        return torch.cat([self.project(features.cls)[:, None], out.flatten(1, 2)], 1)

    def pooled(self, features: VisionFeatures) -> Tensor:
        """[B, positions, D_in]: what `picture` maps, before it is mapped."""
        side = self.config.side
        if side == 0:
            return features.cls[:, None]
        batch, count, width = features.patches.shape
        grid = int(count**0.5)
        if grid * grid != count or grid % side:
            raise ValueError(f"a grid of {count} patches does not pool to {side} x {side}")
        square = features.patches.transpose(1, 2).reshape(batch, width, grid, grid)
        return F.avg_pool2d(square, grid // side).flatten(2).transpose(1, 2)

    @torch.no_grad()
    def smooth_places(self) -> None:
        """Make neighbouring rows and columns alike, so that what is far along is plain to read.

        Each table becomes a random mixture of slow waves (cosines), the slowest the strongest.
        """
        for table in (self.row_table, self.column_table):
            if table is not None:
                steps = (torch.arange(len(table)) + 0.5) / len(table)
                waves = torch.arange(1, 5)
                basis = torch.cos(torch.pi * steps[:, None] * waves) / waves
                table.copy_(basis @ torch.randn(len(waves), table.shape[1]))

    @torch.no_grad()
    def name_places(self, words: Tensor) -> None:
        """Start the words for where things stand from their embeddings [5, D], as in STANDS.

        The words of a description carry a quarter of them, so that whoever finds a thing by its
        words finds its place there too.
        """
        if self.stand_table is not None and self.stand_shift is not None:
            self.stand_table[0] = 0.0
            self.stand_table[1:] = words
            self.stand_shift.copy_(self.stand_table / 4)

    @torch.no_grad()
    def scale_places(self, size: float) -> None:
        """Set the root mean square of the places' vectors.

        A grid's are best as large as an embedding. Those of regions stand beside a word that
        already says left or above, and must not drown it (LOG.md).
        """
        for table in (self.row_table, self.column_table):
            if table is not None:
                table.mul_(size / table.square().mean().sqrt())
