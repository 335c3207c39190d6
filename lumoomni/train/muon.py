"""Muon: momentum, made orthogonal, for the matrices between hidden layers.

Knows: one update rule. Does not know: which parameters are such matrices.
Costs: 10 n n m + 5 n n n multiplications for a matrix [n, m], n <= m, or 2 n n m + 17 n n n,
whatever the batch: at laptop sizes a good part of an update, which a crew shares out.

Keller Jordan 2024 (kellerjordan.github.io/posts/muon); at scale arXiv 2502.16982. torch.optim.Muon
is the same rule (tests compare them), but keeps to bfloat16 even where a processor does not
compute it, and its products cannot be shared among processes.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lumoomni.train.crew import Crew

# Of the quintic that pushes all singular values towards one, steepest at zero.
A, B, C = 3.4445, -4.7750, 2.0315
WIDE = 1.5
"""From so many columns a row on, five steps take less arithmetic on the small side alone."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum and decoupled weight decay over matrices of one device.

    Kernels [n, m, ...] are moved as the matrices [n, m * ...] that they are to each place. The rate
    of a matrix [n, m] is lr times sqrt(max(1, n / m)).
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        steps: int = 5,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.crew = Crew(0, 1)
        self._steps, self._dtype = steps, dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        moved = [(p, group) for group in self.param_groups for p in group["params"] if _has(p)]
        slopes = []
        for parameter, group in moved:
            state, rate = self.state[parameter], 1 - group["momentum"]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            state["momentum_buffer"].lerp_(parameter.grad, rate)
            slope = parameter.grad.lerp(state["momentum_buffer"], group["momentum"])
            slopes.append(slope.flatten(1))
        costs = [float(min(s.shape) * s.numel()) for s in slopes]
        ways = self.crew.share_out(slopes, costs, self._orthogonal)
        for (parameter, group), way in zip(moved, ways, strict=True):
            rows, columns = way.shape
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            alpha = -group["lr"] * max(1, rows / columns) ** 0.5
            parameter.add_(way.view_as(parameter), alpha=alpha)

    def _orthogonal(self, slope: Tensor) -> Tensor:
        return orthogonal(slope, self._steps, self._dtype).to(slope.dtype)


def orthogonal(matrix: Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """A matrix near [n, m] `matrix` whose singular values lie around one (0.7 to 1.2)."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(dtype)
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    if dtype == torch.float32 and x.shape[1] > WIDE * x.shape[0]:
        x = _by_gram(x, steps)
    else:
        for _ in range(steps):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.T if tall else x


def _by_gram(x: Tensor, steps: int) -> Tensor:
    """The same steps on x x^T [n, n] alone: all that ever multiplies wide x [n, m] is a polynomial
    of it. Two products as wide as x instead of ten; needs the bits of float32."""
    gram = x @ x.T
    whole = gram
    for step in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=B, alpha=C)
        factor.diagonal().add_(A)
        whole = factor @ whole if step else factor
        if step < steps - 1:
            gram = factor @ gram @ factor
    return whole @ x


def _has(parameter: Tensor) -> bool:
    return parameter.grad is not None
