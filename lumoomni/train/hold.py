"""Learning without forgetting (arXiv 1606.09282), on states: plain text is read as it was before.

Knows: states of batches, a Thinker as it was, which rows of a batch are text alone.
Does not know: what is learned beside. Costs: the older Thinker's forward, for rows of text.

States rather than answers, for the Talker reads them too, and was made for the old ones.
"""

import torch
from torch import Tensor

from lumoomni.model.attention import AttentionSpec
from lumoomni.model.thinker import Thinker


def of_text(before: Thinker, ids: Tensor, lengths: Tensor) -> Tensor:
    """bool [B, T]: the tokens of rows in which every id is one of `before`'s own."""
    real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    known = (ids >= 0) & (ids < before.config.vocab_size)
    return real & (known | ~real).all(1, keepdim=True)


def drift(before: Thinker, hidden: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """How far the states of rows of plain text are from what they were, as a share of their size.

    hidden [B, T, D] of ids [B, T]; a mean over the tokens of the rows in which every id is one of
    `before`'s own, 0 where there is no such row.
    """
    real = of_text(before, ids, lengths)
    rows = real.any(1).nonzero()[:, 0]
    if not len(rows):
        return hidden.new_zeros(())
    real = real[rows]
    with torch.no_grad():
        shown = torch.where(real, ids[rows], 0)
        wanted = before(before.embed(shown), attention=AttentionSpec(lengths=lengths[rows]))
    old, new = wanted.hidden[real].float(), hidden[rows][real].float()
    return (new - old).square().sum() / old.square().sum()
