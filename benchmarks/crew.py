"""Updates a second: a crew of processes against one process with all threads, same mathematics.

Knows: nano's Thinker on random ids, two micro-batches an update, in turns.
Costs: about a minute.

    python -m benchmarks.crew [--updates 40] [--json crew.json]
"""

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lumoomni.model.attention import AttentionSpec
from lumoomni.model.thinker import Thinker
from lumoomni.recipes.nano import nano
from lumoomni.runtime import Progress
from lumoomni.stages.pretrain_text import PretrainTextConfig
from lumoomni.train.crew import crew_size
from lumoomni.train.loop import FitSite, LoopConfig, StepLoss, fit
from lumoomni.train.loss import lm_loss


class RandomText:
    """Next-token prediction on noise; rows of one micro-batch are equally long."""

    def __init__(self, config: PretrainTextConfig, rows: int) -> None:
        torch.manual_seed(0)
        self.thinker = Thinker(config.thinker)
        self.modules: dict[str, nn.Module] = {"thinker": self.thinker}
        self._rows = rows

    def batch(self, index: int) -> torch.Tensor:
        """Ids [B, T], T between 48 and 144 and the same for both halves of an update."""
        source = torch.Generator().manual_seed(index // 2)
        length = int(torch.randint(48, 145, (), generator=source))
        return torch.randint(1, 1000, (self._rows, length), generator=source)

    def weight(self, batch: Any) -> float:
        """All ids but the first of each row."""
        return float(batch.shape[0] * (batch.shape[1] - 1))

    def loss(self, batch: Any) -> StepLoss:
        """Summed over the batch."""
        hidden = self.thinker(self.thinker.embed(batch), attention=AttentionSpec()).hidden
        return StepLoss(lm_loss(hidden, batch, self.thinker.head_weight()).total, {})


def seconds(size: int, updates: int, rows: int) -> float:
    """Seconds an update with a crew of `size`."""
    config: PretrainTextConfig = nano().stage("pretrain_text").config
    task = RandomText(config, rows)
    loop = LoopConfig(steps=updates, batch_size=rows, accumulate=2, checkpoint_seconds=1e9)
    with tempfile.TemporaryDirectory() as folder:
        site = FitSite(
            name="crew",
            work=Path(folder),
            progress=Progress(silent=True),
            log=lambda _: None,
            stop=threading.Event(),
            crew=size,
        )
        began = time.monotonic()
        fit(task, loop, config.optim, site)
        return (time.monotonic() - began) / updates


def main() -> None:
    """Print both, and how many times as fast the crew is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--rows", type=int, default=16, help="rows of each of two micro-batches")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size = crew_size(2)
    if size == 1:
        raise SystemExit("a crew needs Linux and two cores")
    alone, together = [], []
    for _ in range(3):
        alone.append(seconds(1, options.updates, options.rows))
        together.append(seconds(size, options.updates, options.rows))
    one, two = min(alone), min(together)
    print(f"one process, {torch.get_num_threads()} threads: {1000 * one:.0f} ms an update")
    print(f"crew of {size}: {1000 * two:.0f} ms an update, {one / two:.2f}x")
    if options.json:
        options.json.write_text(json.dumps({"alone_s": one, "crew_s": two, "ratio": one / two}))


if __name__ == "__main__":
    main()
