"""Many media together, each with the codes it has alone: batches where rounding cannot tell.

Knows: that a product over a batch rounds otherwise than one over a single medium, and that a code
changes only where its vector lies within that rounding of the border to another code.
Does not know: codecs. Costs: for small codecs half the time of one by one; a medium that comes
near a border is coded a second time, alone.

A codec says of each medium of a batch whether all of its vectors are clear of the borders by more
than NEAR of the longest one. Rounding has never moved a vector by a third of that. What scores of
codes round to is bounded on top of it, where they are compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.codecs.exact import each, exactly

Medium = TypeVar("Medium")
Ready = TypeVar("Ready")
Code = TypeVar("Code")

NEAR = 5e-6
"""Over the longest vector of a medium. Company moved them by up to 1.3e-6 (LOG.md)."""


@dataclass(frozen=True)
class Steps(Generic[Medium, Ready, Code]):
    """What a codec does with media: makes one ready, codes one alone, codes several together.

    `ready` and `alone` never see company. `together` gives None for a medium whose codes its
    company may have changed.
    """

    ready: Callable[[Medium], Ready]
    alone: Callable[[Ready], Code]
    together: Callable[[Sequence[Ready]], Sequence[Code | None]]


def in_company(
    groups: Sequence[Sequence[Medium]],
    steps: Steps[Medium, Ready, Code],
    module: nn.Module,
    name: str,
) -> list[Code]:
    """The codes of each medium of each group in turn, those of a lone one, found together wherever
    that is sure. On a CPU as many groups at a time as torch has threads.

    Raises ValueError when any part of `module`, which is called `name`, is in training mode.
    """

    def code(group: Sequence[Medium]) -> list[Code]:
        made = [steps.ready(one) for one in group]
        found = steps.together(made) if len(made) > 1 else [None]
        told = zip(made, found, strict=True)
        return [steps.alone(one) if codes is None else codes for one, codes in told]

    def exact(group: Sequence[Medium]) -> list[Code]:
        with exactly(module, name):
            return code(group)

    if torch.get_num_threads() > 1 and len(groups) > 1:
        return list(chain.from_iterable(each(exact, groups, module)))
    with exactly(module, name):  # once for all of them
        return [one for group in groups for one in code(group)]


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., n] and weight [m, n] -> [..., m], as `F.linear`, for what is in company already.

    By oneDNN where torch has it: on AMD's processors in half the time of MKL, which `F.linear`
    takes (`lumoomni/arithmetic.py`). It rounds otherwise, and as well. What is exact (exact.py)
    asks torch for its strictest products, which are MKL's, so oneDNN is called by itself here.
    """
    if _ONEDNN is None or x.device.type != "cpu" or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    return _ONEDNN(x, weight, bias, "none", [], "")


def _onednn() -> Any:
    """What torch's own compiler calls for a linear layer; not part of its promised interface."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_ONEDNN = _onednn()
