"""What the grammar costs: its share of the time in which a picture is composed.

Knows: a Thinker of `nano`'s size with random weights, a space of text, pictures and speech.
Does not know: what is drawn. Costs: some seconds.

    python -m benchmarks.grammar --json grammar.json [--quick]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lumoomni.codecs.facts import CodecFacts
from lumoomni.infer.compose import ComposeConfig, compose
from lumoomni.model.rows import Rows, RowsConfig, RowThinker
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.uti.grammar import Grammar, State
from lumoomni.uti.space import TokenSpace, new_space

TEXT, WIDTH = 1024, 192


def space() -> TokenSpace:
    """As `nano`'s: 64 codes of 1,024 a picture, two codebooks of 128 for speech."""
    picture = CodecFacts(
        kind="image", name="p", weights="0", codebooks=1, codebook_size=1024, tokens=64
    )
    speech = CodecFacts(
        kind="audio",
        name="s",
        weights="0",
        codebooks=2,
        codebook_size=128,
        frame_rate=25.0,
        sample_rate=16000,
    )
    return new_space(TEXT, "t", (picture, speech))


def made(ids: TokenSpace) -> RowThinker:
    torch.manual_seed(0)
    config = ThinkerConfig(
        vocab_size=TEXT,
        width=WIDTH,
        layers=4,
        heads=6,
        kv_heads=3,
        head_width=32,
        ffn_width=512,
        short_conv=3,
    )
    rows = Rows(RowsConfig(start=TEXT, count=len(ids.new_rows), width=WIDTH))
    return RowThinker(Thinker(config).eval(), rows)


def main() -> None:
    """Print one line, optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    rounds = 10 if options.quick else 40
    ids = space()
    grammar, model = Grammar(ids), made(ids)
    start, end, ask = (ids.special(f"<|{name}|>") for name in ("text_start", "text_end", "gen_img"))
    request = [start, *range(10, 22), end, ask]
    drawn = compose(model, grammar, [request], ComposeConfig())[0].ids

    def follow() -> None:
        state = State(wanted="image")
        for token in drawn:
            grammar.legal(state)
            state = grammar.step(state, token)

    jobs: dict[str, Callable[[], object]] = {
        "picture": lambda: compose(model, grammar, [request], ComposeConfig()),
        "grammar": follow,
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - began)
    seconds = {name: statistics.median(spent) for name, spent in times.items()}
    share = seconds["grammar"] / seconds["picture"]
    print(f"{seconds}  the grammar's share {share:.2%}")
    if options.json:
        options.json.write_text(json.dumps({"seconds": seconds, "share": share}))


if __name__ == "__main__":
    main()
