"""Muon is torch's Muon, with products that can be shared."""

import pytest
import torch
from torch import nn

from lumoomni.train.muon import Muon, orthogonal
from lumoomni.train.optim import is_hidden_matrix


def test_it_moves_as_torchs_own() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((8, 24), (24, 8), (8, 8))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    mine = Muon(ours, lr=0.05, weight_decay=0.1)
    other = torch.optim.Muon(theirs, lr=0.05, weight_decay=0.1, adjust_lr_fn="original")
    for step in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(step))
            b.grad = a.grad.clone()
        mine.step()
        other.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-2)


def test_singular_values_come_near_one() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(48, 16) @ torch.diag(torch.logspace(0, -1, 16))
    values = torch.linalg.svdvals(orthogonal(matrix, dtype=torch.float32))
    assert values.min() > 0.6 and values.max() < 1.25
    assert torch.linalg.svdvals(matrix).min() / torch.linalg.svdvals(matrix).max() < 0.2


@pytest.mark.parametrize("shape", [(48, 16), (16, 48), (16, 24), (16, 25), (16, 16)])
def test_steps_on_the_small_side_are_the_same_steps(shape: tuple[int, int]) -> None:
    """In float32 wide matrices never leave their small side; the plain steps are the truth."""
    torch.manual_seed(0)
    small = min(shape)
    matrix = torch.randn(shape[0], small) @ torch.diag(torch.logspace(0, -3, small))
    matrix = matrix @ torch.randn(small, shape[1])
    plain = orthogonal(matrix, dtype=torch.float64)
    quick = orthogonal(matrix, dtype=torch.float32)
    assert quick.shape == matrix.shape and quick.dtype == torch.float32
    torch.testing.assert_close(quick.double(), plain, atol=2e-3, rtol=0)


def test_a_kernel_moves_as_the_matrix_that_it_is() -> None:
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(6, 4, 3, 3))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    movers = [
        Muon([one], lr=0.05, weight_decay=0.1, dtype=torch.float32) for one in (kernel, matrix)
    ]
    for _ in range(3):
        kernel.grad = torch.randn(kernel.shape)
        matrix.grad = kernel.grad.flatten(1).clone()
        for mover in movers:
            mover.step()
    assert torch.equal(kernel.flatten(1), matrix)


def test_hidden_kernels_are_muons_and_input_patches_are_not() -> None:
    kernel = nn.Parameter(torch.zeros(6, 4, 3, 3))
    assert is_hidden_matrix("vision.patches.2.conv.weight", kernel)
    assert not is_hidden_matrix("vision.patches.weight", kernel)
    assert not is_hidden_matrix("audio.convs.1.weight", kernel)
    assert not is_hidden_matrix("vision.patches.2.conv.bias", nn.Parameter(torch.zeros(6)))
