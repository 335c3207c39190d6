"""A connector's positions learn to say a caption, word for word, before any model reads them.

Knows: scores of symbols at each position, the embeddings of the caption's ids.
Does not know: pictures, towers or Thinkers. Costs: one product with the symbols a position.

Why: through a frozen Thinker a connector learns slowly, for it must guess a language from how well
it is answered. The captions say which ids would be read rightly: position k takes the k-th id,
the positions after the last one take nothing. Near the ids' embeddings matters as much as the right
choice: with the choice alone the vectors grow without bound and are misread (LOG.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lumoomni.ids import IGNORE
from lumoomni.model.perceiver import PerceiverConnector


@dataclass(frozen=True, kw_only=True)
class ReadoutConfig:
    """Weights, for each id of a caption: choosing it, being near it, and saying nothing after."""

    choice: float = 1.0
    near: float = 1.0
    nothing: float = 0.3


@dataclass(frozen=True)
class Readout:
    """Sums over a batch's positions (scalars); `choice` counts silence by its weight."""

    choice: Tensor
    near: Tensor


def caption_symbols(rows: Sequence[Sequence[int]], positions: int, nothing: int) -> Tensor:
    """Captions' ids -> [B, L], `nothing` after the end; longer ones are cut.

    IGNORE among the ids holds a place of which nothing is learned.
    """
    symbols = torch.full((len(rows), positions), nothing)
    for row, ids in enumerate(rows):
        kept = list(ids[:positions])
        symbols[row, : len(kept)] = torch.tensor(kept, dtype=torch.long)
    return symbols


def readout(
    connector: PerceiverConnector, x: Tensor, symbols: Tensor, config: ReadoutConfig
) -> Readout:
    """x [B, L, H] from `connector`, symbols [B, L]. Raises ValueError without symbols."""
    scores, table = connector.scores(x), connector.symbol_table
    assert table is not None
    flat = symbols.flatten()
    losses = F.cross_entropy(scores.flatten(0, 1), flat, reduction="none", ignore_index=IGNORE)
    share = torch.where(flat == connector.config.nothing, config.nothing, 1.0)
    size = table.float().square().sum(1).mean()
    away = (x.float() - table.float()[symbols.clamp(min=0)]).square().sum(-1) / size
    return Readout((losses * share).sum(), (away * (symbols != IGNORE)).sum())


@torch.no_grad()
def read_ids(connector: PerceiverConnector, x: Tensor) -> list[list[int]]:
    """What the positions [B, L, H] say: ids without the silence between them."""
    said = connector.scores(x).argmax(-1).tolist()
    return [[i for i in row if i != connector.config.nothing] for row in said]
