"""Positions that are asked for: the same states and gradients, made of fewer rows."""

import pytest
import torch

from lumoomni.data.conversation import IGNORE
from lumoomni.model.asked import asked_rows, pick, put
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.layers import SwiGLU
from lumoomni.model.moe import MoEConfig
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.train.loss import lm_loss, predicting

LENGTHS = torch.tensor([20, 17, 9, 20])
DOCUMENTS = torch.tensor([[0] * 8 + [1] * 12, [0] * 17 + [1] * 3, [0] * 20, [0, 0] + [1] * 18])
SPECS = {
    "plain": AttentionSpec(lengths=LENGTHS),
    "packed": AttentionSpec(documents=DOCUMENTS),
    "no padding": None,
}


def make(**more: object) -> Thinker:
    torch.manual_seed(0)
    config = {"vocab_size": 50, "width": 32, "layers": 3, "heads": 4, "kv_heads": 2}
    thinker = Thinker(ThinkerConfig(**config, head_width=8, ffn_width=48, **more))  # type: ignore
    for parameter in thinker.parameters():
        parameter.data = parameter.data + 0.2 * torch.randn_like(parameter)
    return thinker


def labels_of(share: float) -> torch.Tensor:
    torch.manual_seed(1)
    labels = torch.randint(50, (4, 20))
    return labels.masked_fill(torch.rand(4, 20) >= share, IGNORE)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_is_asked_for_is_what_it_would_be(
    spec: AttentionSpec | None, checkpointing: bool
) -> None:
    thinker, labels, found = make(short_conv=2), labels_of(0.3), []
    ids, wanted = torch.randint(50, (4, 20)), predicting(labels)
    thinker.checkpointing = checkpointing
    for asked in (None, wanted):
        thinker.zero_grad()
        hidden = thinker(thinker.embed(ids), attention=spec, asked=asked).hidden
        total = lm_loss(hidden, labels, thinker.head_weight()).total
        total.backward()
        found.append((hidden[wanted], total, [p.grad for p in thinker.parameters()]))
        if asked is not None:
            assert not hidden[~wanted].any()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_the_last_layer_runs_where_it_is_asked_alone() -> None:
    thinker, rows = make(), []
    for block in thinker.blocks:
        ffn = block.ffn
        assert isinstance(ffn, SwiGLU)
        ffn.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0][..., 0].numel()))
    asked = torch.zeros(4, 20, dtype=torch.bool)
    asked[:, 3:9] = True  # 24 of 80, filled up to 32
    thinker(thinker.embed(torch.randint(50, (4, 20))), asked=asked)
    assert rows == [80, 80, 32]
    rows.clear()
    asked[:, 3:19] = True
    thinker(thinker.embed(torch.randint(50, (4, 20))), asked=asked)
    assert rows == [80, 80, 80]


def test_experts_are_balanced_over_every_position() -> None:
    thinker = make(moe=MoEConfig(experts=4, active=2, ffn_width=16))
    x, asked = thinker.embed(torch.randint(50, (4, 20))), labels_of(0.2) != IGNORE
    whole, some = thinker(x), thinker(x, asked=asked)
    assert torch.equal(whole.hidden, some.hidden) and whole.aux_loss == some.aux_loss


def test_picking_and_putting_undo_each_other() -> None:
    asked = asked_rows(torch.tensor([[True, False] + [False] * 48, [False] * 49 + [True]]))
    assert asked is not None and asked.rows.tolist() == [0, 99] and asked.room == 32
    x = torch.randn(2, 50, 3, dtype=torch.double, requires_grad=True)
    back = put(pick(x, asked), asked, x)
    assert torch.equal(back[0, 0], x[0, 0]) and torch.equal(back[1, 49], x[1, 49])
    assert back.count_nonzero() == 6
    assert torch.autograd.gradcheck(lambda y: put(pick(y, asked).sin(), asked, y), [x])


def test_nothing_asked_is_no_error() -> None:
    thinker = make()
    x = thinker.embed(torch.randint(50, (4, 20)))
    assert not thinker(x, asked=torch.zeros(4, 20, dtype=torch.bool)).hidden.any()
