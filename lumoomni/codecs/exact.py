"""Codes that repeat: evaluation mode, fp32 without shortcuts, one thread, no gradients.

Does not know: codecs. Costs: a tenth of a millisecond a call.

A code is an argmin: the last bit of a product can flip it. TF32 products, autocast, searches for
the fastest kernel, dropout, moving BatchNorms, another number of threads in a product and company
in a batch all change it, so none of them may. Media are therefore coded one by one, each on one
thread; `each` codes many at a time, each on a thread of its own, and gives the very same bits.
What a batch may still do for speed, and when, is `company.py`'s.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import nn

Medium = TypeVar("Medium")
Code = TypeVar("Code")

_lock = threading.Lock()
_inside = 0
_before: list[Any] = []


def _settings() -> list[tuple[Any, str, Any]]:
    """(owner, name, wanted value) of each setting of the process that may change a code."""
    backends: Any = torch.backends
    products = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    products += (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)
    search = [(backends.cudnn, "benchmark", False), (backends.cudnn, "deterministic", True)]
    return [*((one, "fp32_precision", "ieee") for one in products), *search]


@contextlib.contextmanager
def exactly(module: nn.Module, name: str) -> Iterator[None]:
    """What runs inside is fp32, deterministic and without gradients.

    Raises ValueError when any part of `module` is in training mode: `train()` of a parent does it.
    """
    for part, child in module.named_modules():
        if child.training:
            raise ValueError(
                f"{name} is in training mode ({part or 'as a whole'}), so that its codes would "
                "change from call to call; call eval() on it, and keep it out of trained modules"
            )
    kind = next((p.device.type for p in module.parameters()), "cpu")
    with _settled(), _one_thread(), torch.no_grad(), torch.autocast(kind, enabled=False):
        yield


def each(code: Callable[[Medium], Code], media: Sequence[Medium], module: nn.Module) -> list[Code]:
    """`code` of each, in order. On a CPU as many at a time as torch has threads."""
    threads = min(torch.get_num_threads(), len(media))
    on_cpu = all(p.device.type == "cpu" for p in module.parameters())
    if threads < 2 or not on_cpu:
        return [code(one) for one in media]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(code, media))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Products of this thread run on it alone; how many it had is put back."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _settled() -> Iterator[None]:
    """fp32 products stay fp32. Settings are the process's: the last thread out puts them back."""
    global _inside
    with _lock:
        if not _inside:
            _before[:] = [getattr(owner, name) for owner, name, _ in _settings()]
            for owner, name, wanted in _settings():
                setattr(owner, name, wanted)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                for (owner, name, _), value in zip(_settings(), _before, strict=True):
                    setattr(owner, name, value)
