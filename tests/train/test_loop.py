"""The loop: one normaliser, exact resume, honest failures."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from lumoomni import arithmetic
from lumoomni.errors import InputError, RunFailure
from lumoomni.runtime import Interrupted, Progress
from lumoomni.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lumoomni.train.loop import FitSite, LoopConfig, StepLoss, fit
from lumoomni.train.optim import OptimConfig, Optimizers, rate_at
from lumoomni.train.precision import bf16_supported

OPTIM = OptimConfig(lr=1e-2, matrix_lr=0.02, warmup=3)


class Toy:
    """Fit a noisy map; batches hold different numbers of rows, so weights differ."""

    def __init__(self, split: int = 1) -> None:
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.modules: dict[str, nn.Module] = {"net": self.net}
        self.split = split

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        whole, part = divmod(index, self.split)
        source = torch.Generator().manual_seed(whole)
        rows = 8 + 4 * (whole % 3)
        x = torch.randn(rows, 6, generator=source)
        cut = [0, rows // 4, rows] if self.split == 2 else [0, rows]
        x = x[cut[part] : cut[part + 1]]
        return x, x.sum(1, keepdim=True)

    def weight(self, batch: Any) -> float:
        return float(len(batch[0]))

    def loss(self, batch: Any) -> StepLoss:
        return StepLoss(((self.net(batch[0]) - batch[1]) ** 2).sum(), {})


def site(folder: Path, stop: threading.Event | None = None) -> FitSite:
    return FitSite(
        name="toy",
        work=folder,
        progress=Progress(silent=True),
        log=lambda _: None,
        stop=stop or threading.Event(),
    )


def loop(steps: int, **more: Any) -> LoopConfig:
    return LoopConfig(steps=steps, batch_size=8, bf16=False, **more)


def state(task: Toy) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in task.net.state_dict().items()}


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    whole = Toy()
    fit(whole, loop(20), OPTIM, site(tmp_path / "a"))
    stop, first = threading.Event(), Toy()
    original = first.loss

    def stop_at_seven(batch: Any, count: list[int] = [0]) -> StepLoss:  # noqa: B006
        count[0] += 1
        if count[0] == 7:
            stop.set()
        return original(batch)

    first.loss = stop_at_seven  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="after step 7 of 20"):
        fit(first, loop(20), OPTIM, site(tmp_path / "b", stop))
    second = Toy()
    torch.manual_seed(999)
    fit(second, loop(20), OPTIM, site(tmp_path / "b"))
    for key, value in state(whole).items():
        assert torch.equal(state(second)[key], value), key


@pytest.mark.skipif(not bf16_supported(torch.device("cpu")), reason="fp32 has no casts to keep")
def test_a_thread_that_leaves_autocast_changes_no_bit(tmp_path: Path) -> None:
    """Making batches does so at any moment; a weight used twice tells."""

    def trained(folder: Path, disturb: bool) -> dict[str, Tensor]:
        task = Toy()
        first, last = task.net[0], task.net[2]

        def elsewhere() -> None:
            with torch.autocast("cpu", enabled=False):
                pass

        def twice(batch: Any) -> StepLoss:
            one = first(batch[0])
            if disturb:
                thread = threading.Thread(target=elsewhere)
                thread.start()
                thread.join()
            two = first(0.3 * batch[0])
            return StepLoss(((last(one * two) - batch[1]) ** 2).sum().float(), {})

        task.loss = twice  # type: ignore[method-assign]
        fit(task, LoopConfig(steps=8, batch_size=8), OPTIM, site(folder))
        return state(task)

    calm, disturbed = trained(tmp_path / "a", False), trained(tmp_path / "b", True)
    for key, value in calm.items():
        assert torch.equal(disturbed[key], value), key


def test_what_is_learned_is_multiplied_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "_onednn_is_quicker", lambda: True)
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    task, seen = Toy(), []
    learned = task.loss

    def watched(batch: Any) -> StepLoss:
        seen.append(products.fp32_precision)
        return learned(batch)

    task.loss = watched  # type: ignore[method-assign]
    before = products.fp32_precision
    fit(task, loop(2), OPTIM, site(tmp_path))
    assert seen == ["bf16", "bf16"] and products.fp32_precision == before != "bf16"


def test_accumulation_is_one_big_batch(tmp_path: Path) -> None:
    one, two = Toy(), Toy(split=2)
    for task in (one, two):
        task.net[1].p = 0.0
    fit(one, loop(10), OPTIM, site(tmp_path / "a"))
    fit(two, loop(10, accumulate=2), OPTIM, site(tmp_path / "b"))
    for key, value in state(one).items():
        assert torch.allclose(state(two)[key], value, atol=1e-5), key


def test_it_learns_and_logs(tmp_path: Path) -> None:
    task, lines = Toy(), []
    place = FitSite(
        name="toy",
        work=tmp_path,
        progress=Progress(silent=True),
        log=lines.append,
        stop=threading.Event(),
    )
    task.net[1].p = 0.0
    result = fit(task, loop(120), OPTIM, place)
    assert lines[-1]["step"] == 120 and lines[-1]["loss"] < 0.2 * lines[0]["loss"]
    assert result.steps == 120 and not task.net.training


def test_what_cannot_be_learned_from_stops_the_run(tmp_path: Path) -> None:
    empty = Toy()
    empty.weight = lambda _: 0.0  # type: ignore[method-assign]
    with pytest.raises(RunFailure, match=r"update 1 of toy .* every label is masked"):
        fit(empty, loop(3), OPTIM, site(tmp_path / "a"))
    broken = Toy()
    broken.loss = lambda b: StepLoss(broken.net(b[0]).sum() * float("nan"), {})  # type: ignore
    with pytest.raises(RunFailure, match="loss became nan at update 1 of toy; lower"):
        fit(broken, loop(3), OPTIM, site(tmp_path / "b"))
    frozen = Toy()
    frozen.net.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing would be trained"):
        fit(frozen, loop(3), OPTIM, site(tmp_path / "c"))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    fit(Toy(), loop(2), OPTIM, site(tmp_path))
    other = Toy()
    other.modules = {"another": other.net}
    with pytest.raises(InputError, match=r"other parameters .* delete it to start"):
        fit(other, loop(4), OPTIM, site(tmp_path))
    (tmp_path / "toy.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a usable training checkpoint"):
        fit(Toy(), loop(4), OPTIM, site(tmp_path))


def test_checkpoints_round_trip(tmp_path: Path) -> None:
    shared = torch.randn(3)
    made = Checkpoint(5, {"a": shared, "b": shared}, {"0.1.step": torch.tensor(2.0)}, {"k": "v"})
    save_checkpoint(tmp_path / "c", made)
    back = load_checkpoint(tmp_path / "c")
    assert back.step == 5 and back.meta == {"k": "v"}
    assert torch.equal(back.model["b"], shared) and back.optim["0.1.step"] == 2.0
    # Files from before, which also held the random state, are read all the same.
    old = {"model.a": shared, "rng": torch.get_rng_state()}
    (tmp_path / "o").write_bytes(safetensors.torch.save(old, {"step": "5", "meta": "{}"}))
    assert load_checkpoint(tmp_path / "o").model.keys() == {"a"}


def test_rates_rise_hold_and_fall() -> None:
    config = OptimConfig(warmup=10, decay_from=0.5, min_ratio=0.1)
    rates = [rate_at(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == rates[50] == 1.0
    assert rates == sorted(rates[:10]) + rates[10:] and rates[99] < 0.13


def test_muon_gets_hidden_matrices_only() -> None:
    net = nn.ModuleDict({"hidden": nn.Linear(4, 4), "token_table": nn.Embedding(5, 4)})
    optimizers = Optimizers(net.named_parameters(), OPTIM, {"hidden": 0.5})
    muon, adam = optimizers.members
    assert [p.shape for g in muon.param_groups for p in g["params"]] == [torch.Size([4, 4])]
    assert muon.param_groups[0]["lr"] == pytest.approx(0.01)
    assert sum(len(g["params"]) for g in adam.param_groups) == 2


def test_many_makers_give_the_same_batches_in_the_same_order(tmp_path: Path) -> None:
    one, many = Toy(), Toy()
    fit(one, loop(12), OPTIM, site(tmp_path / "a"))
    slow = many.batch

    def late(index: int) -> tuple[Tensor, Tensor]:
        time.sleep(0.004 * (3 - index % 3))  # later ones are ready first
        return slow(index)

    many.batch = late  # type: ignore[method-assign]
    fit(many, loop(12, makers=3), OPTIM, site(tmp_path / "b"))
    for key, value in state(one).items():
        assert torch.equal(value, state(many)[key])
    with pytest.raises(ValueError, match="makers must be at least 1"):
        loop(1, makers=0)


def test_an_echo_that_nobody_makes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"toy.loop.echo is 2, but this stage makes each sample"):
        fit(Toy(), loop(3, echo=2), OPTIM, site(tmp_path))
    heeds = Toy()
    heeds.echoes = True  # type: ignore[attr-defined]
    assert fit(heeds, loop(3, echo=2), OPTIM, site(tmp_path)).steps == 3


@pytest.mark.parametrize("bf16", [True, False])
def test_float32_is_meant_for_every_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    for module in ("loop", "optim"):
        monkeypatch.setattr(f"lumoomni.train.{module}.bf16_supported", lambda device: True)
    kinds: set[torch.dtype] = set()
    monkeypatch.setattr(
        "lumoomni.train.muon.orthogonal",
        lambda slope, steps, dtype: kinds.add(dtype) or slope,
    )
    task = Toy()
    task.net[0].register_forward_hook(lambda module, inputs, out: kinds.add(out.dtype))
    fit(task, LoopConfig(steps=2, batch_size=8, bf16=bf16), OPTIM, site(tmp_path))
    assert kinds == {torch.bfloat16 if bf16 else torch.float32}
