"""Sequences of ids of one space through a Thinker with new rows: what both row stages learn from.

Knows: batches of ids, the two-block loss, and its sums by what is predicted (text, picture, sound).
Does not know: shards, stages or gates; which parts learn is what asks for gradients.
Costs: the Thinker's forward and backward; the head's only at supervised positions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lumoomni.data.conversation import Batch
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.rows import RowThinker
from lumoomni.train.loop import StepLoss
from lumoomni.train.row_loss import RowLoss, row_loss
from lumoomni.uti.space import TokenSpace


class TokenTask:
    """Next-id prediction over the base's ids and the new ones. `batches` is pure."""

    def __init__(
        self,
        model: RowThinker,
        space: TokenSpace,
        batches: Callable[[int], Batch],
        *,
        z_loss: float = 0.0,
        aux_weight: float = 0.0,
    ) -> None:
        learns = {"rows": model.rows, "thinker": model.thinker}
        self.modules: dict[str, nn.Module] = {
            name: module
            for name, module in learns.items()
            if any(p.requires_grad for p in module.parameters())
        }
        self.helpers = (model,)
        self._model, self._batches, self._z, self._aux = model, batches, z_loss, aux_weight
        self._kinds = Kinds(space)

    def batch(self, index: int) -> Batch:
        return self._batches(index)

    def weight(self, batch: Batch) -> float:
        return batch.weight()

    def loss(self, batch: Batch) -> StepLoss:
        hidden, balance = states_of(self._model, batch)
        found = loss_of(self._model, hidden, batch.labels, z_loss=self._z)
        total = found.total
        if balance is not None:
            total = total + self._aux * found.count * balance
        return StepLoss(total, self._kinds.sums(found.each, found.targets))


class Kinds:
    """Sums of losses by the kind of what is predicted; markers count as `marks`."""

    def __init__(self, space: TokenSpace) -> None:
        self.names = ("text", "marks", "image", "audio")
        table = {"TEXT": 0, "SPECIAL": 1, "IMAGE": 2}
        numbers = [table.get(one.name, 3) for one in space.ranges]
        self._starts = torch.tensor([one.start for one in space.ranges[1:]])
        self._numbers = torch.tensor(numbers)

    def of(self, ids: Tensor) -> Tensor:
        """Number of each id's kind in `names`."""
        place = torch.bucketize(ids, self._starts.to(ids.device), right=True)
        return self._numbers.to(ids.device)[place]

    def sums(self, each: Tensor, targets: Tensor) -> dict[str, float]:
        """Nats of each kind that occurs."""
        kinds = self.of(targets)
        sums = torch.zeros(len(self.names), device=each.device).index_add_(0, kinds, each)
        counts = torch.bincount(kinds, minlength=len(self.names)).tolist()
        totals = sums.tolist()
        return {n: s for n, s, c in zip(self.names, totals, counts, strict=True) if c}


def states_of(model: RowThinker, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """(hidden [B, T, D], the balancing loss of experts if there are any) of a batch."""
    spec = AttentionSpec(lengths=batch.lengths, documents=batch.documents)
    out = model.thinker(model.embed(batch.ids), attention=spec)
    return out.hidden, out.aux_loss


def loss_of(model: RowThinker, hidden: Tensor, labels: Tensor, *, z_loss: float = 0.0) -> RowLoss:
    """The two-block loss of hidden [B, T, D] against labels [B, T]."""
    base, rows = model.thinker.head_weight(), model.rows.head_rows()
    return row_loss(hidden, labels, base, rows, z_loss=z_loss)
