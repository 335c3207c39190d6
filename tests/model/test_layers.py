"""The hand-written gradients equal autograd's, and the experts balance as they claim.

Tolerances: float32 sums of at most 100 terms of size 1; the worst seen was 1e-6, 1e-5 is allowed.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lumoomni.model.attention import AttentionConfig, AttentionSpec, SelfAttention, build_mask
from lumoomni.model.fused import ShortAttentionFunction, whole_attention
from lumoomni.model.layers import BlockConfig
from lumoomni.model.moe import MoE, MoEConfig, balancing_loss
from lumoomni.model.norm import RMSNorm, Rope, head_norm_rope, rotate, swiglu

TOLERANCE = 1e-5


def agree(f: Callable[..., Tensor], g: Callable[..., Tensor], *inputs: Tensor) -> float:
    """Largest difference of outputs and of every gradient between two functions."""
    results = []
    for function in (f, g):
        fresh = [x.detach().clone().requires_grad_() for x in inputs]
        out = function(*fresh)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
        (out * weights).sum().backward()
        results.append([out.detach(), *[x.grad for x in fresh]])
    return max(float((a - b).abs().max()) for a, b in zip(*results, strict=True))


def test_rms_norm_and_its_gradient() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(16)

    def ours(x: Tensor, w: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": w}, (x,))

    x, w = torch.randn(3, 7, 16), torch.randn(16)
    assert agree(ours, lambda x, w: F.rms_norm(x, (16,), w, 1e-6), x, w) < TOLERANCE


def test_head_norm_and_rotation_and_their_gradients() -> None:
    torch.manual_seed(0)
    cos, sin = Rope(8, 10_000.0, 16)(None, 2, 5)
    x, w = torch.randn(2, 5, 3, 8), torch.randn(3, 8)

    def plain(x: Tensor, w: Tensor) -> Tensor:
        return rotate(F.rms_norm(x, (8,), None, 1e-6) * w, cos[:, None], sin[:, None])

    assert agree(lambda x, w: head_norm_rope(x, w, (cos, sin), 1e-6), plain, x, w) < TOLERANCE


def test_rotation_turns_pairs_by_position_times_rate() -> None:
    cos, sin = Rope(4, 100.0, 8)(None, 3, 1)
    turned = rotate(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), cos, sin)
    angle = torch.tensor(3.0)
    want = torch.tensor([[angle.cos(), 0.0, angle.sin(), 0.0]])
    assert torch.allclose(turned, want, atol=1e-6)


def test_swiglu_and_its_gradient() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 12)

    def plain(x: Tensor) -> Tensor:
        gate, up = x.chunk(2, -1)
        return F.silu(gate) * up

    assert agree(lambda x: swiglu(x * 1.0), plain, x) < TOLERANCE


@pytest.mark.parametrize("packed", [False, True])
def test_short_attention_equals_the_fused_kernel(packed: bool) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 11, 8), torch.randn(2, 2, 11, 8), torch.randn(2, 2, 11, 8)
    mask = None
    if packed:
        documents = torch.tensor([[0] * 4 + [1] * 7, [0] * 11])
        mask = build_mask(
            AttentionSpec(documents=documents),
            queries=11,
            start=0,
            causal=True,
            window=None,
            valid=None,
            like=q,
        )

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
        )

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = ShortAttentionFunction.apply(q, k, v, mask, 4)
        assert isinstance(out, Tensor)
        return out

    assert agree(ours, plain, q, k, v) < TOLERANCE


@pytest.mark.parametrize("masked", [False, True])
def test_whole_attention_equals_the_fused_kernel(masked: bool) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 11, 8), torch.randn(2, 4, 11, 8)
    mask = (torch.arange(11) < torch.tensor([[7], [11]]))[:, None, None] if masked else None

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return whole_attention(q, k, v, mask)

    assert agree(ours, plain, q, k, v) < TOLERANCE


@torch.no_grad()
def test_bidirectional_attention_reads_ahead_and_ignores_padding() -> None:
    torch.manual_seed(0)
    config = AttentionConfig(width=16, heads=2, kv_heads=1, head_width=8, causal=False)
    layer = SelfAttention(config)
    x = torch.randn(1, 6, 16)
    spec = AttentionSpec(lengths=torch.tensor([4]))
    mask = build_mask(spec, queries=6, start=0, causal=False, window=None, valid=None, like=x)
    padded = layer(x, mask=mask)[:, :4]
    assert torch.allclose(padded, layer(x[:, :4]), atol=1e-6)
    changed = x.clone()
    changed[:, 3] += 1
    assert (layer(changed, mask=mask)[:, 0] - padded[:, 0]).abs().max() > 1e-3


def test_balancing_loss_is_least_when_uniform() -> None:
    uniform = torch.full((12, 4), 0.25)
    assert balancing_loss(uniform, torch.tensor([6, 6, 6, 6])).item() == pytest.approx(1.0)
    skewed = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).expand(12, 4)
    assert balancing_loss(skewed, torch.tensor([24, 0, 0, 0])).item() == pytest.approx(2.8)


def test_experts_equal_a_dense_sum_over_the_chosen() -> None:
    torch.manual_seed(0)
    moe = MoE(8, MoEConfig(experts=4, active=2, ffn_width=6))
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, 8)
    probabilities = moe.router(x).softmax(-1)
    weights, chosen = probabilities.topk(2, -1)
    weights = weights / weights.sum(-1, keepdim=True)
    want = torch.zeros_like(x)
    for expert in range(4):
        gate, up = F.linear(x, moe.gate_up[expert]).chunk(2, -1)
        out = F.linear(F.silu(gate) * up, moe.down[expert])
        want += out * (weights * (chosen == expert)).sum(-1, keepdim=True)
    # Outputs of N(0, 1) weights reach 50, so the tolerance is relative to that.
    assert torch.allclose(moe(x)[0], want, rtol=1e-4, atol=1e-4)


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads cannot share 2"):
        AttentionConfig(width=8, heads=3, kv_heads=2, head_width=4)
    with pytest.raises(ValueError, match="active experts 5"):
        MoEConfig(experts=4, active=5, ffn_width=4)
    attention = AttentionConfig(width=8, heads=2, kv_heads=2, head_width=4)
    with pytest.raises(ValueError, match="dropout"):
        BlockConfig(attention=attention, ffn_width=4, dropout=1.0)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_what_reads_what_is_learned_in_float32(
    monkeypatch: pytest.MonkeyPatch, kind: torch.dtype
) -> None:
    """Under autocast, too; weights that are bfloat16 themselves, and are not learned, stay so."""
    seen: list[torch.dtype] = []
    forward = ShortAttentionFunction.forward

    def watched(ctx: object, q: Tensor, k: Tensor, v: Tensor, *rest: object) -> Tensor:
        out = forward(ctx, q, k, v, *rest)  # type: ignore[arg-type]
        seen.extend(x.dtype for x in (q, k, v, out))
        return out

    monkeypatch.setattr(ShortAttentionFunction, "forward", watched)
    config = AttentionConfig(width=16, heads=4, kv_heads=2, head_width=8)
    attention = SelfAttention(config).to(kind)
    x = torch.randn(2, 5, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(x.to(torch.bfloat16), Rope(8, 100.0, 16)(None, 0, 5))
    assert seen == 4 * [kind] and out.dtype == torch.bfloat16
    out.sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())


def test_towers_read_in_float32_too() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 6, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        read = whole_attention(q, k, v)
    want = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    assert read.dtype == torch.float32
    torch.testing.assert_close(read, want, atol=TOLERANCE, rtol=0)
    read.sum().backward()
    assert q.grad is not None and q.grad.dtype == torch.bfloat16
