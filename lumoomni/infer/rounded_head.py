"""The best row of a large head, found by reading a quarter of it.

Knows: that a greedy choice at batch 1 on a CPU takes as long as the head takes to be read. The head
is kept once more as 8-bit numbers; their product names a few candidates, and only those are
multiplied in full. Where the bound on what was rounded away cannot exclude all other rows, the
whole head is read after all, so the ids are those of the whole head.
Does not know: sampling or legal ids. Costs: a quarter of the head's memory, and a C++ compiler.
"""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lumoomni.infer.static_step import compiled
from lumoomni.infer.step import Plan, plan_of
from lumoomni.model.thinker import Thinker

CANDIDATES = 16
"""Rows that are read in full after the rounded head."""
ROUNDED_FROM = 8 << 20
"""Bytes of a head from which a rounded one pays: smaller ones stay in a processor's caches."""
SUMS = 1e-5
"""What float32 sums lose of |hidden| |row|, amply; rounding loses |row - rounded| |hidden| at most
(Cauchy-Schwarz)."""


@dataclass(frozen=True)
class RoundedHead:
    """full [V, D] is nearly rows int8 [V, D] * scale [V]; no logit is off by more than
    |hidden| * `slack` []."""

    full: Tensor
    rows: Tensor
    scale: Tensor
    slack: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        """hidden [1, D] -> the id of the largest logit [1]."""
        graph = compiled(choose, "cpu")  # so that numbers are widened as they are read
        chosen, is_sure = graph(hidden, self.full, self.rows, self.scale, self.slack)
        return chosen if bool(is_sure) else torch.mm(hidden, self.full.t()).argmax(-1)


_ROUNDED: WeakKeyDictionary[Thinker, tuple[Plan, RoundedHead]] = WeakKeyDictionary()


def rounded_head(thinker: Thinker) -> RoundedHead:
    """Made once for the weights that `plan_of` was made for."""
    plan, known = plan_of(thinker), _ROUNDED.get(thinker)
    if known is None or known[0] is not plan:
        known = (plan, round_head(thinker.head_weight().detach()))
        _ROUNDED[thinker] = known
    return known[1]


def round_head(full: Tensor) -> RoundedHead:
    """full: float32 [V, D]."""
    scale = full.abs().amax(1).clamp_min(1e-30) / 127
    rows = (full / scale[:, None]).round().to(torch.int8)
    lost = torch.linalg.vector_norm(full - rows.float() * scale[:, None], dim=1).max()
    return RoundedHead(full, rows, scale, lost + SUMS * torch.linalg.vector_norm(full, dim=1).max())


def pays(head: Tensor, batch: int) -> bool:
    """Whether reading a part of the head [V, D] is worth a second product."""
    size = head.numel() * head.element_size()
    is_large = head.dtype == torch.float32 and size >= ROUNDED_FROM and len(head) > CANDIDATES
    return is_large and head.device.type == "cpu" and batch == 1


def choose(
    hidden: Tensor, full: Tensor, rows: Tensor, scale: Tensor, slack: Tensor
) -> tuple[Tensor, Tensor]:
    """The best of the candidates [1] for hidden [1, D], and whether no other row can be better.

    None can where the best rounded logit outside the candidates, plus all it can have lost, stays
    below the best exact one.
    """
    best = (hidden[:, None] * rows[None].float()).sum(-1).mul(scale).topk(CANDIDATES + 1, dim=-1)
    candidates = best.indices[:, :CANDIDATES]
    exact = (hidden[:, None] * full[candidates[0]][None]).sum(-1)
    top = exact.amax(-1, keepdim=True)
    # Of equals the first, as in an argmax over all.
    chosen = torch.where(exact == top, candidates, len(full)).amin(-1)
    length = hidden.square().sum(-1).sqrt()
    return chosen, (top[:, 0] > best.values[:, CANDIDATES] + length * slack).all()
