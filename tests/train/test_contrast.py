"""The caption reader: torch's own attention by another road, and nobody reads what comes later."""

import pytest
import torch
from torch import nn

from lumoomni.train.contrast import PlaceReader, _read


@pytest.mark.parametrize("ahead", [True, False])
def test_reading_equals_torchs_own_attention_in_value_and_gradient(ahead: bool) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(12, 3, batch_first=True)
    nn.init.normal_(layer.in_proj_bias)
    x = torch.randn(2, 7, 12, requires_grad=True)
    source = torch.randn(2, 9, 12, requires_grad=True) if ahead else x
    seen = None if ahead else torch.ones(7, 7, dtype=torch.bool).tril()
    leaves = [*{x, source}, *layer.parameters()]
    results = []
    for out in (
        _read(layer, x, source, seen),
        layer(x, source, source, need_weights=False, attn_mask=None if seen is None else ~seen)[0],
    ):
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_place_reads_all_patches_and_no_later_place() -> None:
    torch.manual_seed(0)
    reader = PlaceReader(8, 2)
    x, patches = torch.randn(1, 5, 8, requires_grad=True), torch.randn(1, 6, 8, requires_grad=True)
    reader(x, patches)[0, 2].sum().backward()
    assert x.grad is not None and patches.grad is not None
    assert x.grad[0, :3].abs().amin() > 0 and not x.grad[0, 3:].any()
    assert (patches.grad[0].abs().sum(-1) > 0).all()
