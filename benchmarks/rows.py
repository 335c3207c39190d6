"""Training new rows beside a frozen table: our two-block loss and `peft`'s TrainableTokens.

Knows: hidden states [N, D], a head of 151,936 rows, 12,352 new ones; the gradients that both make
must agree before a ratio is told. Then the head alone over the legal slice against the whole head.
And rows that are sums of a colour's and a form's, beside the same ones written out (`nano`'s size).
Does not know: models; only the head's part of a step is measured, where the two differ.
Costs: about four minutes on two cores, 3 GB of memory for the peer.

    python -m benchmarks.rows --json rows.json [--quick]
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.factors import Factors
from lumoomni.train.row_loss import row_loss

BASE, NEW, WIDTH, POSITIONS = 151_936, 12_352, 512, 1024
PICTURE = 8_192
"""Codes of a picture: the slice that is legal inside one."""
SMALL_BASE, OTHERS, COLOURS, FORMS, SMALL_WIDTH = 1024, 832, 36, 216, 192


def case(positions: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden [1, N + 1, D] that needs a gradient, labels [1, N + 1], base [V, D], rows [K, D]."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, positions + 1, WIDTH, generator=generator) * 0.5
    labels = torch.randint(0, BASE + NEW, (1, positions + 1), generator=generator)
    base = torch.randn(BASE, WIDTH, generator=generator) * 0.05
    rows = torch.randn(NEW, WIDTH, generator=generator) * 0.05
    return hidden.requires_grad_(), labels, base, rows


def ours(positions: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """One step: loss and backward; (gradient of the rows, of the hidden states)."""
    hidden, labels, base, rows = case(positions)
    weights = nn.Parameter(rows)

    def step() -> tuple[Tensor, Tensor]:
        hidden.grad = weights.grad = None
        row_loss(hidden, labels, base, weights).mean().backward()
        assert weights.grad is not None and hidden.grad is not None
        return weights.grad, hidden.grad

    return step


def peer(positions: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """The same with `peft`: a table of all rows, of which the last NEW are trained."""
    from peft import TrainableTokensConfig, get_peft_model

    hidden, labels, base, rows = case(positions)

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lm_head = nn.Linear(WIDTH, BASE + NEW, bias=False)
            self.lm_head.weight.data = torch.cat([base, rows])

        def forward(self, x: Tensor) -> Tensor:
            return self.lm_head(x)

    config = TrainableTokensConfig(
        target_modules=["lm_head"], token_indices=list(range(BASE, BASE + NEW)), init_weights=True
    )
    model = get_peft_model(Head(), config)
    (weights,) = [p for p in model.parameters() if p.requires_grad]

    def step() -> tuple[Tensor, Tensor]:
        hidden.grad = weights.grad = None
        logits = model(hidden)
        F.cross_entropy(logits[0, :-1], labels[0, 1:]).backward()
        assert weights.grad is not None and hidden.grad is not None
        return weights.grad, hidden.grad

    return step


SIDES = {"peft": peer, "lumoomni": ours}


def peak(name: str, positions: int, pipe: Connection) -> None:
    """MiB that a step adds to a process that holds everything it starts from."""
    step = SIDES[name](positions)
    step_small = SIDES[name](4)  # what libraries take on first use
    step_small()
    del step_small
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    before = _status("VmHWM")
    step()
    pipe.send(_status("VmHWM") - before)


def _status(name: str) -> float:
    """A line of this process's status, in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def memory(positions: int) -> dict[str, float]:
    """Each side in a process of its own."""
    context, found = multiprocessing.get_context("spawn"), {}
    for name in SIDES:
        here, there = context.Pipe()
        child = context.Process(target=peak, args=(name, positions, there))
        child.start()
        found[name] = here.recv()
        child.join()
    return found


