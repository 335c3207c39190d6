"""Answers to conversations with media: what a Thinker with eyes and ears learns from.

Knows: batches of conversations, their loss, and how far the Thinker's states on plain text moved.
Does not know: which parts learn at what rate, data, stages or gates.
Costs: the model's forward and backward; holding the states, one forward more for rows of text.
"""

import copy

import torch
from torch import Tensor, nn

from lumoomni.data.conversation import Batch, Encoded, collate
from lumoomni.data.grouping import LengthGroups
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.omni import OmniInputs, OmniModel
from lumoomni.model.thinker import Thinker
from lumoomni.train.loop import StepLoss
from lumoomni.train.loss import lm_loss


class InstructTask:
    """Answers to conversations with media; on text alone, the Thinker's states stay as they were.

    Learning without forgetting (arXiv 1606.09282), on states instead of answers: the Talker reads
    them too, and was made for the old ones: those of `before`, or else of the Thinker as it is.
    """

    def __init__(
        self,
        model: OmniModel,
        groups: LengthGroups[Encoded],
        hold_weight: float = 0.0,
        before: Thinker | None = None,
    ) -> None:
        assert model.image_connector is not None and model.audio_connector is not None
        self.modules: dict[str, nn.Module] = {
            "thinker": model.thinker,
            "image_connector": model.image_connector,
            "audio_connector": model.audio_connector,
        }
        self._model, self._groups, self._hold = model, groups, hold_weight
        self._before: Thinker | None = None
        if hold_weight:
            self._before = (copy.deepcopy(model.thinker) if before is None else before).eval()
        self.helpers = (model,) if self._before is None else (model, self._before)

    def batch(self, index: int) -> Batch:
        return collate(self._groups.batch(index))

    def weight(self, batch: Batch) -> float:
        return batch.weight()

    def loss(self, batch: Batch) -> StepLoss:
        inputs = OmniInputs(
            ids=batch.ids,
            lengths=batch.lengths,
            pixels=batch.pixels,
            mels=batch.mels,
            mel_lengths=batch.mel_lengths,
        )
        hidden = self._model(inputs).hidden
        result = lm_loss(hidden, batch.labels, self._model.thinker.head_weight())
        if self._before is None:
            return StepLoss(result.total, {})
        held = drift(self._before, hidden, batch) * result.count
        return StepLoss(result.total + self._hold * held, {"held": float(held.detach())})


def drift(before: Thinker, hidden: Tensor, batch: Batch) -> Tensor:
    """How far the states of rows of plain text are from what they were, as a share of their size.

    hidden [B, T, D] of the batch; a mean over the rows' tokens, 0 where no row is text alone.
    """
    rows = ((batch.ids >= 0).all(1)).nonzero()[:, 0]
    if not len(rows):
        return hidden.new_zeros(())
    lengths = batch.lengths[rows]
    with torch.no_grad():
        wanted = before(before.embed(batch.ids[rows]), attention=AttentionSpec(lengths=lengths))
    real = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
    old, new = wanted.hidden[real].float(), hidden[rows][real].float()
    return (new - old).square().sum() / old.square().sum()
