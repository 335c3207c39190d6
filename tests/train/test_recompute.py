"""Activation checkpointing by the loop: the same weights, more forwards, and no silent no-op."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lumoomni.errors import InputError
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.rows import Rows, RowsConfig, RowThinker
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.runtime import Progress
from lumoomni.train.loop import FitSite, LoopConfig, StepLoss, fit
from lumoomni.train.loss import lm_loss
from lumoomni.train.optim import OptimConfig
from lumoomni.train.recompute import recomputing

SHAPE = ThinkerConfig(
    vocab_size=40,
    width=16,
    layers=3,
    heads=2,
    kv_heads=1,
    head_width=8,
    ffn_width=24,
    dropout=0.2,
    short_conv=2,
)


class Reads:
    """A Thinker that learns to say what it was shown; counts how often a layer runs."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.thinker, self.ran = Thinker(SHAPE), 0
        self.modules: dict[str, nn.Module] = {"thinker": self.thinker}
        self.thinker.blocks[1].register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.ran += 1

    def batch(self, index: int) -> Tensor:
        return torch.randint(40, (4, 12), generator=torch.Generator().manual_seed(index))

    def weight(self, batch: Tensor) -> float:
        return float(batch.numel())

    def loss(self, batch: Tensor) -> StepLoss:
        hidden = self.thinker(self.thinker.embed(batch)).hidden
        return StepLoss(lm_loss(hidden, batch, self.thinker.head_weight()).total, {})


def learned(folder: Path, checkpointing: bool) -> Reads:
    task = Reads()
    loop = LoopConfig(steps=5, batch_size=4, checkpointing=checkpointing)
    place = FitSite(
        name="reads",
        work=folder,
        progress=Progress(silent=True),
        log=lambda _: None,
        stop=threading.Event(),
    )
    fit(task, loop, OptimConfig(lr=1e-2, matrix_lr=0.02, warmup=2), place)
    assert not task.thinker.checkpointing
    return task


def test_layers_are_computed_again_and_nothing_else_changes(tmp_path: Path) -> None:
    plain, again = learned(tmp_path / "a", False), learned(tmp_path / "b", True)
    assert (plain.ran, again.ran) == (5, 10)
    for one, other in zip(plain.thinker.parameters(), again.thinker.parameters(), strict=True):
        assert torch.equal(one, other)


def test_where_nothing_would_be_saved_it_is_refused() -> None:
    with (
        pytest.raises(InputError, match="trains through no Thinker"),
        recomputing([nn.ReLU()], True),
    ):
        pass
    with recomputing([nn.ReLU()], False):
        pass


def test_a_makers_view_is_computed_again_too() -> None:
    torch.manual_seed(0)
    thinker, maker = Thinker(SHAPE).eval(), Thinker(SHAPE).eval()
    rows = Rows(RowsConfig(start=40, count=10, width=16, markers=2))
    model = RowThinker(thinker, rows, maker)
    ids, ran, grads = torch.randint(50, (3, 9)), [0], []
    ids[:, :2] = 3
    matrix = maker.blocks[0].get_submodule("ffn.down")
    matrix.register_forward_pre_hook(lambda *_: ran.__setitem__(0, ran[0] + 1))
    for on in (False, True):
        model.zero_grad()
        maker.zero_grad()
        with recomputing([model], on):
            hidden = model(ids, AttentionSpec(lengths=torch.tensor([9, 7, 5]))).hidden
        hidden.square().sum().backward()
        grads.append([p.grad for p in (*maker.parameters(), *rows.parameters())])
    assert ran == [3]
    for one, other in zip(*grads, strict=True):
        assert (one is None) == (other is None) and (one is None or torch.equal(one, other))