def training(positions: int, rounds: int) -> dict:
    """Seconds a step, in turns; the gradients must be the same."""
    steps = {name: side(positions) for name, side in SIDES.items()}
    made = {name: step() for name, step in steps.items()}
    for mine, theirs in zip(made["lumoomni"], made["peft"], strict=True):
        worst = float((mine - theirs.view_as(mine)).abs().max() / theirs.abs().max())
        if worst > 1e-3:
            raise SystemExit(f"the two make other gradients (by {worst:.1e}): no ratio is honest")
    seconds = turns(steps, rounds)
    return {"seconds": seconds, "time_ratio": seconds["lumoomni"] / seconds["peft"]}


def generating(rounds: int) -> dict:
    """Scoring one position: the whole head with a mask, and the legal rows alone."""
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(BASE + NEW, WIDTH, generator=generator)
    hidden = torch.randn(1, WIDTH, generator=generator)
    legal = table[BASE + 64 : BASE + 64 + PICTURE]
    mask = torch.ones(BASE + NEW, dtype=torch.bool)
    mask[BASE + 64 : BASE + 64 + PICTURE] = False

    def whole() -> int:
        return int((hidden @ table.t()).masked_fill_(mask, float("-inf")).argmax())

    def part() -> int:
        return int((hidden @ legal.t()).argmax()) + BASE + 64

    if whole() != part():
        raise SystemExit("the two choose other ids: no ratio is honest")
    seconds = turns({"whole": whole, "slice": part}, rounds)
    return {"seconds": seconds, "ratio": seconds["whole"] / seconds["slice"]}


def summed(positions: int, rounds: int) -> dict:
    """Seconds of loss and backward in bfloat16: all codes' logits, and those of their parts."""
    generator = torch.Generator().manual_seed(2)
    codes = COLOURS * FORMS
    hidden = torch.randn(1, positions + 1, SMALL_WIDTH, generator=generator).requires_grad_()
    labels = torch.randint(0, SMALL_BASE + codes, (1, positions + 1), generator=generator)
    base = torch.randn(SMALL_BASE, SMALL_WIDTH, generator=generator) * 0.05
    vectors = [torch.randn(n, SMALL_WIDTH, generator=generator) for n in (COLOURS, FORMS)]
    sums = (vectors[0][:, None] + vectors[1]).flatten(0, 1) * 0.05
    others = torch.randn(OTHERS, SMALL_WIDTH, generator=generator) * 0.05
    table = torch.cat([others, sums])
    parts = torch.cartesian_prod(torch.arange(COLOURS), torch.arange(FORMS))
    factors = Factors(parts, OTHERS, table)
    written = nn.Parameter(table.clone())

    def step(rows: Callable) -> Callable[[], float]:
        def run() -> float:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = row_loss(hidden, labels, base, rows()).mean()
            loss.backward()
            return float(loss.detach())

        return run

    steps = {
        "written out": step(lambda: written),
        "sums": step(lambda: factors.head(factors.others(table))),
    }
    one, other = (steps[name]() for name in steps)
    if abs(one - other) > 1e-2 * one:
        raise SystemExit(f"the two lose {one} and {other}: no ratio is honest")
    seconds = turns(steps, rounds)
    return {"seconds": seconds, "ratio": seconds["written out"] / seconds["sums"]}


def turns(steps: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median seconds of each, A B A B."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print four lines, optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    positions, rounds = (256, 3) if options.quick else (POSITIONS, 5)
    found = {"positions": positions, "training": training(positions, rounds)}
    found["memory_mib"] = memory(positions)
    found["generating"] = generating(50)
    found["sums"] = summed(POSITIONS, 30)
    trained, used = found["training"], found["memory_mib"]
    print(f"step    {trained['seconds']}  ours / peft {trained['time_ratio']:.2f}")
    print(f"memory  {used}  ours / peft {used['lumoomni'] / used['peft']:.3f}")
    print(f"scoring {found['generating']['seconds']}  {found['generating']['ratio']:.1f}x")
    print(f"sums    {found['sums']['seconds']}  {found['sums']['ratio']:.1f}x")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
