"""Track A: kept features against looking each time, packed rows against padded ones, loading.

Knows: a SigLIP tower and a Qwen3 with random weights, a quarter as wide and half as deep as SO400M
at 384 pixels and Qwen3-0.6B, with a quarter of its vocabulary; lengths as captions and as
conversations have.
Does not know: whether anything is learned; only time and memory are measured, in turns.
Costs: many minutes on two cores, packing most of them; loading writes 600 MB to the temporary
folder.

    python -m benchmarks.track_a --json track_a.json [--quick]
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lumoomni.data.packing import best_fit
from lumoomni.ids import IGNORE, IMAGE_PATCH
from lumoomni.model.hf_weights import load_thinker, save_thinker
from lumoomni.model.omni import OmniInputs, OmniModel
from lumoomni.model.perceiver import PerceiverConnector, PerceiverConnectorConfig
from lumoomni.model.siglip import SiglipTower, SiglipTowerConfig
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.shapes import POSITIONS, round_up
from lumoomni.train.eyes import Eyes
from lumoomni.train.freeze import freeze
from lumoomni.train.loss import lm_loss, predicting

LATENTS = 64
CAPACITY = 2048
ROWS = 4
"""Packed rows of an update."""
TEMPLATE = 14
"""Positions before what is said, besides the latents."""
FIXED = 450
"""Positions that minimind-v pads every row of its first stage to."""
QWEN = ThinkerConfig(
    vocab_size=37_984,
    width=256,
    layers=14,
    heads=4,
    kv_heads=2,
    head_width=64,
    ffn_width=768,
)
THINKER = replace(QWEN, vocab_size=8192, width=512, layers=12, heads=8, kv_heads=4, ffn_width=1536)
"""For packing, where the Thinker must take the share of the time that it takes at full size, nine
tenths: what connector and head do is the same for packed and padded samples. `outside` is their
measured share of the packed update (0.13 of the products of Qwen3-0.6B with SO400M at 384)."""
SIGLIP = {
    "hidden_size": 288,
    "intermediate_size": 1076,
    "num_hidden_layers": 14,
    "num_attention_heads": 4,
    "image_size": 384,
    "patch_size": 14,
}


def parts(shape: ThinkerConfig) -> tuple[OmniModel, PerceiverConnector]:
    """A frozen tower, a frozen Thinker and a connector of the seed's shape between them."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    made = SiglipVisionModel(SiglipVisionConfig(**SIGLIP)).to(torch.bfloat16)
    eyes = SiglipTowerConfig(source="", image_size=384, patch=14, width=288)
    tower = freeze(SiglipTower(eyes, made, None))
    thinker = freeze(Thinker(shape).to(torch.bfloat16))
    connector = PerceiverConnector(
        PerceiverConnectorConfig(
            source_width=288,
            target_width=shape.width,
            latents=LATENTS,
            width=128,
            layers=2,
            heads=4,
        )
    )
    model = OmniModel(thinker, vision=tower, image_connector=connector)  # type: ignore[arg-type]
    return model, connector


def lengths(count: int, kind: str, seed: int = 0) -> list[int]:
    """Positions of samples: 64 latents, two markers, a template, and what is said.

    `captions` of 26 tokens in the mean; `conversations` of 330, the longest over a thousand, as in
    a mix of short answers, descriptions and long talks.
    """
    stream = np.random.default_rng(seed)
    if kind == "captions":
        said = stream.gamma(1.6, 16.0, count)
    else:
        said = stream.lognormal(5.4, 0.9, count)
    return np.minimum(LATENTS + TEMPLATE + said, CAPACITY).astype(int).tolist()


@dataclass(frozen=True)
class Sample:
    """A marker, a picture, a template, and what is said of it, which is learned."""

    ids: Tensor
    labels: Tensor


def sample(size: int) -> Sample:
    """Random words of so many positions in all."""
    ids = torch.randint(5, 1000, (size,))
    ids[1 : 1 + LATENTS] = IMAGE_PATCH
    labels = ids.clone()
    labels[: LATENTS + TEMPLATE] = IGNORE
    return Sample(ids, labels)


@dataclass(frozen=True)
class Pass:
    """What is learned from at once: some rows, and which samples they hold."""

    inputs: OmniInputs
    labels: Tensor
    samples: list[int]


