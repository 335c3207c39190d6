"""Codes of media in batches that are the codes of each alone.

Knows: that a product over a batch rounds otherwise than one over a single medium, and that a code
changes only where its vector lies within that rounding of the border to another code.
Does not know: codecs. Costs: for small codecs half the time of one by one, or less; a medium that
comes near a border is coded a second time, alone.

A codec says of each medium of a batch whether all of its vectors are clear of the borders by more
than NEAR of the longest one. Rounding has never moved a vector by a sixth of that.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

from torch import nn

from lumoomni.codecs.exact import each

Medium = TypeVar("Medium")
Code = TypeVar("Code")

NEAR = 5e-6
"""Over the longest vector of a medium. Company moved them by up to 7e-7 (LOG.md)."""
ROOM = 8
"""Media of a batch: more gain nothing on a CPU, where their activations leave the cache."""


def in_company(
    groups: Sequence[Sequence[Medium]],
    together: Callable[[Sequence[Medium]], list[Code | None]],
    alone: Callable[[Medium], Code],
    module: nn.Module,
) -> list[Code]:
    """`alone` of each medium of each group in turn, found by `together` wherever that is sure.

    `together` gives None for a medium whose codes its company may have changed. On a CPU as many
    groups at a time as torch has threads.
    """

    def code(group: Sequence[Medium]) -> list[Code]:
        if len(group) == 1:
            return [alone(group[0])]
        found = together(group)
        return [
            alone(one) if made is None else made for one, made in zip(group, found, strict=True)
        ]

    return list(chain.from_iterable(each(code, groups, module)))
