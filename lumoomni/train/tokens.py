"""Sequences of ids of one space through a Thinker with new rows: what both row stages learn from.

Knows: batches of ids, the two-block loss, and its sums by what is predicted (text, picture, sound).
Does not know: shards, stages or gates; which parts learn is what asks for gradients.
Costs: the Thinker's forward and backward; the head's only at supervised positions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lumoomni.data.conversation import Batch
from lumoomni.ids import IGNORE
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.routed import matrices
from lumoomni.model.rows import RowThinker
from lumoomni.model.thinker import Thinker
from lumoomni.train.hold import drift, of_text
from lumoomni.train.loop import StepLoss
from lumoomni.train.loss import predicting
from lumoomni.train.row_loss import RowLoss, row_loss
from lumoomni.uti.space import TokenSpace


@dataclass(frozen=True)
class Hold:
    """On rows of text alone, states stay near those of `before`, which is frozen; how strongly."""

    before: Thinker
    weight: float


class TokenTask:
    """Next-id prediction over the base's ids and the new ones. `batches` is pure.

    An id of text counts `text_weight` times one of a picture or sound, of which there are more.
    """

    echoes = True

    def __init__(
        self,
        model: RowThinker,
        space: TokenSpace,
        batches: Callable[[int], Batch],
        *,
        z_loss: float = 0.0,
        aux_weight: float = 0.0,
        text_weight: float = 1.0,
        hold: Hold | None = None,
    ) -> None:
        learns: dict[str, nn.Module] = {"rows": model.rows, "thinker": model.thinker}
        if model.maker is not None:
            learns["maker"] = matrices(model.maker)
        self.modules: dict[str, nn.Module] = {
            name: module
            for name, module in learns.items()
            if any(p.requires_grad for p in module.parameters())
        }
        self.helpers = (model,) if hold is None else (model, hold.before)
        self._model, self._batches, self._z, self._aux = model, batches, z_loss, aux_weight
        self._text, self._hold = text_weight, hold
        self._kinds = Kinds(space)

    def batch(self, index: int) -> Batch:
        return self._batches(index)

    def weight(self, batch: Batch) -> float:
        return batch.weight()

    def loss(self, batch: Batch) -> StepLoss:
        asked = predicting(batch.labels)
        if self._hold is not None:
            asked |= of_text(self._hold.before, batch.ids, batch.lengths)
        hidden, balance = states_of(self._model, batch, asked)
        total, parts = self._weighed(hidden, batch.labels)
        if balance is not None:
            total = total + self._aux * batch.weight() * balance
        if self._hold is not None:
            held = drift(self._hold.before, hidden, batch.ids, batch.lengths) * batch.weight()
            total, parts = total + self._hold.weight * held, {**parts, "held": float(held.detach())}
        return StepLoss(total, parts)

    def _weighed(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss with text's own weight, and sums of it by kind without."""
        if self._text == 1:
            found = loss_of(self._model, hidden, labels, z_loss=self._z)
            return found.total, self._kinds.sums(found.each, found.targets)
        text = (labels >= 0) & (labels < self._model.rows.config.start)
        total, parts = hidden.new_zeros(()), dict[str, float]()
        for weight, kept in ((self._text, text), (1.0, ~text)):
            found = loss_of(self._model, hidden, labels.where(kept, IGNORE), z_loss=self._z)
            total = total + weight * found.total
            parts |= self._kinds.sums(found.each, found.targets)
        return total, parts


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


def states_of(
    model: RowThinker, batch: Batch, asked: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """(hidden [B, T, D], the balancing loss of experts if there are any) of a batch; `asked` bool
    [B, T] names the states that will be read."""
    spec = AttentionSpec(lengths=batch.lengths, documents=batch.documents)
    out = model(batch.ids, spec, asked=asked)
    return out.hidden, out.aux_loss


def loss_of(model: RowThinker, hidden: Tensor, labels: Tensor, *, z_loss: float = 0.0) -> RowLoss:
    """The two-block loss of hidden [B, T, D] against labels [B, T]."""
    base, rows = model.thinker.head_weight(), model.rows.learned_head()
    return row_loss(hidden, labels, base, rows, z_loss=z_loss)
