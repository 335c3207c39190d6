"""Packed rows as segments: the same reads as under a mask, with and without padding and windows."""

import pytest
import torch

from lumoomni.model.attention import (
    AttentionConfig,
    AttentionSpec,
    SelfAttention,
    build_mask,
)
from lumoomni.model.segments import gather, scatter_back, segments_of
from lumoomni.model.thinker import Thinker, ThinkerConfig

DOCUMENTS = torch.tensor([[0] * 5 + [1] * 4 + [2] * 3, [0] * 2 + [1] * 7 + [2] * 3])
LENGTHS = torch.tensor([12, 9])


def test_every_real_position_has_one_place_and_comes_back() -> None:
    found = segments_of(DOCUMENTS, LENGTHS)
    assert found.shapes == ((1, 7), (2, 5), (1, 3), (1, 2))
    x = torch.randn(2, 12, 3, 4)
    back = scatter_back(gather(x, found), found).view_as(x)
    assert torch.equal(back[0], x[0]) and torch.equal(back[1, :9], x[1, :9])
    whole = segments_of(DOCUMENTS, None)
    assert torch.equal(scatter_back(gather(x, whole), whole).view_as(x), x)
    assert sum(count for count, _ in whole.shapes) == 6 and whole.longest == 7


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients_come_back_to_their_own_positions(lengths: torch.Tensor | None) -> None:
    """As autograd's own for plain indexing, where every real position counts differently."""
    torch.manual_seed(0)
    segments = segments_of(DOCUMENTS, lengths)
    whole = torch.tensor([12, 12]) if lengths is None else lengths
    real = (torch.arange(12) < whole[:, None]).flatten()
    weights = torch.randn(24, 3, 4, dtype=torch.float64) * real[:, None, None]
    x = torch.randn(2, 12, 3, 4, dtype=torch.float64)
    found = []
    for plain in (True, False):
        leaf = x.clone().requires_grad_()
        if plain:
            rows = leaf.flatten(0, 1)[segments.take].sin()
            back = rows[segments.place]
        else:
            back = scatter_back([one.sin() for one in gather(leaf, segments)], segments)
        (back.cos() * weights).sum().backward()
        found.append(leaf.grad)
    assert found[0] is not None and found[1] is not None
    assert torch.equal(found[0], found[1]) and bool((found[1].flatten(0, 1)[real] != 0).all())


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_attention_reads_as_under_the_mask(grad: bool, lengths: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(AttentionConfig(width=16, heads=4, kv_heads=2, head_width=8))
    x = torch.randn(2, 12, 16, requires_grad=grad)
    spec = AttentionSpec(documents=DOCUMENTS)
    mask = build_mask(spec, queries=12, start=0, causal=True, window=None, valid=None, like=x)
    real = torch.arange(12) < (torch.tensor([12, 12]) if lengths is None else lengths)[:, None]
    with torch.set_grad_enabled(grad):
        wanted = layer(x, None, mask)[real]
        found = layer(x, None, segments_of(DOCUMENTS, lengths))[real]
    torch.testing.assert_close(found, wanted)
    if grad:
        grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (wanted, found)]
        torch.testing.assert_close(grads[1][real], grads[0][real])


def test_a_window_that_cuts_documents_still_has_its_mask() -> None:
    """A window below the longest document needs the mask; one above it does not change a thing."""
    torch.manual_seed(0)
    base = {"vocab_size": 20, "width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_width": 8}
    spec = AttentionSpec(documents=DOCUMENTS[:1])
    x = torch.randn(1, 12, 16)
    plain = Thinker(ThinkerConfig(**base, ffn_width=24))  # type: ignore[arg-type]
    found = {}
    for window in (3, 5, 6):
        cut = Thinker(ThinkerConfig(**base, ffn_width=24, window=window))  # type: ignore[arg-type]
        cut.load_state_dict(plain.state_dict())
        found[window] = cut(x, attention=spec).hidden
    whole = plain(x, attention=spec).hidden
    torch.testing.assert_close(found[5], whole)
    torch.testing.assert_close(found[6], whole)
    assert not torch.allclose(found[3], whole)
    alone = [plain(x[:, a:b]).hidden for a, b in ((0, 5), (5, 9), (9, 12))]
    torch.testing.assert_close(whole, torch.cat(alone, 1))
