"""Batches and modules to where they are learned from, and back.

Knows: tensors inside dataclasses and tuples. Does not know: what they mean.
Costs: one copy of a batch; nothing at all on a CPU.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def to_device(value: T, device: torch.device) -> T:
    """The same structure with every tensor in it on `device`; what is no tensor stays as it is."""
    found: Any = value
    if isinstance(found, Tensor):
        return found.to(device)  # type: ignore[return-value]
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        fields = {f.name: getattr(found, f.name) for f in dataclasses.fields(found) if f.init}
        moved = {name: to_device(held, device) for name, held in fields.items()}
        if all(moved[name] is fields[name] for name in fields):
            return value
        return dataclasses.replace(found, **moved)  # type: ignore[return-value]
    if isinstance(found, (tuple, list)):
        return type(found)(to_device(held, device) for held in found)  # type: ignore[return-value]
    return value


@contextlib.contextmanager
def resident(modules: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Modules on `device` for a while, and back on the CPU afterwards, where they are measured."""
    held = list(modules)
    if device.type == "cpu":
        yield
        return
    for module in held:
        module.to(device)
    try:
        yield
    finally:
        for module in held:
            module.to("cpu")
