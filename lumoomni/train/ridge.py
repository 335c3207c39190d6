"""Least squares with a penalty, in closed form.

Knows: tensors. Does not know: what is fitted to what. Costs: one product of the inputs with
themselves and one linear system as wide as they are, both in double precision.
"""

import torch
from torch import Tensor


def solve(x: Tensor, y: Tensor, *, penalty: float = 0.0, share: float = 0.0) -> Tensor:
    """x [K, D_in], y [K, D_out] -> W [D_in, D_out] that makes |x W - y|^2 + p |W|^2 least.

    p is `penalty`, and `share` of the inputs' mean square summed over K.
    """
    gram = x.T @ x
    size = penalty + share * gram.diagonal().mean().clamp(min=1e-12)
    gram = gram + size * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram, x.T @ y)


def ridge(x: Tensor, y: Tensor, strength: float = 1e-3) -> tuple[Tensor, Tensor]:
    """x [K, D_in], y [K, D_out] -> weight [D_out, D_in] and bias [D_out] of least squares.

    `strength` is the penalty as a share of the inputs' mean variance.
    """
    x, y = x.double(), y.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    weight = solve(x - x_mean, y - y_mean, share=strength).T
    return weight.float(), (y_mean - weight @ x_mean).float()
