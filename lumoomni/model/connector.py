"""Connectors: from a tower's feature width to the Thinker's, with a fixed number of positions.

Knows: pooling a square grid of patch vectors, one linear map, and where on the grid each is; and
for speech a second path through a choice among symbols, each with an embedding.
Does not know: which tower the features come from, or where in a sequence they go.
Costs: D_in x D_out + D_out parameters; at the seed's sizes 33,024 (pictures) and 49,408 (sound).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.vision import VisionFeatures


@dataclass(frozen=True, kw_only=True)
class LinearConnectorConfig:
    """`side` x `side` positions from a pooled patch grid; side 0 is the CLS vector alone.

    `places` adds a learned vector for each row and column of the grid. `symbols` above 0 adds a
    path softmax(features -> symbols) -> embeddings: speech as soft text (arXiv 1911.08876), which
    a recogniser's head and the Thinker's table can fill from the start.
    """

    source_width: int
    target_width: int
    side: int = 0
    places: bool = False
    symbols: int = 0

    def __post_init__(self) -> None:
        if self.symbols < 0:
            raise ValueError(f"symbols must be 0 or positive, got {self.symbols}")
        if self.side < 0:
            raise ValueError(f"side must be 0 (CLS only) or positive, got {self.side}")

    @property
    def positions(self) -> int:
        """Positions that one picture takes."""
        return self.side**2 or 1


class LinearConnector(nn.Module):
    """One Linear. Pictures: [B, N, D_in] -> [B, positions, D_out]; sound: frames to frames."""

    def __init__(self, config: LinearConnectorConfig) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(config.source_width, config.target_width)
        width, symbols = config.target_width, config.symbols
        self.spell = nn.Linear(config.source_width, symbols) if symbols else None
        self.symbol_table = nn.Parameter(torch.randn(symbols, width) * 0.02) if symbols else None
        # Rows and columns apart, so that "above" and "left of" look the same everywhere.
        side = config.side if config.places else 0
        self.row_table = nn.Parameter(torch.randn(side, width)) if side else None
        self.column_table = nn.Parameter(torch.randn(side, width)) if side else None

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
        table = self.symbol_table.to(features.dtype)
        said = torch.where(
            begins[..., None], scores.softmax(-1).to(features.dtype) @ table, table[0]
        )
        out = self.project(features) + said
        rank = torch.where(begins, 0, 1) + torch.where(mask, 0, 2)
        order = rank.argsort(dim=1, stable=True)
        return out.gather(1, order[..., None].expand_as(out))[mask]

    def picture(self, features: VisionFeatures) -> Tensor:
        """[B, positions, D_out]: the CLS vector, or the patch grid averaged to side x side.

        Raises ValueError when the grid does not divide evenly.
        """
        out = self.project(self.pooled(features))
        if self.row_table is None or self.column_table is None:
            return out
        places = self.row_table[:, None] + self.column_table[None, :]
        return out + places.flatten(0, 1).to(out.dtype)

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
    def scale_places(self, size: float) -> None:
        """Set the root mean square of the places' vectors: best as large as an embedding's."""
        for table in (self.row_table, self.column_table):
            if table is not None:
                table.mul_(size / table.square().mean().sqrt())
