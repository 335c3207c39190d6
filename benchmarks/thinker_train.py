"""Training tokens per second of the Thinker beside transformers' Qwen3, interleaved in one process.

Knows: two models of one shape, one optimiser, random ids with a label at every position.
Does not know: whether the loss means anything; only time is measured (losses are printed to show
that both learn the same thing).
Costs: about a minute with --quick, three without.

    python -m benchmarks.thinker_train --out train.json [--quick] [--threads 2] [--compiled]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.train.loss import lm_loss

SHAPES = {
    "4M": ThinkerConfig(
        vocab_size=2048, width=256, layers=4, heads=4, kv_heads=2, head_width=64, ffn_width=1024
    ),
    "25M": ThinkerConfig(
        vocab_size=32000,
        width=256,
        layers=4,
        heads=4,
        kv_heads=2,
        head_width=64,
        ffn_width=1024,
        tied=False,
    ),
}


def peer_model(config: ThinkerConfig) -> nn.Module:
    """transformers' Qwen3 of the same shape, with its default (SDPA) attention."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.ffn_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_width,
            tie_word_embeddings=config.tied,
            max_position_embeddings=config.max_positions,
        )
    )


def optimiser(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)


def our_step(config: ThinkerConfig, compiled: bool) -> Callable[[Tensor], float]:
    """A function of ids [B, T] that trains one step and returns the mean loss."""
    thinker = Thinker(config)
    optim = optimiser(thinker)

    def loss_of(ids: Tensor) -> Tensor:
        hidden = thinker(thinker.embed(ids)).hidden
        return lm_loss(hidden, ids, thinker.head_weight()).mean()

    run = torch.compile(loss_of) if compiled else loss_of

    def step(ids: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            loss = run(ids)
        loss.backward()
        optim.step()
        optim.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def peer_step(config: ThinkerConfig) -> Callable[[Tensor], float]:
    model = peer_model(config).train()
    optim = optimiser(model)

    def step(ids: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optim.step()
        optim.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def measure(name: str, rounds: int, batch: int, length: int, compiled: bool) -> dict:
    """Interleave the runners for `rounds`; medians of seconds per step and ratios of rates."""
    config = SHAPES[name]
    torch.manual_seed(0)
    runners = {"transformers": peer_step(config), "lumoomni": our_step(config, compiled=False)}
    if compiled:
        runners["lumoomni compiled"] = our_step(config, compiled=True)
    ids = torch.randint(0, config.vocab_size, (batch, length))
    for step in runners.values():
        for _ in range(2):
            step(ids)
    times: dict[str, list[float]] = {key: [] for key in runners}
    losses: dict[str, float] = {}
    for _ in range(rounds):
        for key, step in runners.items():
            begin = time.perf_counter()
            losses[key] = step(ids)
            times[key].append(time.perf_counter() - begin)
    medians = {key: statistics.median(values) for key, values in times.items()}
    return {
        "shape": name,
        "tokens_per_step": batch * length,
        "tokens_per_second": {k: batch * length / v for k, v in medians.items()},
        "ratio": {k: medians["transformers"] / v for k, v in medians.items()},
        "seconds": times,
        "last_loss": losses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rounds = 5 if args.quick else 15
    results = [measure(name, rounds, 8, 256, args.compiled) for name in args.shapes]
    for result in results:
        for key, rate in result["tokens_per_second"].items():
            ratio, loss = result["ratio"][key], result["last_loss"][key]
            print(
                f"{result['shape']:>4}  {key:<18} {rate:9.0f} tok/s  {ratio:5.2f}x  loss {loss:.3f}"
            )
    if args.out:
        document = {"threads": torch.get_num_threads(), "torch": torch.__version__}
        args.out.write_text(json.dumps({**document, "results": results}, indent=1))


if __name__ == "__main__":
    main()
