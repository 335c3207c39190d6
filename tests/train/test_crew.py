"""A crew: what two processes learn is what one learns, and nobody waits for the dead."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lumoomni.errors import InputError, RunFailure
from lumoomni.runtime import Interrupted, Progress
from lumoomni.train.crew import CrewBroken, Memory, _member, crew_size, deal
from lumoomni.train.loop import FitSite, LoopConfig, StepLoss, fit
from lumoomni.train.optim import OptimConfig

LOOP = LoopConfig(steps=12, batch_size=8, accumulate=2, bf16=False, checkpoint_seconds=0.0)
OPTIM = OptimConfig(lr=1e-2, matrix_lr=0.02, warmup=3)


class Toy:
    """Two micro-batches an update, of different sizes; dropout; a weight that few batches use."""

    def __init__(self, notes: Path | None = None) -> None:
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.rare = nn.Linear(6, 1)
        self.modules: dict[str, nn.Module] = {"net": self.net, "rare": self.rare}
        self.notes = notes

    def batch(self, index: int) -> tuple[int, Tensor]:
        source = torch.Generator().manual_seed(index)
        return index, torch.randn(4 + 3 * (index % 2), 6, generator=source)

    def weight(self, batch: Any) -> float:
        return float(len(batch[1]))

    def loss(self, batch: Any) -> StepLoss:
        index, x = batch
        if self.notes is not None:
            with self.notes.open("a") as file:
                file.write(f"{os.getpid()} {index}\n")
        y = self.net(x)
        if index % 3 == 1:
            y = y + self.rare(x)
        total = ((y - x.sum(1, keepdim=True)) ** 2).sum()
        return StepLoss(total, {"odd": float(index % 2)})


def site(folder: Path, crew: int, stop: threading.Event | None = None, log: Any = None) -> FitSite:
    return FitSite(
        name="toy",
        work=folder,
        progress=Progress(silent=True),
        log=log or (lambda _: None),
        stop=stop or threading.Event(),
        crew=crew,
    )


def weights(task: Toy) -> list[Tensor]:
    return [p.detach().clone() for module in task.modules.values() for p in module.parameters()]


def test_two_members_learn_what_one_learns(tmp_path: Path) -> None:
    alone, pair, lines = Toy(), Toy(tmp_path / "notes"), []
    fit(alone, LOOP, OPTIM, site(tmp_path / "a", 1))
    threads = torch.get_num_threads()
    fit(pair, LOOP, OPTIM, site(tmp_path / "b", 2, log=lines.append))
    for one, other in zip(weights(alone), weights(pair), strict=True):
        assert torch.equal(one, other)
    assert torch.get_num_threads() == threads
    # Both worked, each at its own micro-batches, and the log knows of both.
    done = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    indices = {pid: [int(i) for p, i in done if p == pid] for pid, _ in done}
    assert sorted(indices.values()) == [list(range(0, 24, 2)), list(range(1, 24, 2))]
    assert lines[-1]["odd"] == pytest.approx(1 / 11)


def test_a_crew_stops_and_one_process_goes_on(tmp_path: Path) -> None:
    whole = Toy()
    fit(whole, LOOP, OPTIM, site(tmp_path / "a", 1))
    stop, first = threading.Event(), Toy()
    original = first.loss

    def stop_at_seven(batch: Any) -> StepLoss:
        if batch[0] == 12:
            stop.set()
        return original(batch)

    first.loss = stop_at_seven  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="after step 7 of 12"):
        fit(first, LOOP, OPTIM, site(tmp_path / "b", 2, stop))
    second = Toy()
    fit(second, LOOP, OPTIM, site(tmp_path / "b", 1))
    for one, other in zip(weights(whole), weights(second), strict=True):
        assert torch.equal(one, other)


def test_a_member_says_what_it_cannot_use_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    task, parent = Toy(), os.getpid()
    original = task.batch

    def unreadable(index: int) -> tuple[int, Tensor]:
        if index == 5 and os.getpid() != parent:
            raise InputError("five.wav cannot be read")
        return original(index)

    task.batch = unreadable  # type: ignore[method-assign]
    with pytest.raises(RunFailure, match="what it said stands above"):
        fit(task, LOOP, OPTIM, site(tmp_path, 2))
    said = capfd.readouterr().err
    assert "error: five.wav cannot be read" in said and "Traceback" not in said


def test_a_loss_that_is_lost_is_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    task = Toy()
    original = task.loss

    def lost(batch: Any) -> StepLoss:
        found = original(batch)
        return StepLoss(found.total * float("nan" if batch[0] == 7 else 1), found.parts)

    task.loss = lost  # type: ignore[method-assign]
    with pytest.raises(RunFailure, match="loss became nan at update 4 of toy"):
        fit(task, LOOP, OPTIM, site(tmp_path, 2))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("failure", [RunFailure, CrewBroken])
def test_what_all_members_meet_breaks_no_barrier(failure: type[RunFailure]) -> None:
    """The first member may still be leaving it, and would say that another stopped, not why."""
    memory = Memory(2, [torch.zeros(1)], 1)
    child = os.fork()
    if child == 0:
        with _member(memory):
            raise failure("the loss became nan")
    assert os.waitpid(child, 0)[1] == (256 if failure is CrewBroken else 0)
    assert memory.barrier.broken is (failure is CrewBroken)


@pytest.mark.parametrize("killed", [False, True])
def test_a_lost_member_ends_the_run_and_not_the_checkpoint(
    tmp_path: Path, killed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    task, parent = Toy(), os.getpid()
    original = task.loss

    def die(batch: Any) -> StepLoss:
        if batch[0] == 11 and os.getpid() != parent:
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("this member cannot go on")
        return original(batch)

    task.loss = die  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="training along has stopped"):
        fit(task, LOOP, OPTIM, site(tmp_path, 2))
    assert killed or "this member cannot go on" in capfd.readouterr().err
    again, whole = Toy(), Toy()
    fit(again, LOOP, OPTIM, site(tmp_path, 1))
    fit(whole, LOOP, OPTIM, site(tmp_path / "whole", 1))
    for one, other in zip(weights(whole), weights(again), strict=True):
        assert torch.equal(one, other)


def test_what_learns_without_gradients_trains_alone(tmp_path: Path) -> None:
    task = Toy(tmp_path / "notes")
    task.net.register_buffer("mean", torch.zeros(3))
    fit(task, LOOP, OPTIM, site(tmp_path, 2))
    assert {line.split()[0] for line in (tmp_path / "notes").read_text().splitlines()} == {
        str(os.getpid())
    }


def test_work_is_dealt_evenly() -> None:
    owners = deal([5, 1, 1, 1, 1, 1], 2)
    assert [sum(o == r for o in owners) for r in (0, 1)] in ([1, 5], [5, 1])
    assert sorted(deal([1.0] * 7, 3)) == [0, 0, 0, 1, 1, 2, 2]
    assert crew_size(1) == 1 and 1 <= crew_size(64) <= 64


def test_every_member_computes_with_zero_for_what_is_slow(tmp_path: Path) -> None:
    task, kept = Toy(tmp_path / "notes"), []
    tiny = torch.tensor(1e-38)
    original = task.loss

    def loss(batch: Any) -> StepLoss:
        found = float(tiny * 0.1)
        return StepLoss(original(batch).total, {"tiny": float(found != 0.0)})

    task.loss = loss  # type: ignore[method-assign]
    assert float(tiny * 0.1) != 0.0
    fit(task, LOOP, OPTIM, site(tmp_path, 2, log=kept.append))
    assert kept and all(line["tiny"] == 0.0 for line in kept)
    assert float(tiny * 0.1) != 0.0  # and who called has it as it was
