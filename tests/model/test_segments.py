"""Packed rows as segments: the same reads as under a mask, with and without padding and windows."""

from dataclasses import replace

import pytest
import torch

from lumoomni.model.attention import (
    AttentionConfig,
    AttentionSpec,
    SelfAttention,
    build_mask,
    default_positions,
)
from lumoomni.model.norm import Rope
from lumoomni.model.segments import (
    LIKE,
    Segments,
    gather,
    scatter_back,
    segments_of,
)
from lumoomni.model.thinker import Thinker, ThinkerConfig

DOCUMENTS = torch.tensor([[0] * 5 + [1] * 4 + [2] * 23, [0] * 2 + [1] * 7 + [2] * 23])
LENGTHS = torch.tensor([32, 9])


def elsewhere(lengths: torch.Tensor | None) -> Segments:
    """As they would be made on another device than a CPU."""
    return replace(segments_of(DOCUMENTS, lengths), cpu=False)


def alone(x: torch.Tensor, segments: Segments) -> list[torch.Tensor]:
    return [part for (part,) in gather(x, segments, (x.shape[2],))]


def test_every_real_position_has_one_place_and_comes_back() -> None:
    found = segments_of(DOCUMENTS, LENGTHS)
    assert found.shapes == ((1, 24), (4, 8)) and found.longest == 23
    x = torch.randn(2, 32, 3, 4)
    laid = alone(x, found)
    assert torch.equal(laid[0][0, :23], x[0, 9:]) and torch.equal(laid[1][0, :7], x[1, 2:9])
    back = scatter_back(laid, found).view_as(x)
    assert torch.equal(back[0], x[0]) and torch.equal(back[1, :9], x[1, :9])
    whole = segments_of(DOCUMENTS, None)
    assert torch.equal(scatter_back(alone(x, whole), whole).view_as(x), x)
    assert sum(count for count, _ in whole.shapes) == 6


def test_documents_of_like_lengths_share_a_layout() -> None:
    """Of all documents in their order, with room for each, and none much shorter than that."""
    stream = torch.Generator().manual_seed(0)
    for _ in range(20):
        many = int(torch.randint(1, 40, (), generator=stream))
        sizes = torch.randint(1, 600, (many,), generator=stream)
        documents = torch.arange(many).repeat_interleave(sizes)[None]
        found, falling, end = segments_of(documents, None), sizes.sort(descending=True).values, 0
        assert found.longest == falling[0]
        for count, room in found.shapes:
            part, end = falling[end : end + count], end + count
            assert room % 8 == 0 and part[0] <= room < part[0] + 8 and part[-1] > LIKE * room - 8
        assert end == many
        x = torch.randn(1, len(documents[0]), 1, 2)
        assert torch.equal(scatter_back(alone(x, found), found).view_as(x), x)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients_come_back_to_their_own_positions(lengths: torch.Tensor | None) -> None:
    """As autograd's own for plain indexing, where every real position counts differently."""
    torch.manual_seed(0)
    segments = segments_of(DOCUMENTS, lengths)
    whole = torch.tensor([32, 32]) if lengths is None else lengths
    real = (torch.arange(32) < whole[:, None]).flatten()
    weights = torch.randn(64, 3, 4, dtype=torch.float64) * real[:, None, None]
    x = torch.randn(2, 32, 3, 4, dtype=torch.float64)
    found = []
    for plain in (True, False):
        leaf = x.clone().requires_grad_()
        if plain:
            rows = leaf.flatten(0, 1)[segments.take].sin()
            back = rows[segments.place]
        else:
            parts = [torch.cat((a.sin(), b.sin()), 2) for a, b in gather(leaf, segments, (2, 1))]
            back = scatter_back(parts, segments)
        (back.cos() * weights).sum().backward()
        found.append(leaf.grad)
    assert found[0] is not None and found[1] is not None
    assert torch.equal(found[0], found[1]) and bool((found[1].flatten(0, 1)[real] != 0).all())


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("cpu", [True, False])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_rotations_are_those_of_the_given_positions(
    lengths: torch.Tensor | None, cpu: bool, restart: bool
) -> None:
    """Whether each document counts from its start, when tables are shared, or goes on counting."""
    torch.manual_seed(0)
    layer = SelfAttention(AttentionConfig(width=16, heads=4, kv_heads=2, head_width=8))
    x = torch.randn(2, 32, 16, requires_grad=True)
    spec = AttentionSpec(documents=DOCUMENTS)
    mask = build_mask(spec, queries=32, start=0, causal=True, window=None, valid=None, like=x)
    positions = default_positions(spec, 2, 32)
    assert positions is not None
    # Uneven steps: a turn that is the same for a whole document changes nothing that is read.
    positions = positions if restart else torch.randint(0, 40, (2, 32)).cumsum(1)
    rope = Rope(8, 100.0, 1400)(positions, 0, 32)
    segments = segments_of(DOCUMENTS, lengths)
    segments = segments if cpu else elsewhere(lengths)
    real = torch.arange(32) < (torch.tensor([32, 32]) if lengths is None else lengths)[:, None]
    wanted, found = layer(x, rope, mask)[real], layer(x, rope, segments)[real]
    torch.testing.assert_close(found, wanted)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (wanted, found)]
    torch.testing.assert_close(grads[1][real], grads[0][real])
    if cpu:
        shared = [2 if restart or count == 1 else 3 for count, _ in segments.shapes]
        assert [cos.dim() for cos, _ in segments.tables(rope)] == shared
        other = Rope(8, 100.0, 1400)(positions + torch.arange(32), 0, 32)
        moved = layer(x, other, mask)[real]
        torch.testing.assert_close(layer(x, other, segments)[real], moved)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_attention_reads_as_under_the_mask(grad: bool, lengths: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(AttentionConfig(width=16, heads=4, kv_heads=2, head_width=8))
    x = torch.randn(2, 32, 16, requires_grad=grad)
    spec = AttentionSpec(documents=DOCUMENTS)
    mask = build_mask(spec, queries=32, start=0, causal=True, window=None, valid=None, like=x)
    real = torch.arange(32) < (torch.tensor([32, 32]) if lengths is None else lengths)[:, None]
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
    spec = AttentionSpec(documents=torch.tensor([[0] * 5 + [1] * 4 + [2] * 3]))
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