def passes_of(rows: Sequence[Sequence[int]], samples: list[Sample], wide: int = 0) -> list[Pass]:
    """Rows of samples as one batch, padded to its longest row or to `wide`, in passes of about
    `CAPACITY` positions: on a CPU larger ones leave its caches, and take longer in every form."""
    longest = max(sum(len(samples[i].ids) for i in row) for row in rows)
    width = round_up(max(longest, wide), POSITIONS)
    step = max(1, CAPACITY // width)
    return [_pass(rows[i : i + step], samples, width) for i in range(0, len(rows), step)]


def _pass(rows: Sequence[Sequence[int]], samples: list[Sample], width: int) -> Pass:
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORE)
    documents = torch.zeros(len(rows), width, dtype=torch.long)
    ends: list[int] = []
    for r, row in enumerate(rows):
        end = 0
        for number, one in enumerate(samples[i] for i in row):
            start, end = end, end + len(one.ids)
            ids[r, start:end], labels[r, start:end] = one.ids, one.labels
            documents[r, start:end] = number
        documents[r, end:] = len(row)
        ends.append(end)
    packed = any(len(row) > 1 for row in rows)
    lengths = torch.tensor(ends)
    inputs = OmniInputs(ids=ids, lengths=lengths, documents=documents if packed else None)
    return Pass(inputs, labels, [i for row in rows for i in row])


def train(model: OmniModel, connector: PerceiverConnector, rate: float = 1e-4) -> Callable:
    """A function of passes and patches [I, N, V] of each that updates the connector, as
    `align_connector` does: the last layer runs where something is learned."""
    optim = torch.optim.AdamW(connector.parameters(), lr=rate, fused=True)

    def step(passes: Sequence[Pass], patches: Sequence[Tensor]) -> float:
        found = 0.0
        for one, seen in zip(passes, patches, strict=True):
            with torch.autocast("cpu", torch.bfloat16):
                images = connector(seen)
                hidden = model(one.inputs, images, predicting(one.labels)).hidden
                loss = lm_loss(hidden, one.labels, model.thinker.head_weight())
            loss.total.backward()
            found += float(loss.total.detach())
        optim.step()
        optim.zero_grad(set_to_none=True)
        return found

    return step


def cached(samples: int, turns: int) -> dict[str, float]:
    """Samples a second with and without looking through the tower."""
    model, connector = parts(QWEN)
    step, eyes = train(model, connector), Eyes(tower=model.vision, at_once=samples)  # type: ignore[arg-type]
    made = [sample(size) for size in lengths(samples, "captions")]
    batch = [_pass([[i] for i in range(samples)], made, max(len(one.ids) for one in made))]
    pixels = torch.randn(samples, 3, 384, 384)
    kept = eyes.patches(pixels)
    times: dict[str, list[float]] = {"seen": [], "kept": []}
    for turn in range(turns + 1):
        for name in times:
            began = time.perf_counter()
            step(batch, [kept if name == "kept" else eyes.patches(pixels)])
            if turn:
                times[name].append(time.perf_counter() - began)
    seen, found = (statistics.median(times[name]) for name in ("seen", "kept"))
    return {"seen": samples / seen, "kept": samples / found, "ratio": seen / found}


