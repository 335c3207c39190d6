"""How well a model predicts tokenized samples, task by task, and whether it looks at what is given.

Knows: sequences of a task, held-out losses, the same with another sample's source or with none,
and what chance and mere frequencies would reach. Does not know: thresholds.
Costs: three forwards a sample, the head's at its supervised positions alone.

Sources are swapped across samples, whole: shuffling inside a clip would leave what it holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lumoomni.audits.ablation import strangers
from lumoomni.data.conversation import Batch, Encoded, collate
from lumoomni.errors import InputError
from lumoomni.gates import Metric, bootstrap_ratio, wilson
from lumoomni.ids import IGNORE
from lumoomni.model.rows import RowThinker
from lumoomni.train.row_loss import row_token_losses
from lumoomni.train.tokens import states_of
from lumoomni.uti.grammar import PAD
from lumoomni.uti.sequence import Sequence as Ids
from lumoomni.uti.space import TokenSpace
from lumoomni.uti.tasks import Composer, Part, Tokens, parts_of

CONDITIONS = ("correct", "swapped", "empty")


@dataclass(frozen=True)
class TaskScores:
    """losses[condition][i]: nats over sample i's `counts[i]` learned ids; and of the baselines."""

    task: str
    losses: dict[str, list[float]]
    counts: list[float]
    uniform: list[float]
    unigram: list[float]

    def metrics(self) -> dict[str, Metric]:
        """Token-weighted losses, gains over each condition with paired intervals, and wins."""
        name, right = f"tokens.{self.task}", self.losses["correct"]
        found = {
            f"{name}.loss": bootstrap_ratio(right, self.counts),
            f"{name}.uniform": bootstrap_ratio(self.uniform, self.counts),
            f"{name}.unigram": bootstrap_ratio(self.unigram, self.counts),
        }
        for other in CONDITIONS[1:]:
            if other in self.losses:
                pairs = list(zip(self.losses[other], right, strict=True))
                gain = bootstrap_ratio([a - b for a, b in pairs], self.counts)
                found[f"{name}.{other}_over_correct"] = gain
                found[f"{name}.wins_over_{other}"] = wilson(
                    sum(a > b for a, b in pairs), len(pairs)
                )
        return found


class Frequencies:
    """How often each id was a target of a task in training, within its range; ones are added."""

    def __init__(self, space: TokenSpace) -> None:
        self._space = space
        self._counts = np.ones(space.size)
        self._range = np.concatenate(
            [np.full(one.size, place) for place, one in enumerate(space.ranges)]
        )

    def learn(self, made: Sequence[Ids]) -> "Frequencies":
        """Count the targets of training sequences."""
        for one in made:
            np.add.at(self._counts, one.labels[one.labels != IGNORE], 1)
        return self

    def nats(self, made: Ids) -> tuple[float, float]:
        """(uniform, unigram) nats of a sequence's targets, markers free of charge: the grammar
        leaves them no choice but where a text or a sound ends."""
        ids = made.labels[made.labels != IGNORE]
        special = self._space.named("SPECIAL")
        ids = ids[(ids < special.start) | (ids > special.end)]
        places = self._range[ids]
        sizes = np.array([one.size for one in self._space.ranges])
        totals = np.bincount(self._range, weights=self._counts)
        uniform = np.log(sizes[places]).sum()
        unigram = (np.log(totals[places]) - np.log(self._counts[ids])).sum()
        return float(uniform), float(unigram)


def score_task(
    model: RowThinker,
    space: TokenSpace,
    task: str,
    samples: Sequence[Tokens],
    frequencies: Frequencies,
    *,
    limit: int = 0,
    batch: int = 16,
) -> TaskScores:
    """Score held-out samples; left out are those that some condition makes longer than `limit`.

    A text that was cut in one condition alone would be measured over other ids than in the rest.
    Raises InputError when no two sources differ or nothing fits, ValueError for none.
    """
    composer = Composer(space)
    given = {name: parts for name, parts in _conditions(task, samples).items() if parts}
    made = {name: [compose(composer, parts) for parts in rows] for name, rows in given.items()}
    if limit:
        made = _fitting(task, made, limit)
    losses = {name: _score(model, space, rows, batch) for name, rows in made.items()}
    right = made["correct"]
    nats = [frequencies.nats(one) for one in right]
    return TaskScores(
        task=task,
        losses=losses,
        counts=[float((one.labels[1:] != IGNORE).sum()) for one in right],
        uniform=[one[0] for one in nats],
        unigram=[one[1] for one in nats],
    )


def _fitting(task: str, made: dict[str, list[Ids]], limit: int) -> dict[str, list[Ids]]:
    """The samples that fit in every condition."""
    longest = [max(len(one.ids) for one in rows) for rows in zip(*made.values(), strict=True)]
    fits = [k for k, length in enumerate(longest) if length <= limit]
    if not fits:
        raise InputError(
            f"none of the {len(longest)} held-out samples of {task} fits into {limit} ids, the "
            f"shortest takes {min(longest)}; raise the context"
        )
    return {name: [rows[k] for k in fits] for name, rows in made.items()}


def _conditions(task: str, samples: Sequence[Tokens]) -> dict[str, list[tuple[Part, ...]]]:
    """Parts of every sample as they are, with another one's source, and with an empty text."""
    own = [parts_of(task, sample) for sample in samples]
    if not own:
        raise ValueError(f"no sample of task {task} to score")
    found = {"correct": own}
    if any(not part.target for part in own[0]):
        names = [_source(parts) for parts in own]
        if len(set(names)) < 2:
            raise InputError(
                f"all {len(own)} held-out samples of {task} have the same source, so that nothing "
                "can be learned of it; look whether the codec passed its gate"
            )
        order = strangers(names)
        found["swapped"] = [_lent(parts, own[k]) for parts, k in zip(own, order, strict=True)]
        if task.startswith("t"):
            found["empty"] = [_emptied(parts) for parts in own]
    return found


def _source(parts: tuple[Part, ...]) -> str:
    return "|".join(str(part.codes.tolist()) for part in parts if not part.target)


def _lent(own: tuple[Part, ...], other: tuple[Part, ...]) -> tuple[Part, ...]:
    """Another sample's source before one's own target."""
    return (*(p for p in other if not p.target), *(p for p in own if p.target))


def _emptied(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    return tuple(p if p.target else replace(p, codes=p.codes[:0]) for p in parts)


def compose(composer: Composer, parts: Sequence[Part]) -> Ids:
    """A sequence; a source text of nothing keeps its two markers."""
    empty = [len(part.codes) == 0 for part in parts]
    if not any(empty):
        return composer.compose(list(parts))
    filled = [
        replace(part, codes=np.zeros(1, np.int64)) if blank else part
        for part, blank in zip(parts, empty, strict=True)
    ]
    whole = composer.compose(filled)
    drop = [span.start for span, blank in zip(whole.spans, empty, strict=True) if blank]
    return Ids(np.delete(whole.ids, drop), np.delete(whole.labels, drop), (), ())


@torch.no_grad()
def _score(model: RowThinker, space: TokenSpace, rows: Sequence[Ids], batch: int) -> list[float]:
    """Nats of each sequence's targets."""
    pad, found = space.special(PAD), []
    base, new = model.thinker.head_weight(), model.rows.head_rows()
    for first in range(0, len(rows), batch):
        part = [Encoded(sequence=one, pixels=(), mels=()) for one in rows[first : first + batch]]
        made: Batch = collate(part, pad).to(new.device)
        hidden, _ = states_of(model, made)
        found += row_token_losses(hidden, made.labels, base, new).sum(1).tolist()
    return found
