"""Greedy tokens per second at batch 1 beside transformers' generate, interleaved in one process.

Knows: two models with the SAME weights (ours are loaded from the peer's checkpoint).
Does not know: what the tokens mean; it refuses to report a ratio when the two outputs differ.
Costs: about a minute with --quick; `--compiled` adds the compilation of our step.

    python -m benchmarks.generate --out generate.json [--quick] [--threads 2] [--compiled]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from benchmarks.thinker_train import SHAPES, peer_model
from lumoomni.infer.engine import GenerateConfig, generate
from lumoomni.model.hf_weights import load_thinker
from lumoomni.model.thinker import Thinker


def twins(name: str, dtype: torch.dtype) -> tuple[nn.Module, Thinker]:
    """The peer and our model with equal weights."""
    torch.manual_seed(0)
    peer = peer_model(SHAPES[name])
    for parameter in peer.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.05)  # sharp logits: no ties for rounding to break
    peer = peer.to(dtype).eval()
    with TemporaryDirectory() as folder:
        peer.save_pretrained(folder)  # pyright: ignore
        return peer, load_thinker(Path(folder), dtype).eval()


def peer_run(model: nn.Module, prompt: Tensor, new: int) -> list[int]:
    with torch.inference_mode():
        out = model.generate(  # pyright: ignore
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
        )
    return out[0, prompt.shape[1] :].tolist()


def our_run(thinker: Thinker, prompt: Tensor, new: int, compiled: bool) -> list[int]:
    run = generate(thinker, prompt, GenerateConfig(max_new_tokens=new), compiled=compiled)
    for _ in run:
        pass
    return run.ids[0].tolist()


def measure(name: str, dtype: torch.dtype, rounds: int, new: int, compiled: bool) -> dict:
    """Medians of seconds, interleaved A B A B; ids must agree in float32."""
    peer, thinker = twins(name, dtype)
    prompt = torch.randint(0, SHAPES[name].vocab_size, (1, 32))
    runners: dict[str, Callable[[], list[int]]] = {
        "transformers": lambda: peer_run(peer, prompt, new),
        "lumoomni": lambda: our_run(thinker, prompt, new, False),
    }
    if compiled:
        runners["lumoomni compiled"] = lambda: our_run(thinker, prompt, new, True)
    outputs = {key: run() for key, run in runners.items()}
    agree = {
        key: sum(a == b for a, b in zip(ids, outputs["transformers"], strict=True)) / new
        for key, ids in outputs.items()
    }
    if dtype == torch.float32 and min(agree.values()) < 1:
        raise SystemExit(f"{name}: outputs differ from the peer's, no ratio is meaningful: {agree}")
    times: dict[str, list[float]] = {key: [] for key in runners}
    for _ in range(rounds):
        for key, run in runners.items():
            begin = time.perf_counter()
            run()
            times[key].append(time.perf_counter() - begin)
    medians = {key: statistics.median(values) for key, values in times.items()}
    return {
        "shape": name,
        "dtype": str(dtype),
        "new_tokens": new,
        "tokens_per_second": {k: new / v for k, v in medians.items()},
        "ratio": {k: medians["transformers"] / v for k, v in medians.items()},
        "agreement": agree,
        "seconds": times,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    dtype = torch.float32 if args.dtype == "float32" else torch.bfloat16
    rounds, new = (5, 64) if args.quick else (11, 128)
    results = [measure(name, dtype, rounds, new, args.compiled) for name in args.shapes]
    for result in results:
        for key, rate in result["tokens_per_second"].items():
            ratio = result["ratio"][key]
            print(f"{result['shape']:>4}  {key:<18} {rate:8.1f} tok/s  {ratio:5.2f}x")
    if args.out:
        document = {"threads": torch.get_num_threads(), "torch": torch.__version__}
        args.out.write_text(json.dumps({**document, "results": results}, indent=1))


if __name__ == "__main__":
    main()
