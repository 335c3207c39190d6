"""RMSNorm and rotary positions, the two elementwise passes that every decoder layer repeats.

Knows: norms over the last axis and rotations of halves (the Hugging Face layout of rotary pairs).
Does not know: layers, masks or caches.
Costs: one read and one write of the activations each; statistics are always in float32.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.fused import (
    HeadNormRopeFunction,
    RMSNormFunction,
    SwiGLUFunction,
    swap_halves,
)
from lumoomni.shapes import POSITIONS, round_up


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if not hand_written():
            out = F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)
            return out.to(working_dtype(x)) if torch.is_grad_enabled() else out
        out = RMSNormFunction.apply(x, self.weight, self.eps, working_dtype(x))
        assert isinstance(out, Tensor)
        return out


def hand_written() -> bool:
    """Whether to use fused.py: when training eagerly. A compiler fuses the plain forms itself."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype that matrix products will use on x: autocast's where it is on, else x's own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [..., K] by tables that broadcast against it; sin's first half carries the minus."""
    return torch.addcmul(x * cos, swap_halves(x), sin)


def head_norm_rope(
    qk: Tensor, scale: Tensor | None, rope: tuple[Tensor, Tensor] | None, eps: float
) -> Tensor:
    """Norm each head of qk [B, T, H, K] by `scale` [H, K], then rotate by tables [(B,) T, K]."""
    if scale is not None and rope is not None and hand_written():
        cos, sin = rope
        out = HeadNormRopeFunction.apply(qk, scale, cos.unsqueeze(-2), sin.unsqueeze(-2), eps)
        assert isinstance(out, Tensor)
        return out
    if scale is not None:
        qk = F.rms_norm(qk, qk.shape[-1:], None, eps) * scale.to(qk.dtype)
    if rope is not None:
        cos, sin = rope
        qk = rotate(qk, cos.unsqueeze(-2).to(qk.dtype), sin.unsqueeze(-2).to(qk.dtype))
    return qk


class Rope(nn.Module):
    """Tables of cos and signed sin [P, K] for rotary positions (arXiv 2104.09864), with room for
    the padding of the longest sequence.

    `sin` is stored with its first half negated, so that a rotation is x * cos + swap(x) * sin.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_width: int, theta: float, positions: int) -> None:
        super().__init__()
        self.head_width, self.theta = head_width, theta
        cos, sin = self._tables(round_up(positions, POSITIONS), torch.device("cpu"))
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def _tables(self, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
        exponents = torch.arange(0, self.head_width, 2, dtype=torch.float32, device=device)
        rates = 1.0 / self.theta ** (exponents / self.head_width)
        index = torch.arange(positions, dtype=torch.float32, device=device)
        angles = index[:, None] * rates[None, :]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Rope":
        # A model cast to bfloat16 keeps exact tables: an angle rounded to 8 bits is another angle.
        super()._apply(fn, recurse)
        if self.cos.dtype != torch.float32 and not self.cos.is_meta:
            self.rebuild(self.cos.device)
        return self

    def rebuild(self, device: torch.device) -> None:
        """Make real tables after a meta-device construction."""
        self.cos, self.sin = self._tables(self.cos.shape[0], device)

    def forward(self, positions: Tensor | None, start: int, length: int) -> tuple[Tensor, Tensor]:
        """(cos, sin): [T, K] for positions start..start+length, or [B, T, K] for given positions.

        Raises ValueError past the end of the tables.
        """
        if positions is not None:
            return self.cos[positions], self.sin[positions]
        if start + length > self.cos.shape[0]:
            raise ValueError(
                f"position {start + length} exceeds max_positions {self.cos.shape[0]}; "
                "shorten the input or raise max_positions"
            )
        return self.cos[start : start + length], self.sin[start : start + length]


def swiglu(gate_up: Tensor) -> Tensor:
    """[..., 2 F] -> [..., F]: silu of the first half times the second."""
    if hand_written():
        out = SwiGLUFunction.apply(gate_up.contiguous())
        assert isinstance(out, Tensor)
        return out
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up
