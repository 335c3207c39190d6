"""Captions through a frozen Thinker: what a connector learns from.

Knows: batches of pictures with captions, the tower's patches, the connector, the Thinker's loss.
Does not know: where pictures come from, stages, or gates. Costs: the tower's forward (nothing with
kept features), the connector's, and the Thinker's forward and backward without its own gradients.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lumoomni.codecs.text import TextCodec
from lumoomni.data.conversation import Batch
from lumoomni.data.feeding import Feed
from lumoomni.data.sample import UNTOLD, PictureItem
from lumoomni.errors import InputError
from lumoomni.ids import IGNORE
from lumoomni.model.omni import OmniInputs, OmniModel
from lumoomni.model.perceiver import PerceiverConnector
from lumoomni.train.eyes import Eyes
from lumoomni.train.loop import StepLoss
from lumoomni.train.loss import lm_loss, predicting
from lumoomni.train.readout import ReadoutConfig, caption_symbols, readout


@dataclass(frozen=True, kw_only=True)
class AlignObjective:
    """`batches` in the whole run; the Thinker's own loss counts after the share `thinker_from`."""

    readout: ReadoutConfig
    readout_weight: float
    thinker_from: float
    batches: int


@dataclass(frozen=True)
class CaptionBatch:
    """Conversations about pictures, their captions as symbols [B, L], and the progress."""

    batch: Batch
    symbols: Tensor | None
    progress: float


class AlignTask:
    """Captions through a frozen Thinker, and word by word before it."""

    def __init__(
        self, model: OmniModel, feed: Feed, eyes: Eyes, codec: TextCodec, objective: AlignObjective
    ) -> None:
        assert isinstance(model.image_connector, PerceiverConnector)
        self.modules: dict[str, nn.Module] = {"image_connector": model.image_connector}
        self.helpers = (model,)
        self._connector = model.image_connector
        self._model, self._feed, self._eyes, self._codec = model, feed, eyes, codec
        self._objective = objective

    def batch(self, index: int) -> CaptionBatch:
        fed, symbols = self._feed.batch(index), None
        if self._objective.readout_weight:
            rows = [caption_ids(self._codec, item) for item in fed.items]
            shape = self._connector.config
            symbols = caption_symbols(rows, shape.latents, shape.nothing)
        return CaptionBatch(fed.batch, symbols, index / self._objective.batches)

    def weight(self, batch: CaptionBatch) -> float:
        return batch.batch.weight()

    def loss(self, batch: CaptionBatch) -> StepLoss:
        aim, model, made = self._objective, self._model, batch.batch
        x = self._connector(seen(self._eyes, made))
        parts: dict[str, float] = {}
        total = x.new_zeros((), dtype=torch.float32)
        if batch.symbols is not None:
            read = readout(self._connector, x, batch.symbols, aim.readout)
            total = aim.readout.choice * read.choice + aim.readout.near * read.near
            parts |= {"choice": float(read.choice.detach()), "near": float(read.near.detach())}
            total = aim.readout_weight * total
        if batch.progress >= aim.thinker_from:
            inputs = OmniInputs(
                ids=made.ids,
                lengths=made.lengths,
                documents=made.documents,
                numbers=made.numbers,
            )
            asked = predicting(made.labels)
            hidden = model(inputs, self._connector.say(x), asked).hidden
            told = lm_loss(hidden, made.labels, model.thinker.head_weight()).total
            parts["thinker"] = float(told.detach())
            total = total + told
        return StepLoss(total, parts)


def seen(eyes: Eyes, batch: Batch) -> Tensor:
    """Patches [I, N, V] of a batch's pictures: kept ones, or what the tower sees now.

    Raises InputError for a batch without pictures.
    """
    if batch.features is not None:
        return batch.features
    if batch.pixels is None:
        raise InputError("a batch holds no picture to align with; check the data")
    return eyes.patches(batch.pixels)


def caption_ids(codec: TextCodec, item: PictureItem) -> list[int]:
    """The ids of what a picture tells, IGNORE in the place of each word that is left out.

    Captions that leave a word out then keep the others in their places: what is learned of a shape
    in an ink without a name holds for every ink (LOG.md).
    """
    ids: list[int] = []
    for word in (item.told or item.caption).split(" "):
        if word.startswith(UNTOLD):
            ids += [IGNORE, *codec.encode(word.removeprefix(UNTOLD))]
        else:
            ids += codec.encode(f" {word}")
    return ids
