"""Two tasks that learn by turns: micro-batches of one, then of the other, on shared modules.

Knows: whose turn it is, and how much one weighs beside the other. Does not know: what they learn.
Costs: nothing beside them.

With an even number of micro-batches an update holds both in equal parts, so that neither pulls the
shared weights away between two updates of the other.
"""

from dataclasses import dataclass
from typing import Any

from lumoomni.train.loop import StepLoss, Task


@dataclass(frozen=True)
class Held:
    """A micro-batch and whose it is."""

    second: bool
    batch: Any


class ByTurns:
    """`first` has the even micro-batches and counts `weight` times; `second` has the odd ones."""

    def __init__(self, first: Task, second: Task, weight: float = 1.0) -> None:
        self.modules = {**first.modules, **second.modules}
        for name in first.modules.keys() & second.modules.keys():
            if first.modules[name] is not second.modules[name]:
                raise ValueError(f"both tasks train a {name}, but not the same one")
        self.echoes = all(getattr(one, "echoes", False) for one in (first, second))
        helpers = [*getattr(first, "helpers", ()), *getattr(second, "helpers", ())]
        self.helpers = tuple(helpers)
        self._tasks, self._weights = (first, second), (weight, 1.0)

    def batch(self, index: int) -> Held:
        return Held(bool(index % 2), self._tasks[index % 2].batch(index // 2))

    def weight(self, batch: Held) -> float:
        return self._weights[batch.second] * self._tasks[batch.second].weight(batch.batch)

    def loss(self, batch: Held) -> StepLoss:
        name = ("first", "second")[batch.second]
        found = self._tasks[batch.second].loss(batch.batch)
        parts = {f"{name}.{part}": value for part, value in found.parts.items()}
        return StepLoss(found.total * self._weights[batch.second], parts)