def forms_of(samples: list[Sample], updates: int, fixed: bool) -> dict[str, list[Pass]]:
    """The same samples in every form, in a shuffled order: what was thrown together is padded.

    packed: full rows of `CAPACITY`, `ROWS` an update. The peers are padded, and none reads padding:
    eight: to the longest of eight, a small device's batch.
    thirty_two: to the longest of 32, as LLaVA-Pretrain has on each device.
    same: to the longest of as many as the packed update holds.
    fixed: all to `FIXED` positions, as minimind-v does, where no sample is longer.
    """
    order = range(len(samples))
    sizes = [len(one.ids) for one in samples]
    packs = best_fit(sizes, CAPACITY)
    forms = {
        "packed": [
            one
            for i in range(0, len(packs), ROWS)
            for one in passes_of(packs[i : i + ROWS], samples)
        ]
    }
    same = -(-len(samples) // updates)
    for name, together in (("eight", 8), ("thirty_two", 32), ("same", same)):
        batches = [order[i : i + together] for i in range(0, len(samples), together)]
        forms[name] = [one for batch in batches for one in passes_of([[i] for i in batch], samples)]
    if fixed:
        forms["fixed"] = passes_of([[i] for i in order], samples, FIXED)
    return forms


def packed(turns: int, kind: str, updates: int = 2, fixed: bool = True) -> dict[str, float]:
    """Real positions a second of packed rows, and over each padded peer of `forms_of`.

    `bound` is what the padding alone could give, `ratio` what is measured: the median of turns, by
    the clock and by the processor's time. All forms make one step of the optimiser with the same
    gradient but for rounding: `apart` is the most that their first losses differ by, as a share.
    Without `fixed`, the slowest peer is left out.
    """
    model, connector = parts(THINKER)
    step = train(model, connector, rate=0.0)  # all forms learn from the same state
    sizes = lengths(4096, kind)
    count = 1
    while len(best_fit(sizes[: count + 1], CAPACITY)) <= ROWS * updates:
        count += 1
    samples = [sample(size) for size in sizes[:count]]
    forms = forms_of(samples, updates, fixed and max(sizes[:count]) <= FIXED)
    shown = torch.randn(count, 729, 288, dtype=torch.bfloat16)
    patches = {n: [shown[one.samples] for one in form] for n, form in forms.items()}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in (*forms, "outside")}
    losses: list[float] = []
    for turn in range(turns + 1):
        for name, form in forms.items():
            began = time.perf_counter(), time.process_time()
            loss = step(form, patches[name])
            if not turn:
                losses.append(loss)
            spent[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
        began = time.perf_counter(), time.process_time()
        _outside(model, connector, forms["packed"], patches["packed"])
        spent["outside"].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return {
        "samples": float(count),
        "apart": (max(losses) - min(losses)) / min(losses),
        **_compared(forms, {name: some[1:] for name, some in spent.items()}),
    }


def _outside(
    model: OmniModel, connector: PerceiverConnector, form: list[Pass], patches: list[Tensor]
) -> None:
    """Connector, head and loss alone, forward and backward."""
    for one, seen in zip(form, patches, strict=True):
        hidden = torch.randn(*one.labels.shape, model.thinker.config.width, dtype=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            images = connector(seen)
            loss = lm_loss(hidden.requires_grad_(), one.labels, model.thinker.head_weight())
        (loss.total + images.float().sum()).backward()
    connector.zero_grad(set_to_none=True)


def _compared(
    forms: dict[str, list[Pass]], spent: dict[str, list[tuple[float, float]]]
) -> dict[str, float]:
    real = float(sum(int(one.inputs.lengths.sum()) for one in forms["packed"]))
    fills = {n: real / sum(one.labels.numel() for one in form) for n, form in forms.items()}

    def over(name: str, clock: int) -> float:
        """How many times the packed update's time a form takes."""
        pairs = zip(spent["packed"], spent[name], strict=True)
        return statistics.median(b[clock] / a[clock] for a, b in pairs)

    found = {"packed": real / statistics.median(wall for wall, _ in spent["packed"])}
    found |= {"fill": fills["packed"], "outside": over("outside", 0)}
    for name in forms:
        if name != "packed":
            found |= {
                f"{name}_fill": fills[name],
                f"{name}_bound": fills["packed"] / fills[name],
                f"{name}_ratio": over(name, 0),
                f"{name}_cpu_ratio": over(name, 1),
            }
    return found


def _high_water() -> int:
    """Most bytes that this process has held at once (Linux: since it was started)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status names no VmHWM; this benchmark needs Linux")


def _peak(folder: str, sink: "multiprocessing.Queue[tuple[float, float]]") -> None:
    load_thinker(Path(folder) / "small", torch.bfloat16)  # what is imported along the way
    before = _high_water()
    thinker = load_thinker(Path(folder) / "llm", torch.bfloat16)
    size = sum(p.numel() * p.element_size() for p in thinker.parameters())
    sink.put((float(_high_water() - before), float(size)))


def loading() -> dict[str, float]:
    """Growth of peak memory of a fresh process that loads a sharded Qwen3, beside its size."""
    shape = ThinkerConfig(
        vocab_size=32_000,
        width=1024,
        layers=20,
        heads=16,
        kv_heads=8,
        head_width=64,
        ffn_width=3072,
    )
    with tempfile.TemporaryDirectory() as folder:
        small = replace(shape, vocab_size=64, width=64, layers=1, ffn_width=64)
        for name, one in (("llm", shape), ("small", small)):
            save_thinker(Thinker(one).to(torch.bfloat16), Path(folder) / name)
        spawn = multiprocessing.get_context("spawn")
        sink = spawn.Queue()
        child = spawn.Process(target=_peak, args=(folder, sink))
        child.start()
        grown, size = sink.get()
        child.join()
    return {"bytes": size, "peak_growth": grown, "ratio": grown / size}


def main() -> None:
    """Measure, print, optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("cached", "packed", "loading"))
    options = parser.parse_args()
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")  # as `lumo` does
    turns, updates = (1, 1) if options.quick else (5, 2)
    jobs: dict[str, Callable[[], dict[str, float]]] = {
        "cached": lambda: cached(8, turns),
        "packed": lambda: packed(turns, "captions", updates, not options.quick),
        "packed_conversations": lambda: packed(turns, "conversations", updates),
        "loading": loading,
    }
    found = {}
    for name, job in jobs.items():
        if options.only is None or name.startswith(options.only):
            found[name] = job()
            print(name, {key: round(value, 2) for key, value in found[name].items()}, flush=True)
    if options.json:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
