"""What new shapes cost: micro-batches of whatever length comes, against lengths rounded up.

Knows: nano's Thinker on random ids, half of them learned; a process of one thread for each way.
Then the attention of towers, forward and backward, beside torch's own. All in the type that
training uses here.
Costs: about two minutes.

    python -m benchmarks.shapes [--batches 160] [--quick] [--json shapes.json]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

WAYS = (("as they come", "1024"), ("as they come", "8192"), ("rounded up", "8192"))
"""Lengths, and how many kernels are kept: oneDNN keeps 1,024, `lumo` asks for more."""
SIZES = ((64, 4, 65, 65, 32), (64, 4, 14, 64, 32), (8, 3, 48, 48, 48))
"""Batch, heads, queries, keys and width: a picture's patches, a caption's places, speech."""


def learn(rounded: bool, batches: int) -> float:
    """Milliseconds a micro-batch, forward and backward, in the second half of `batches`."""
    import torch
    import torch.nn.functional as F

    from lumoomni import shapes
    from lumoomni.ids import IGNORE
    from lumoomni.model.attention import AttentionSpec
    from lumoomni.model.thinker import Thinker
    from lumoomni.recipes.nano import nano
    from lumoomni.train.loss import lm_loss
    from lumoomni.train.precision import bf16_supported

    torch.set_num_threads(1)
    torch.manual_seed(0)
    native = bf16_supported(torch.device("cpu"))
    if not rounded:
        shapes.ROWS = 1
    thinker = Thinker(nano().stage("pretrain_text").config.thinker)
    source = torch.Generator().manual_seed(1)
    began = 0.0
    for index in range(batches):
        if index == batches // 2:
            began = time.perf_counter()
        length = int(torch.randint(24, 200, (), generator=source))
        ids = torch.randint(1, 1000, (16, length), generator=source)
        labels = ids.where(torch.rand(ids.shape, generator=source) < 0.5, IGNORE)
        if rounded:
            more = (0, shapes.round_up(length, shapes.POSITIONS) - length)
            ids, labels = F.pad(ids, more), F.pad(labels, more, value=IGNORE)
        with torch.autocast("cpu", torch.bfloat16, enabled=native, cache_enabled=False):
            hidden = thinker(thinker.embed(ids), attention=AttentionSpec()).hidden
            loss = lm_loss(hidden, labels, thinker.head_weight()).total
        loss.backward()
    return 1000 * (time.perf_counter() - began) / (batches - batches // 2)


def elsewhere(rounded: bool, kernels: str, batches: int) -> float:
    """`learn` in a process that has made no kernels yet."""
    code = f"from benchmarks.shapes import learn; print(learn({rounded}, {batches}))"
    environment = {**os.environ, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": kernels}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def attention(size: tuple[int, int, int, int, int], rounds: int = 12) -> tuple[float, float]:
    """Milliseconds of torch's fused attention and of ours, forward and backward, best of some."""
    import torch
    import torch.nn.functional as F

    from lumoomni.model.fused import whole_attention
    from lumoomni.train.precision import bf16_supported

    torch.set_num_threads(1)
    kind = torch.bfloat16 if bf16_supported(torch.device("cpu")) else torch.float32
    batch, heads, queries, keys, width = size
    q, k, v = (
        torch.randn(batch, heads, n, width, dtype=kind, requires_grad=True)
        for n in (queries, keys, keys)
    )

    def best(read: Callable[..., torch.Tensor]) -> float:
        found = []
        for _ in range(rounds):
            began = time.perf_counter()
            read(q, k, v).sum().backward()
            found.append(time.perf_counter() - began)
        return 1000 * min(found)

    return best(F.scaled_dot_product_attention), best(whole_attention)


def main() -> None:
    """Print each, and how many times as fast the last way is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=160)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    batches = 40 if options.quick else options.batches
    found = {}
    for lengths, kernels in WAYS:
        took = elsewhere(lengths == "rounded up", kernels, batches)
        found[f"{lengths}, {kernels} kernels"] = took
        print(f"lengths {lengths}, {kernels} kernels kept: {took:.0f} ms a micro-batch")
    first, *_, last = found.values()
    print(f"{first / last:.2f}x")
    reads = {}
    for size in SIZES:
        theirs, ours = reads["x".join(map(str, size))] = attention(size)
        print(f"attention {size}: torch {theirs:.1f} ms, ours {ours:.1f} ms, {theirs / ours:.1f}x")
    if options.json:
        made = {"learn_ms": found, "ratio": first / last, "attention_ms": reads}
        options.json.write_text(json.dumps(made))


if __name__ == "__main__":
    main()
