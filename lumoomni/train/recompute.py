"""Activation checkpointing while a stage trains: less is kept, and layers are computed twice.

Knows: which modules can compute their layers again. Does not know: stages or losses.
Costs: one more forward of these layers an update; of each, only its input is kept.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from lumoomni.errors import InputError
from lumoomni.model.thinker import Thinker


@contextmanager
def recomputing(modules: Iterable[nn.Module], on: bool) -> Iterator[None]:
    """Within, every Thinker among `modules` keeps its layers' inputs alone, if `on`.

    Raises InputError where there is none, for then nothing would be saved.
    """
    found = {part for module in modules for part in module.modules() if isinstance(part, Thinker)}
    if on and not found:
        raise InputError(
            "loop.checkpointing is on, but this stage trains through no Thinker, whose layers "
            "alone are computed again; set it to false"
        )
    before = {thinker: thinker.checkpointing for thinker in found}
    for thinker in found:
        thinker.checkpointing = on
    try:
        yield
    finally:
        for thinker, was in before.items():
            thinker.checkpointing = was
