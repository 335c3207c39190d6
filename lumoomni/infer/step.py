"""One cached position for a whole batch, written flat: the inner loop of generation.

Knows: a Thinker's tensors and its cache, and how to say with few operators what its modules say.
Does not know: sampling, stopping or prompts; and it steps aside (`fits`) for a Thinker whose
modules have been wrapped, e.g. by LoRA, because it reads the weights directly.
Costs: about 20 operators per layer where the modules need about 60; a tiny model on a CPU spends
its time in operators, not in arithmetic. In float32 on a CPU the matrices are kept a second time,
input-major, up to 1 GB; larger models and other types are read in place.
"""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.attention import KVCache
from lumoomni.model.layers import Block
from lumoomni.model.moe import MoE
from lumoomni.model.norm import RMSNorm
from lumoomni.model.thinker import Thinker

# Matrices are copied input-major for the step while they fit in this many bytes.
COPY_BYTES = 1 << 30
# About as many numbers of every parameter are looked at, to see whether it has changed.
SAMPLED = 256


@dataclass(frozen=True)
class Layer:
    """The tensors of one block, matrices as [in, out].

    Norm weights carry sqrt(width), so that a norm is x / |x| * weight.
    """

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    head_norm: Tensor | None
    out: Tensor
    ffn_norm: Tensor
    gate_up: Tensor | None
    down: Tensor | None
    moe: MoE | None
    window: int | None


@dataclass(frozen=True)
class Plan:
    """All that a step multiplies by: the layers, the final norm, and the head [D, V]."""

    layers: tuple[Layer, ...]
    final_norm: Tensor
    head: Tensor


_PLANS: WeakKeyDictionary[Thinker, tuple[Tensor, Plan]] = WeakKeyDictionary()


def plan_of(thinker: Thinker) -> Plan:
    """The Thinker's plan, made again whenever its weights have changed."""
    stamp = _stamp(thinker)
    known = _PLANS.get(thinker)
    if known is None or not torch.equal(known[0], stamp):
        known = (stamp, _make_plan(thinker))
        _PLANS[thinker] = known
    return known[1]


