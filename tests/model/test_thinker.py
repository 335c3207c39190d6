"""The Thinker's equalities: cached, padded, packed and windowed reads agree with the plain ones.

Tolerance: in float32 the worst difference seen over 50 seeds of these shapes was 5e-6 on hidden
states of size 1; 5e-5 leaves a factor of ten and is far below any planted fault (> 1e-2).
"""

import pytest
import torch

from lumoomni.model.attention import AttentionSpec
from lumoomni.model.moe import MoEConfig
from lumoomni.model.thinker import Thinker, ThinkerConfig

TOLERANCE = 5e-5
SHAPE = {
    "vocab_size": 97,
    "width": 32,
    "layers": 3,
    "heads": 4,
    "kv_heads": 2,
    "head_width": 8,
    "ffn_width": 64,
    "max_positions": 64,
}


def make(seed: int = 0, **changes: object) -> Thinker:
    torch.manual_seed(seed)
    thinker = Thinker(ThinkerConfig(**{**SHAPE, **changes})).eval()  # pyright: ignore
    thinker.init_weights(std=0.3)  # large weights make attention sharp, so faults show
    return thinker


def ids_of(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 97, (batch, length), generator=torch.Generator().manual_seed(seed))


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize(
    "changes", [{}, {"window": 5}, {"qk_norm": False, "qkv_bias": True}, {"short_conv": 3}]
)
@pytest.mark.parametrize("cut", [1, 4, 9])
@torch.no_grad()
def test_cached_chunks_equal_one_forward(changes: dict, cut: int) -> None:
    thinker = make(**changes)
    x = thinker.embed(ids_of(2, 12))
    cache = thinker.new_cache(2, 12)
    parts = [thinker(x[:, :cut], cache=cache).hidden]
    parts.append(thinker(x[:, cut : cut + 2], cache=cache).hidden)
    parts += [thinker(x[:, t : t + 1], cache=cache).hidden for t in range(cut + 2, 12)]
    assert difference(torch.cat(parts, 1), thinker(x).hidden) < TOLERANCE


@pytest.mark.parametrize("changes", [{}, {"window": 4}, {"short_conv": 3}])
@torch.no_grad()
def test_left_padding_with_a_cache_equals_each_sequence_alone(changes: dict) -> None:
    thinker = make(**changes)
    x = thinker.embed(ids_of(2, 10))
    keys = torch.ones(2, 10, dtype=torch.bool)
    keys[1, :6] = False
    cache = thinker.new_cache(2, 14)
    more = thinker.embed(ids_of(2, 4, seed=2))
    thinker(x, attention=AttentionSpec(keys=keys), cache=cache)
    batched = [thinker(more[:, t : t + 1], cache=cache).hidden for t in range(4)]
    for row, begin in ((0, 0), (1, 6)):
        alone = thinker(torch.cat([x[row, begin:], more[row]])[None]).hidden[:, -4:]
        assert difference(torch.cat(batched, 1)[row : row + 1], alone) < TOLERANCE
    assert cache.lengths().tolist() == [14, 8]


@torch.no_grad()
def test_right_padding_equals_each_sequence_alone() -> None:
    thinker = make()
    x = thinker.embed(ids_of(2, 10))
    spec = AttentionSpec(lengths=torch.tensor([10, 4]))
    hidden = thinker(x, attention=spec).hidden
    assert difference(hidden[1:, :4], thinker(x[1:, :4]).hidden) < TOLERANCE


@pytest.mark.parametrize("changes", [{}, {"short_conv": 3}])
@torch.no_grad()
def test_packed_documents_equal_separate_and_leak_nothing(changes: dict) -> None:
    thinker = make(**changes)
    x = thinker.embed(ids_of(1, 12))
    documents = torch.tensor([[0] * 5 + [1] * 4 + [2] * 3])
    spec = AttentionSpec(documents=documents)
    packed = thinker(x, attention=spec).hidden
    for begin, end in ((0, 5), (5, 9), (9, 12)):
        alone = thinker(x[:, begin:end]).hidden
        assert difference(packed[:, begin:end], alone) < TOLERANCE
    changed = x.clone()
    changed[:, :5] = torch.randn(1, 5, 32)
    leak = difference(thinker(changed, attention=spec).hidden[:, 5:], packed[:, 5:])
    assert leak == 0.0


@torch.no_grad()
def test_short_conv_carries_the_three_before() -> None:
    conv = make(short_conv=3).short_conv
    assert conv is not None
    x = torch.eye(5)[None, :, :, None].expand(1, 5, 5, 32).flatten(2)  # each in its own channels
    conv.weight = torch.nn.Parameter(conv.weight[:, :1].expand(3, 160).clone())
    mixed, tail_now = conv(x)
    weights = mixed.view(5, 5, 32)[..., 0]
    assert torch.allclose(weights[4], torch.tensor([0.0, 0.4, 0.6, 0.8, 1.0]))
    assert torch.allclose(weights[1], torch.tensor([0.8, 1.0, 0.0, 0.0, 0.0]))
    assert torch.equal(tail_now, x[:, 2:])


@torch.no_grad()
def test_window_reads_exactly_its_span() -> None:
    thinker = make(window=3, layers=1)
    x = thinker.embed(ids_of(1, 9))
    before = thinker(x).hidden
    changed = x.clone()
    changed[:, 2] = torch.randn(32)
    moved = (thinker(changed).hidden - before).abs().amax(-1)[0]
    assert moved[[0, 1, 5, 6, 7, 8]].max() == 0.0
    assert moved[[2, 3, 4]].min() > 1e-3


@pytest.mark.parametrize("moe", [None, MoEConfig(experts=4, active=2, ffn_width=16)])
def test_checkpointing_gives_the_same_gradients(moe: MoEConfig | None) -> None:
    thinker = make(moe=moe)
    x = thinker.embed(ids_of(2, 8)).detach()
    grads = []
    for checkpointing in (False, True):
        thinker.zero_grad()
        thinker.checkpointing = checkpointing
        thinker(x).hidden.square().sum().backward()
        grads.append([p.grad.clone() for p in thinker.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 10
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


def test_positions_past_the_tables_are_refused() -> None:
    thinker = make()
    with pytest.raises(ValueError, match="max_positions 64"):
        thinker(torch.zeros(1, 65, 32))


def test_init_keeps_the_residual_stream_small() -> None:
    torch.manual_seed(0)
    thinker = Thinker(ThinkerConfig(**{**SHAPE, "width": 128, "layers": 8}))
    out = thinker.blocks[0].attention.out.weight  # pyright: ignore
    assert abs(out.std().item() - 0.02 / 4) < 0.0005
    assert abs(thinker.token_table.weight.std().item() - 0.02) < 0.001


def test_keys_start_equal_to_the_queries_that_read_them() -> None:
    rows = make().blocks[0].attention.qkv.weight.view(8, 8, 32)  # pyright: ignore
    assert torch.equal(rows[4], rows[0]) and torch.equal(rows[5], rows[2])
