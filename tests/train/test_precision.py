"""bfloat16 is used where it is faster: by what the processor is, not by what it can."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lumoomni import arithmetic
from lumoomni.train import precision
from lumoomni.train.precision import bf16_supported

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("maker", "amx", "avx", "pays"),
    [
        ("GenuineIntel", True, True, True),
        ("GenuineIntel", False, True, False),
        ("AuthenticAMD", False, True, True),
        ("AuthenticAMD", False, False, False),
        ("", False, True, False),
    ],
)
def test_a_processor_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch, maker: str, amx: bool, avx: bool, pays: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    text = f"processor\t: 0\nvendor_id\t: {maker}\nflags\t\t: avx512_bf16\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    monkeypatch.setattr(arithmetic.platform, "processor", lambda: "")
    precision._bf16_pays.cache_clear()
    try:
        assert bf16_supported(CPU) is pays
    finally:
        precision._bf16_pays.cache_clear()


def test_without_proc_the_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(arithmetic.platform, "processor", lambda: "AMD64 AuthenticAMD")
    assert "AMD" in arithmetic.maker()
