"""Audits of text ability: held-out loss and an n-gram to beat. Measures, never judges.

Costs: one forward over the held-out sequences.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import torch

from lumoomni.codecs.text import TextCodec
from lumoomni.data.conversation import Encoded, collate
from lumoomni.gates import Metric, bootstrap_ratio, wilson
from lumoomni.ids import IGNORE
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.thinker import Thinker
from lumoomni.train.loss import token_losses

TEXTS = 10
"""Held-out texts whose loss is compared, for each item that is asked. Nearly all of the world's are
answered rightly: of 200, one wrong answer was half of the loss, and a ratio of two was chance."""


def heldout_loss(thinker: Thinker, items: Sequence[Encoded], *, batch: int = 64) -> Metric:
    """Nats per supervised token over text-only sequences, with an interval over sequences."""
    return bootstrap_ratio(*heldout_losses(thinker, items, batch=batch))


@torch.no_grad()
def heldout_losses(
    thinker: Thinker, items: Sequence[Encoded], *, batch: int = 64
) -> tuple[list[float], list[float]]:
    """(nats, supervised tokens) of each text-only sequence, computed where the Thinker is."""
    tops: list[float] = []
    counts: list[float] = []
    for first in range(0, len(items), batch):
        made = collate(list(items[first : first + batch])).to(thinker.token_table.weight.device)
        spec = AttentionSpec(lengths=made.lengths)
        hidden = thinker(thinker.embed(made.ids), attention=spec).hidden
        losses = token_losses(hidden, made.labels, thinker.head_weight())
        tops += losses.sum(1).tolist()
        counts += (made.labels[:, 1:] != IGNORE).sum(1).float().tolist()
    return tops, counts


class Ngram:
    """An interpolated n-gram (Jelinek-Mercer) over ids, the baseline that text must beat."""

    def __init__(self, order: int, vocab_size: int) -> None:
        self.order, self.vocab_size = order, vocab_size
        self._counts: list[dict[tuple[int, ...], Counter[int]]] = [
            defaultdict(Counter) for _ in range(order)
        ]

    def learn(self, items: Iterable[Encoded]) -> "Ngram":
        """Count the supervised ids in their contexts; returns itself."""
        for item in items:
            ids, labels = item.sequence.ids.tolist(), item.sequence.labels.tolist()
            for t, label in enumerate(labels):
                if label != IGNORE:
                    for n in range(self.order):
                        self._counts[n][tuple(ids[max(0, t - n) : t])][label] += 1
        return self

    def probability(self, context: Sequence[int], target: int) -> float:
        """Interpolated from the uniform distribution up; more counts weigh more."""
        p = 1.0 / self.vocab_size
        for n in range(self.order):
            seen = self._counts[n].get(tuple(context[len(context) - n :]))
            if seen:
                total = seen.total()
                weight = total / (total + len(seen))
                p = weight * seen[target] / total + (1 - weight) * p
        return p

    def loss(self, items: Sequence[Encoded]) -> Metric:
        """Nats per supervised token."""
        tops, counts = [], []
        for item in items:
            ids, labels = item.sequence.ids.tolist(), item.sequence.labels.tolist()
            where = [t for t, label in enumerate(labels) if label != IGNORE]
            tops.append(-sum(math.log(self.probability(ids[:t], ids[t])) for t in where))
            counts.append(float(len(where)))
        return bootstrap_ratio(tops, counts)


def share_right(flags: Sequence[bool]) -> Metric:
    """The share of True with its 95 % interval."""
    return wilson(sum(flags), len(flags))


def vocabulary_rows(text_codec: TextCodec) -> int:
    """Rows of a text table: the vocabulary, padded to a multiple of 64."""
    return -(-text_codec.vocab_size // 64) * 64
