"""What this processor computes faster, bfloat16 or float32, by which library, and what skipping
unread states saves.

Knows: one matrix product of a laptop's size, and an update of nano's text stage on its own data.
Does not know: accuracy. Costs: about a minute.

    python -m benchmarks.precision [--threads 1] [--quick] [--json precision.json]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumoomni.arithmetic import quick_float32

SHAPE = (1760, 192, 512)
"""Positions, width and half of what a feed-forward opens."""
KINDS = {
    "bfloat16": (torch.bfloat16, nullcontext),
    "float32 as torch makes it": (torch.float32, nullcontext),
    "float32 as lumo does": (torch.float32, quick_float32),
}
"""Types, and how training makes their products (`lumoomni/arithmetic.py`)."""


def products(rounds: int) -> dict[str, float]:
    """Billions of operations a second of a product in each type, interleaved; medians."""
    rows, width, wide = SHAPE
    torch.manual_seed(0)
    given = {
        name: (torch.randn(rows, width).to(kind), torch.randn(width, wide).to(kind), how)
        for name, (kind, how) in KINDS.items()
    }
    times: dict[str, list[float]] = {name: [] for name in given}
    for turn in range(rounds + 5):
        for name, (a, b, how) in given.items():
            with how():
                began = time.perf_counter()
                _ = a @ b
                if turn >= 5:
                    times[name].append(time.perf_counter() - began)
    work = 2 * rows * width * wide / 1e9
    return {name: work / statistics.median(each) for name, each in times.items()}


def updates(count: int) -> tuple[dict[str, float], float]:
    """Milliseconds of a micro-batch, forward and backward, each way, interleaved; and the share of
    positions whose states are read. Late batches of `pretrain_text`, when it asks all it does."""
    task, thinker = text_task()
    batches = [task.batch(10_000 + i) for i in range(count)]
    from lumoomni.model.attention import AttentionSpec
    from lumoomni.train.loss import lm_loss, predicting

    def run(batch: Any, bf16: bool, asked: bool) -> Tensor:
        spec = AttentionSpec(lengths=batch.lengths)
        named = predicting(batch.labels) if asked else None
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
            hidden = thinker(thinker.embed(batch.ids), attention=spec, asked=named).hidden
            return lm_loss(hidden, batch.labels, thinker.head_weight()).total

    def whole(batch: Any, name: str, asked: bool) -> None:
        kind, how = KINDS[name]
        with how():
            run(batch, kind == torch.bfloat16, asked).backward()

    ways: dict[str, Callable[[Any], None]] = {
        f"{name}, {'states that are read' if asked else 'all states'}": (
            partial(whole, name=name, asked=asked)
        )
        for name in KINDS
        for asked in (False, True)
    }
    times = dict.fromkeys(ways, 0.0)
    for turn in range(2):  # the first makes kernels
        for batch in batches:
            for name, way in ways.items():
                began = time.perf_counter()
                way(batch)
                times[name] += turn * (time.perf_counter() - began)
    read = sum(int(predicting(b.labels).sum()) for b in batches)
    share = read / sum(b.ids.numel() for b in batches)
    return {name: 1000 * each / count for name, each in times.items()}, share


def text_task() -> tuple[Any, Any]:
    """The task of nano's text stage and its fresh Thinker."""
    from lumoomni.codecs.text import TextCodec
    from lumoomni.data.conversation import Layout
    from lumoomni.data.grouping import LengthGroups
    from lumoomni.data.sources import open_text
    from lumoomni.recipes.nano import nano
    from lumoomni.stages import pretrain_text as stage

    config = nano().stage("pretrain_text").config
    source = open_text("world", 0)
    codec = TextCodec.train(stage.training_lines(source, 2000), config.thinker.vocab_size)
    thinker = stage.new_thinker(config, codec, 0).train()
    layout = Layout(
        text_codec=codec,
        template=config.template,
        mel=config.mel,
        image_positions=config.shown_positions,
    )
    draw = stage.curriculum(config, source, 0)
    groups = LengthGroups(
        lambda i: stage.encode_item(layout, draw(i), stage.room(config)),
        batch_size=config.loop.batch_size,
        seed=0,
        parts=config.loop.accumulate,
    )
    return stage.TextTask(thinker, groups, config.aux_weight), thinker


def main() -> None:
    """Print each, and what `lumo` uses here."""
    from lumoomni.train.precision import bf16_supported

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rates = products(50 if options.quick else 300)
    used = "bfloat16" if bf16_supported(torch.device("cpu")) else "float32 as lumo does"
    for name, rate in rates.items():
        print(f"a product in {name}: {rate:.0f} GFLOP/s{' (used here)' if name == used else ''}")
    took, share = updates(4 if options.quick else 16)
    first = took["bfloat16, all states"]
    for name, each in took.items():
        print(f"a micro-batch in {name}: {each:.0f} ms, {first / each:.2f}x")
    print(f"states are read at {share:.0%} of the positions")
    if options.json:
        made = {"gflops": rates, "used": used, "micro_batch_ms": took, "read": share}
        options.json.write_text(json.dumps(made))


if __name__ == "__main__":
    main()
