"""Training tokens per second of the Thinker beside transformers' Qwen3, interleaved in one process.

Knows: two models of one shape, one optimiser, random ids: rows of one length with a label at every
position, or (--talks) batches as a mixture of conversations gives them, each of a length of its own
and padded, with labels on half of the ids. There the peer comes twice: padded to the longest row,
as its collator does unless told otherwise, and to a multiple of eight, as ours are.
Does not know: whether the loss means anything; only time is measured (losses are printed to show
that both learn the same thing).
Costs: about a minute with --quick, three without; --talks more than five on one thread.

    python -m benchmarks.thinker_train [--out train.json] [--quick] [--threads 2] [--compiled]
        [--talks]
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.ids import IGNORE
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.shapes import POSITIONS, round_up
from lumoomni.train.loss import lm_loss, predicting
from lumoomni.train.precision import bf16_supported

BF16 = bf16_supported(torch.device("cpu"))
"""What is quicker here; both sides get it."""
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


@dataclass(frozen=True, kw_only=True)
class Rows:
    """ids and labels [B, T], right-padded; lengths [B]."""

    ids: Tensor
    labels: Tensor
    lengths: Tensor

    def padded(self, to: int) -> "Rows":
        """With T rounded up."""
        more = (0, round_up(self.ids.shape[1], to) - self.ids.shape[1])
        ids, labels = F.pad(self.ids, more), F.pad(self.labels, more, value=IGNORE)
        return Rows(ids=ids, labels=labels, lengths=self.lengths)


def talks(vocab: int, batch: int, longest: int, count: int) -> list[Rows]:
    """Batches of rows of like lengths, labels on the second half of each row."""
    made = []
    for _ in range(count):
        top = int(torch.randint(longest // 4, longest + 1, ()))
        lengths = torch.randint(top * 7 // 8, top + 1, (batch,))
        lengths[0] = top
        place = torch.arange(top)[None]
        ids = torch.randint(0, vocab, (batch, top)).where(place < lengths[:, None], 0)
        learned = (place >= lengths[:, None] // 2) & (place < lengths[:, None])
        made.append(Rows(ids=ids, labels=ids.where(learned, IGNORE), lengths=lengths))
    return made


def our_step(config: ThinkerConfig, compiled: bool) -> Callable[[Rows], float]:
    """A function of rows that trains one step and returns the mean loss."""
    thinker = Thinker(config)
    optim = optimiser(thinker)

    def loss_of(ids: Tensor, labels: Tensor) -> Tensor:
        # Rows are padded on the right, which a causal reader never sees.
        hidden = thinker(thinker.embed(ids), asked=predicting(labels)).hidden
        return lm_loss(hidden, labels, thinker.head_weight()).mean()

    run = torch.compile(loss_of) if compiled else loss_of

    def step(rows: Rows) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            loss = run(rows.ids, rows.labels)
        loss.backward()
        optim.step()
        optim.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def peer_step(config: ThinkerConfig, masked: bool = False) -> Callable[[Rows], float]:
    model = peer_model(config).train()
    optim = optimiser(model)

    def step(rows: Rows) -> float:
        real = torch.arange(rows.ids.shape[1])[None] < rows.lengths[:, None]
        more = {"attention_mask": real.long()} if masked else {}
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            loss = model(input_ids=rows.ids, labels=rows.labels, use_cache=False, **more).loss
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
    rows = Rows(ids=ids, labels=ids, lengths=torch.full((batch,), length))
    times, losses = interleave(runners, {key: [rows] * (rounds + 2) for key in runners}, 2)
    medians = {key: statistics.median(values) for key, values in times.items()}
    return result_of(name, batch * length, medians, times, losses)


def measure_talks(name: str, rounds: int, batch: int, longest: int) -> dict:
    """The same over batches of changing lengths; means, for steps are not alike."""
    config = SHAPES[name]
    torch.manual_seed(0)
    warm = rounds
    data = talks(config.vocab_size, batch, longest, warm + rounds)
    eights = [rows.padded(POSITIONS) for rows in data]
    runners = {
        "transformers": peer_step(config, masked=True),
        "transformers, by 8": peer_step(config, masked=True),
        "lumoomni": our_step(config, compiled=False),
    }
    given = {"transformers": data, "transformers, by 8": eights, "lumoomni": eights}
    times, losses = interleave(runners, given, warm)
    means = {key: statistics.mean(values) for key, values in times.items()}
    tokens = sum(int(rows.lengths.sum()) for rows in data[warm:]) / rounds
    return result_of(f"{name} talks", tokens, means, times, losses)


def interleave(
    runners: dict[str, Callable[[Rows], float]], given: dict[str, list[Rows]], warm: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each step after the first `warm`, and last losses."""
    times: dict[str, list[float]] = {key: [] for key in runners}
    losses: dict[str, float] = {}
    for turn in range(len(next(iter(given.values())))):
        for key, step in runners.items():
            begin = time.perf_counter()
            losses[key] = step(given[key][turn])
            if turn >= warm:
                times[key].append(time.perf_counter() - begin)
    return times, losses


def result_of(
    name: str,
    tokens: float,
    seconds: dict[str, float],
    times: dict[str, list[float]],
    losses: dict[str, float],
) -> dict:
    return {
        "shape": name,
        "tokens_per_step": tokens,
        "tokens_per_second": {k: tokens / v for k, v in seconds.items()},
        "ratio": {k: seconds["transformers"] / v for k, v in seconds.items()},
        "seconds": times,
        "last_loss": losses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--talks", action="store_true", help="batches of changing lengths")
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES))
    args = parser.parse_args()
    # As `lumo` does; kernels of both are kept, and the peer's shapes are more than fit by default.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    if args.threads:
        torch.set_num_threads(args.threads)
    rounds = 5 if args.quick else 15
    results = [measure(name, rounds, 8, 256, args.compiled) for name in args.shapes]
    if args.talks:
        results += [measure_talks(name, 2 * rounds, 16, 200) for name in args.shapes]
    for result in results:
        for key, rate in result["tokens_per_second"].items():
            ratio, loss = result["ratio"][key], result["last_loss"][key]
            print(
                f"{result['shape']:>9}  {key:<18} {rate:9.0f} tok/s  {ratio:5.2f}x  loss {loss:.3f}"
            )
    if args.out:
        document = {"threads": torch.get_num_threads(), "torch": torch.__version__, "bf16": BF16}
        args.out.write_text(json.dumps({**document, "results": results}, indent=1))


if __name__ == "__main__":
    main()
