"""Answers to conversations with media: what a Thinker with eyes and ears learns from.

Knows: batches of conversations, their loss, and how far the Thinker's states on plain text moved.
Does not know: which parts learn at what rate, data, stages or gates.
Costs: the model's forward and backward; holding the states, one forward more for rows of text.
"""

import copy

from torch import nn

from lumoomni.data.conversation import Batch, Encoded, collate
from lumoomni.data.grouping import LengthGroups
from lumoomni.model.omni import OmniInputs, OmniModel
from lumoomni.model.thinker import Thinker
from lumoomni.train.hold import drift, of_text
from lumoomni.train.loop import StepLoss
from lumoomni.train.loss import lm_loss, predicting


class InstructTask:
    """Answers to conversations with media; on text alone, the Thinker's states stay as they were:
    as those of `before`, or else as they are now (`train/hold.py`)."""

    echoes = True

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
            numbers=batch.numbers,
        )
        asked = predicting(batch.labels)
        if self._before is not None:
            asked |= of_text(self._before, batch.ids, batch.lengths)
        hidden = self._model(inputs, asked=asked).hidden
        result = lm_loss(hidden, batch.labels, self._model.thinker.head_weight())
        if self._before is None:
            return StepLoss(result.total, {})
        held = drift(self._before, hidden, batch.ids, batch.lengths) * result.count
        return StepLoss(result.total + self._hold * held, {"held": float(held.detach())})
