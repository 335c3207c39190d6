"""float32 products by the quicker library: only where it is quicker, and never less exact."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lumoomni import arithmetic
from lumoomni.arithmetic import is_float32, maker, quick_float32


def asked() -> str:
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    return products.fp32_precision


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes this machine look like another."""

    def be(who: str, *, amx: bool = False, avx: bool = True) -> None:
        text = f"processor\t: 0\nvendor_id\t: {who}\nflags\t\t: avx512_bf16\n"
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
        arithmetic._onednn_is_quicker.cache_clear()

    yield be
    arithmetic._onednn_is_quicker.cache_clear()


@pytest.mark.parametrize(
    ("who", "amx", "avx"),
    [("GenuineIntel", False, True), ("AuthenticAMD", True, True), ("AuthenticAMD", False, False)],
)
def test_other_processors_keep_to_their_library(
    processor: Any, who: str, amx: bool, avx: bool
) -> None:
    processor(who, amx=amx, avx=avx)
    before = asked()
    with quick_float32():
        assert asked() == before


@pytest.mark.parametrize("exact", [True, False])
def test_amd_is_asked_otherwise_within_alone_and_where_that_is_exact(
    processor: Any, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    processor("AuthenticAMD")
    monkeypatch.setattr(arithmetic, "is_float32", lambda *_: exact)
    before = asked()
    with pytest.raises(RuntimeError, match="ends badly"), quick_float32():
        assert asked() == ("bf16" if exact else before)
        raise RuntimeError("it ends badly")
    assert asked() == before


def test_float32_is_told_from_bfloat16() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(64, 192), torch.randn(64, 192)
    assert is_float32(a @ b.T, a, b)
    assert not is_float32((a.bfloat16() @ b.bfloat16().T).float(), a, b)
    assert not is_float32(a.bfloat16().float() @ b.T, a, b)


@pytest.mark.parametrize("shape", [(1, 7, 3), (500, 192, 512), (33, 512, 1000)])
def test_products_here_are_those_of_float32(shape: tuple[int, int, int]) -> None:
    """On this machine, whatever it is, forward and backward."""
    torch.manual_seed(0)
    rows, width, wide = shape
    x = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(wide, width, requires_grad=True)
    with quick_float32():
        made = torch.nn.functional.linear(x, weight)
        (made * made.detach()).sum().backward()
    assert x.grad is not None and weight.grad is not None
    assert is_float32(made.detach(), x.detach(), weight.detach())
    slope = made.detach()
    assert is_float32(x.grad / wide**0.5, slope / wide**0.5, weight.detach().T.contiguous())
    assert is_float32(weight.grad / rows**0.5, slope.T / rows**0.5, x.detach().T.contiguous())


def test_who_made_it_is_read() -> None:
    assert maker()
