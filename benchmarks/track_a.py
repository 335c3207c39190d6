"""Track A: kept features against looking each time, packed rows against padded ones, loading.

Knows: a SigLIP tower and a Qwen3 with random weights, a quarter as wide and half as deep as SO400M
at 384 pixels and Qwen3-0.6B, with a quarter of its vocabulary; lengths as captions and as
conversations have.
Does not know: whether anything is learned; only time and memory are measured, in turns.
Costs: about five minutes on two cores; loading writes 600 MB to the temporary folder.

    python -m benchmarks.track_a --json track_a.json [--quick]
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
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
from lumoomni.train.eyes import Eyes
from lumoomni.train.freeze import freeze
from lumoomni.train.loss import lm_loss

LATENTS = 64
CAPACITY = 2048
QWEN = ThinkerConfig(
    vocab_size=37_984,
    width=256,
    layers=14,
    heads=4,
    kv_heads=2,
    head_width=64,
    ffn_width=768,
)
THINKER = replace(QWEN, vocab_size=8192, width=512, layers=6, heads=8, kv_heads=4, ffn_width=1536)
"""For packing, where the Thinker must take the share of the time that it takes at full size, nine
tenths: what connector and head do is the same for packed and padded samples."""
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
    return np.minimum(LATENTS + 14 + said, CAPACITY).astype(int).tolist()


def rows_of(sizes: list[list[int]]) -> OmniInputs:
    """Rows of documents of such sizes: a picture first, random words after it."""
    width = max(sum(row) for row in sizes)
    ids = torch.zeros(len(sizes), width, dtype=torch.long)
    documents = torch.zeros(len(sizes), width, dtype=torch.long)
    for r, row in enumerate(sizes):
        end = 0
        for number, size in enumerate(row):
            start, end = end, end + size
            ids[r, start:end] = torch.randint(5, 1000, (size,))
            ids[r, start + 1 : start + 1 + LATENTS] = IMAGE_PATCH
            documents[r, start:end] = number
        documents[r, end:] = len(row)
    packed = any(len(row) > 1 for row in sizes)
    return OmniInputs(
        ids=ids,
        lengths=torch.tensor([sum(row) for row in sizes]),
        documents=documents if packed else None,
    )


def labels_of(inputs: OmniInputs) -> Tensor:
    """The words after a picture and its template are learned."""
    labels = inputs.ids.clone()
    real = torch.arange(labels.shape[1]) < inputs.lengths[:, None]
    after = torch.zeros_like(real)
    after[:, 14:] = (inputs.ids[:, :-14] == IMAGE_PATCH) & (inputs.ids[:, 14:] != IMAGE_PATCH)
    beyond = (inputs.ids != IMAGE_PATCH) & real & ~after
    labels[~beyond | (labels < 5)] = IGNORE
    return labels


def train(model: OmniModel, connector: PerceiverConnector, rate: float = 1e-4) -> Callable:
    """A function of inputs and patches [I, N, V] that updates the connector."""
    optim = torch.optim.AdamW(connector.parameters(), lr=rate, fused=True)

    def step(inputs: OmniInputs, patches: Tensor) -> float:
        labels = labels_of(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            images = connector(patches)
            hidden = model(inputs, images).hidden
            loss = lm_loss(hidden, labels, model.thinker.head_weight())
        loss.total.backward()
        optim.step()
        optim.zero_grad(set_to_none=True)
        return float(loss.total.detach())

    return step


def cached(samples: int, turns: int) -> dict[str, float]:
    """Samples a second with and without looking through the tower."""
    model, connector = parts(QWEN)
    step, eyes = train(model, connector), Eyes(tower=model.vision, at_once=samples)  # type: ignore[arg-type]
    inputs = rows_of([[size] for size in lengths(samples, "captions")])
    pixels = torch.randn(samples, 3, 384, 384)
    kept = eyes.patches(pixels)
    times: dict[str, list[float]] = {"seen": [], "kept": []}
    for turn in range(turns + 1):
        for name in times:
            began = time.perf_counter()
            step(inputs, kept if name == "kept" else eyes.patches(pixels))
            if turn:
                times[name].append(time.perf_counter() - began)
    seen, found = (statistics.median(times[name]) for name in ("seen", "kept"))
    return {"seen": samples / seen, "kept": samples / found, "ratio": seen / found}


def packed(turns: int, kind: str, together: int, rows: int = 2) -> dict[str, float]:
    """Real positions a second: full rows of 2,048, and the same samples padded, `together` at once.

    The samples come as they would in a shuffled epoch, so a padded batch is as wide as the longest
    of some that were thrown together; `bound` is what the padding alone could give.
    """
    model, connector = parts(THINKER)
    step = train(model, connector)
    sizes = lengths(4096, kind)
    count = 1
    while len(best_fit(sizes[: count + 1], CAPACITY)) <= rows:
        count += 1
    sizes = sizes[:count]
    packs = best_fit(sizes, CAPACITY)
    loose = [[size] for size in sizes]
    forms = {
        "packed": [rows_of([[sizes[i] for i in pack] for pack in packs])],
        "padded": [rows_of(loose[i : i + together]) for i in range(0, count, together)],
    }
    patches = torch.randn(count, 729, 288, dtype=torch.bfloat16)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(turns + 1):
        for name, batches in forms.items():
            began, first = time.perf_counter(), 0
            for inputs in batches:
                pictures = int((inputs.ids == IMAGE_PATCH).sum()) // LATENTS
                step(inputs, patches[first : first + pictures])
                first += pictures
            if turn:
                times[name].append(time.perf_counter() - began)
    real = float(sum(sizes))
    fills = {n: real / sum(one.ids.numel() for one in made) for n, made in forms.items()}
    rate = {name: real / statistics.median(spent) for name, spent in times.items()}
    return {
        **rate,
        "samples": float(count),
        "fill": fills["packed"],
        "padded_fill": fills["padded"],
        "bound": fills["packed"] / fills["padded"],
        "ratio": statistics.median(
            b / a for a, b in zip(times["packed"], times["padded"], strict=True)
        ),
    }


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
    turns = 2 if options.quick else 5
    jobs: dict[str, Callable[[], dict[str, float]]] = {
        "cached": lambda: cached(8, turns),
        "packed": lambda: packed(turns, "captions", 8),
        "packed_conversations": lambda: packed(turns, "conversations", 4),
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
