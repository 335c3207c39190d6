"""How a processor computes float32 quickly: whose it is, and by which library.

Knows: kinds of processors, torch's settings. Does not know: models, or what is computed.
Costs: one file read and one small product, once.
"""

import contextlib
import platform
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

EXACT = 1e-5
"""Largest error of a product of standard normal numbers, over the root of its length: float32 has a
fifth of that, numbers cut down to bfloat16 a thousand times as much."""


def maker() -> str:
    """Who made this processor, in its own words: GenuineIntel, AuthenticAMD."""
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return platform.processor()
    found = re.search(r"^vendor_id\s*:\s*(\S+)", known, re.MULTILINE)
    return found[1] if found else platform.processor()


@contextlib.contextmanager
def quick_float32() -> Iterator[None]:
    """Within, this process makes float32 products by the quicker of torch's two CPU libraries.

    torch gives them to MKL, which on AMD's processors keeps to half of their width; oneDNN uses all
    of it (2.2 times as fast on a Zen 5, `python -m benchmarks.precision`), but is only asked where
    products in bfloat16 would be allowed. It makes none without AMX, and a product shows whether
    that is so; where it is not, and on other processors, nothing changes. Both round as float32
    does, and not always alike.
    """
    if not _onednn_is_quicker():
        yield
        return
    with _asking_onednn():
        yield


@cache
def _onednn_is_quicker() -> bool:
    import torch

    if "AMD" not in maker() or not torch.backends.mkldnn.is_available():
        return False
    if torch.cpu._is_amx_tile_supported() or not torch.cpu._is_avx512_bf16_supported():
        return False
    stream = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, 192, generator=stream) for _ in range(2))
    with _asking_onednn():
        return is_float32(a @ b.T, a, b)


def is_float32(product: "torch.Tensor", a: "torch.Tensor", b: "torch.Tensor") -> bool:
    """Whether `product` is a [N, D] times b [M, D], transposed, as exactly as float32 makes it."""
    error = (product.double() - a.double() @ b.double().T).abs().max()
    return float(error) < EXACT * a.shape[1] ** 0.5


@contextlib.contextmanager
def _asking_onednn() -> Iterator[None]:
    import torch

    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before