def _stamp(thinker: Thinker) -> Tensor:
    """Address and a sample of every parameter: equal only while nothing moved.

    Version counters would be cheaper, but writes through `.data` do not move them.
    """
    flat = [p.detach().reshape(-1) for p in thinker.parameters()]
    samples = torch.cat([x[:: max(1, x.numel() // SAMPLED)] for x in flat]).double()
    places = [float(x) for p in thinker.parameters() for x in (p.data_ptr(), p.numel())]
    return torch.cat([samples, samples.new_tensor(places)])


def fits(thinker: Thinker) -> bool:
    """Whether every module is the plain one, without hooks, so that the weights say it all."""
    for module in thinker.blocks.modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return False
    for block in thinker.blocks:
        if type(block) is not Block or type(block.attention.qkv) is not nn.Linear:
            return False
        out = block.attention.out
        if (
            type(out) is not nn.Linear
            or out.bias is not None
            or type(block.ffn_norm) is not RMSNorm
        ):
            return False
        ffn = block.ffn
        if ffn is not None and (
            type(ffn.gate_up) is not nn.Linear or type(ffn.down) is not nn.Linear
        ):
            return False
    return True


def _make_plan(thinker: Thinker) -> Plan:
    if not fits(thinker):
        # A wrapper answers `.weight` with its base's, so an adapter would be left out unnoticed.
        raise ValueError("a Thinker with wrapped modules or hooks cannot be read as plain weights")
    weights = list(thinker.parameters())
    size = sum(p.numel() * p.element_size() for p in weights)
    # float32 products of one row run about twice as fast on a CPU from input-major memory.
    is_small_cpu = weights[0].device.type == "cpu" and size <= COPY_BYTES
    copy = is_small_cpu and weights[0].dtype == torch.float32

    def turned(weight: Tensor) -> Tensor:
        return weight.detach().t().contiguous() if copy else weight.detach().t()

    config, layers = thinker.config, []
    for index, block in enumerate(thinker.blocks):
        assert isinstance(block, Block)
        scale = block.attention.head_scale()
        layers.append(
            Layer(
                attention_norm=block.attention_norm.weight.float() * config.width**0.5,
                qkv=turned(block.attention.qkv.weight),
                qkv_bias=block.attention.qkv.bias,
                head_norm=None if scale is None else scale.float() * config.head_width**0.5,
                out=turned(block.attention.out.weight),
                ffn_norm=block.ffn_norm.weight.float() * config.width**0.5,
                gate_up=None if block.ffn is None else turned(block.ffn.gate_up.weight),
                down=None if block.ffn is None else turned(block.ffn.down.weight),
                moe=block.moe,
                window=config.layer_window(index),
            )
        )
    final_norm = thinker.norm.weight.float() * config.width**0.5
    return Plan(tuple(layers), final_norm, turned(thinker.head_weight()))


class CachedStep:
    """Call with x [B, D], the embeddings of the next position; returns hidden [B, D]."""

    def __init__(self, thinker: Thinker, cache: KVCache) -> None:
        config = thinker.config
        self.config, self.cache, self.rope = config, cache, thinker.rope
        self.plan = plan_of(thinker)
        like = thinker.token_table.weight
        # hypot(|x|, sqrt(width * eps)) is the root of sum(x^2) + width * eps in one operator.
        floors = [config.width * config.norm_eps, config.head_width * config.norm_eps]
        self.floor, self.head_floor = torch.tensor(floors, device=like.device).sqrt().split(1)
        self.identity = torch.eye(config.head_width, dtype=like.dtype, device=like.device)
        self.swap = self.identity.roll(config.head_width // 2, 0)
        self.store = cache.store.flatten(0, 1)
        self.next = cache.lengths() if cache.valid is not None else None

    def rotation(self) -> Tensor:
        """[K, K], or [B, K, K] when the sequences stand at different positions: q @ it rotates q.

        One product replaces the five operators of an elementwise rotation, and serves all layers.
        """
        if self.next is None:
            cos, sin = self.rope.cos[self.cache.length], self.rope.sin[self.cache.length]
        else:
            cos, sin = self.rope.cos[self.next, None], self.rope.sin[self.next, None]
        cos, sin = cos.to(self.identity.dtype), sin.to(self.identity.dtype)
        return torch.addcmul(self.identity * cos, self.swap, sin)

    def __call__(self, x: Tensor) -> Tensor:
        cache, batch = self.cache, x.shape[0]
        rotation = self.rotation()
        column = cache.length
        cache.extend(1, None)
        mask = None
        if cache.valid is not None and self.next is not None:
            cache.valid[:, column] = True
            self.next = self.next + 1
            empty = x.new_zeros(batch, 1, 1, cache.length)
            mask = empty.masked_fill_(~cache.valid[:, None, None, : cache.length], float("-inf"))
        slots = self.store[:, :, :, column].unbind(0)
        past = self.store[:, :, :, : cache.length].unbind(0)
        for i, layer in enumerate(self.plan.layers):
            k, v = past[2 * i], past[2 * i + 1]
            read_mask = mask
            if layer.window is not None and cache.length > layer.window:
                k, v = k[:, :, -layer.window :], v[:, :, -layer.window :]
                read_mask = None if mask is None else mask[..., -layer.window :]
            normed = _norm(x, layer.attention_norm, self.floor)
            q = self._project(layer, normed, rotation, slots[2 * i], slots[2 * i + 1])
            read = _read(q, k, v, read_mask)
            x = torch.addmm(x, read.view(batch, -1), layer.out)
            normed = _norm(x, layer.ffn_norm, self.floor)
            if layer.moe is not None:
                x = x + layer.moe(normed[:, None])[0][:, 0]
            else:
                assert layer.gate_up is not None and layer.down is not None
                gate, up = torch.mm(normed, layer.gate_up).chunk(2, 1)
                x = torch.addmm(x, F.silu(gate).mul_(up), layer.down)
        return _norm(x, self.plan.final_norm, self.floor)

    def _project(
        self, layer: Layer, x: Tensor, rotation: Tensor, k_slot: Tensor, v_slot: Tensor
    ) -> Tensor:
        """Write this position's key and value [B, Hkv, K]; return its queries [B, Hkv, G, K]."""
        config, batch = self.config, x.shape[0]
        heads, kv, width = config.heads, config.kv_heads, config.head_width
        if layer.qkv_bias is None:
            qkv = torch.mm(x, layer.qkv)
        else:
            qkv = torch.addmm(layer.qkv_bias, x, layer.qkv)
        qkv = qkv.view(batch, heads + 2 * kv, width)
        qk = qkv[:, : heads + kv]
        if layer.head_norm is not None:
            qk = _norm(qk, layer.head_norm, self.head_floor)
        qk = torch.matmul(qk, rotation)
        k_slot.copy_(qk[:, heads:])
        v_slot.copy_(qkv[:, heads + kv :])
        # Queries that share a key head become rows of one read, so keys are never repeated.
        return qk[:, :heads].view(batch, kv, heads // kv, width)


def _read(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """q [B, Hkv, G, K] over k and v [B, Hkv, S, K] -> [B, Hkv, G, K]; mask [B, 1, 1, S]."""
    if mask is not None or q.shape[0] > 1 or q.dtype != torch.float32:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    # For one row of queries two plain products take half the time of the fused kernel.
    scale = q.shape[-1] ** -0.5
    scores = torch.baddbmm(q.new_empty(1), q[0], k[0].transpose(1, 2), beta=0, alpha=scale)
    return torch.bmm(scores.softmax(-1), v[0])


def _norm(x: Tensor, weight: Tensor, floor: Tensor) -> Tensor:
    if x.dtype != torch.float32:
        # Half precision cannot hold the length of a vector; take the exact, slower way.
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        return (wide / torch.hypot(length, floor)).mul_(weight).to(x.dtype)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (x / torch.hypot(length, floor)).mul_(weight)
