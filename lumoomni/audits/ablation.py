"""Does a model use its pictures? Teacher-forced loss with the right ones and with wrong ones.

Knows: captions with pictures, four kinds of wrong features, paired differences with intervals.
Does not know: thresholds. Costs: up to two forwards of the tower and five of the Thinker an item.

Every item is scored under every condition, and differences are resampled by item (a paired
bootstrap), so that what is hard about an item cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lumoomni.data.conversation import Encoded, collate
from lumoomni.errors import InputError
from lumoomni.gates import Metric, bootstrap_ratio, wilson
from lumoomni.ids import IGNORE
from lumoomni.model.omni import OmniInputs, OmniModel, device_of
from lumoomni.train.loss import token_losses

EMPTY = ("zero", "noise")


@dataclass(frozen=True)
class Ablation:
    """losses[condition][i]: nats summed over item i's supervised tokens; counts[i] of them."""

    losses: dict[str, list[float]]
    counts: list[float]

    def loss(self, condition: str) -> Metric:
        """Nats a supervised token."""
        return bootstrap_ratio(self.losses[condition], self.counts)

    def gain(self, better: str, worse: str) -> Metric:
        """How much lower the loss is under `better`, nats a token, with its paired interval."""
        pairs = zip(self.losses[better], self.losses[worse], strict=True)
        return bootstrap_ratio([b - a for a, b in pairs], self.counts)

    def metrics(self) -> dict[str, Metric]:
        """Losses by condition, and each step of correct < shuffled < zero, noise."""
        found = {f"ablation.loss.{name}": self.loss(name) for name in self.losses}
        found["ablation.shuffled_over_correct"] = self.gain("correct", "shuffled")
        for name in EMPTY:
            for better in ("correct", "shuffled"):
                found[f"ablation.{name}_over_{better}"] = self.gain(better, name)
        if "twin" in self.losses:
            found["ablation.twin_over_correct"] = self.gain("correct", "twin")
        return found


def ablate(
    model: OmniModel,
    items: Sequence[Encoded],
    names: Sequence[str],
    *,
    twins: Sequence[Encoded] | None = None,
    seed: int = 0,
    batch: int = 64,
) -> Ablation:
    """Score `items` (one or more pictures each) under every condition, where the model is.

    Who shows more pictures than the one that lends them gets those again from the first. `names`
    say which items may not lend each other their pictures (equal captions). `twins` hold pictures
    that differ from the items' in one attribute, with the same text. Raises ValueError when every
    item has the same name, or one has no picture.
    """
    order = strangers(names)
    own = _features(model, items, batch)
    source = torch.Generator().manual_seed(seed)
    noise = torch.randn(own.shape, generator=source).to(own.device)
    wrong: dict[str, Tensor] = {
        "correct": own,
        "shuffled": own[_lent([len(item.pixels) for item in items], order)],
        "zero": torch.zeros_like(own),
        "noise": noise.to(own.dtype) * own.std() + own.mean(),
    }
    if twins is not None:
        wrong["twin"] = _features(model, twins, batch)
    losses, counts = {}, []
    for name, features in wrong.items():
        losses[name], counts = _score(model, items, features, batch)
    return Ablation(losses, counts)


def strangers(names: Sequence[str]) -> list[int]:
    """For each item another one with another name; a rotation, so that each lends once if it can.

    Raises InputError when no two names differ.
    """
    count = len(names)
    if len(set(names)) < 2:
        called = f"all called {names[0]!r}" if names else "none at all"
        raise InputError(
            f"the {count} held-out items are {called}, so that no other one can take its place; "
            "hold out more of them"
        )
    chosen = []
    for i, name in enumerate(names):
        chosen.append(next(j for k in range(1, count) if names[j := (i + k) % count] != name))
    return chosen


def _lent(counts: Sequence[int], order: Sequence[int]) -> list[int]:
    """For each picture of each item the picture that its stranger lends in its place."""
    first = [sum(counts[:i]) for i in range(len(counts))]
    return [
        first[other] + k % counts[other]
        for own, other in enumerate(order)
        for k in range(counts[own])
    ]


@torch.no_grad()
def _features(model: OmniModel, items: Sequence[Encoded], batch: int) -> Tensor:
    """Connector outputs of all items' pictures [I, L, D]."""
    found = []
    for first in range(0, len(items), batch):
        part = list(items[first : first + batch])
        pixels = collate(part).pixels
        if pixels is None or not all(item.pixels for item in part):
            raise ValueError("an item to ablate has no picture")
        found.append(model.image_features(pixels.to(device_of(model))))
    return torch.cat(found)


@torch.no_grad()
def _score(
    model: OmniModel, items: Sequence[Encoded], features: Tensor, batch: int
) -> tuple[list[float], list[float]]:
    """Each item's loss, and its number of supervised tokens, when it is given `features`."""
    losses: list[float] = []
    counts: list[float] = []
    shown = 0
    for first in range(0, len(items), batch):
        part = list(items[first : first + batch])
        made = replace(collate(part), pixels=None).to(device_of(model))
        pictures = sum(len(item.pixels) for item in part)
        images = features[shown : shown + pictures]
        shown += pictures
        inputs = OmniInputs(ids=made.ids, lengths=made.lengths, numbers=made.numbers)
        hidden = model(inputs, images).hidden
        found = token_losses(hidden, made.labels, model.thinker.head_weight())
        losses += found.sum(1).tolist()
        counts += (made.labels[:, 1:] != IGNORE).sum(1).float().tolist()
    return losses, counts


def by_length(ablation: Ablation, edges: tuple[int, int]) -> dict[str, Metric]:
    """Loss under the right pictures for short, medium and long answers (up to each edge)."""
    counts = np.asarray(ablation.counts)
    right = np.asarray(ablation.losses["correct"])
    group = np.digitize(counts, np.asarray(edges) + 0.5)
    found = {}
    for place, name in enumerate(("short", "medium", "long")):
        chosen = group == place
        if chosen.any():
            metric = bootstrap_ratio(right[chosen].tolist(), counts[chosen].tolist())
            found[f"caption.loss.{name}"] = metric
    return found


def label_facts(items: Sequence[Encoded], most: int) -> dict[str, Metric]:
    """Share of items over `most` positions, of those without a label within, and labels an item."""
    labels = [int((item.sequence.labels[1:most] != IGNORE).sum()) for item in items]
    long = sum(len(item) > most for item in items)
    return {
        "labels.none": wilson(sum(count == 0 for count in labels), len(items)),
        "labels.truncated": wilson(long, len(items)),
        "labels.mean": bootstrap_ratio([float(x) for x in labels], [1.0] * len(items)),
    }
