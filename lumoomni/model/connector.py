"""Connectors: from a tower's feature width to the Thinker's, with a fixed number of positions.

Knows: pooling a square grid of patch vectors, and one linear map.
Does not know: which tower the features come from, or where in a sequence they go.
Costs: D_in x D_out + D_out parameters; at the seed's sizes 33,024 (pictures) and 49,408 (sound).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.vision import VisionFeatures


@dataclass(frozen=True, kw_only=True)
class LinearConnectorConfig:
    """`side` x `side` positions from a pooled patch grid; side 0 is the CLS vector alone."""

    source_width: int
    target_width: int
    side: int = 0

    def __post_init__(self) -> None:
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

    def forward(self, features: Tensor) -> Tensor:
        """[..., D_in] -> [..., D_out]."""
        return self.project(features)

    def picture(self, features: VisionFeatures) -> Tensor:
        """[B, positions, D_out]: the CLS vector, or the patch grid averaged to side x side.

        Raises ValueError when the grid does not divide evenly.
        """
        side = self.config.side
        if side == 0:
            return self.project(features.cls[:, None])
        batch, count, width = features.patches.shape
        grid = int(count**0.5)
        if grid * grid != count or grid % side:
            raise ValueError(f"a grid of {count} patches does not pool to {side} x {side}")
        square = features.patches.transpose(1, 2).reshape(batch, width, grid, grid)
        pooled = F.avg_pool2d(square, grid // side)
        return self.project(pooled.flatten(2).transpose(1, 2))
