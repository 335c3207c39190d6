"""Batches move as a whole, and a device that is not here is said in one sentence."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from lumoomni.cli import app
from lumoomni.train.devices import resident, to_device


@dataclass(frozen=True, kw_only=True)
class Inner:
    rows: Tensor
    name: str


@dataclass(frozen=True)
class Outer:
    inner: Inner
    pair: tuple[Tensor, int]
    nothing: Tensor | None
    config: Inner | None = None


def batch() -> Outer:
    return Outer(Inner(rows=torch.ones(2, 3), name="x"), (torch.zeros(1), 5), None)


def test_every_tensor_moves_and_nothing_else_changes() -> None:
    moved = to_device(batch(), torch.device("meta"))
    assert moved.inner.rows.device.type == moved.pair[0].device.type == "meta"
    assert moved.inner.rows.shape == (2, 3) and moved.inner.name == "x"
    assert moved.pair[1] == 5 and moved.nothing is None
    here = batch()
    assert to_device(here.inner, torch.device("cpu")) is here.inner


def test_modules_stay_where_they_are_on_a_cpu() -> None:
    module = nn.Linear(2, 2)
    before = module.weight.data_ptr()
    with resident([module], torch.device("cpu")):
        assert module.weight.data_ptr() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_here_stops_a_build_before_it_begins(tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = CliRunner().invoke(app, ["build", "nano", "--out", str(out), "--device", "cuda"])
    assert shown.exit_code == 2 and not out.exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_modules_come_back_from_a_gpu() -> None:
    module = nn.Linear(2, 2)
    with resident([module], torch.device("cuda")):
        assert module.weight.device.type == "cuda"
    assert module.weight.device.type == "cpu"
