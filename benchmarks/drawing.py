"""How guidance and temperature change what is drawn: held-out prompts that come out right.

Knows: the judge of the gate. Does not know: how the model was trained.
Costs: with eight tries about 0.4 s of two cores a prompt, for each split and setting.

    python -m benchmarks.drawing runs/nano --unproven --set 1,1,1 --set 1.5,.5,8 [--sheet a.png]

The sheet shows the first prompts of the split `seen` with the last settings.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lumoomni.audits.drawing import Sheet, ask, prompts_of, scenes, whole
from lumoomni.data.world.marking import ATTRIBUTES, add_up, mark
from lumoomni.data.world.reading import read_picture
from lumoomni.infer.draw import PICTURE, Artist, DrawConfig
from lumoomni.media.image import save_png
from lumoomni.media.sheet import sheet

SHOWN = 24


def drawn(artist: Artist, split: str, count: int, config: DrawConfig) -> tuple[Sheet, str]:
    """The pictures of a split's first scenes, and a line about them."""
    wanted, began = scenes(0, split, count), time.perf_counter()
    made = ask(artist, "image", wanted, prompts_of(wanted), config)
    seconds = time.perf_counter() - began
    pairs = zip(made.made, wanted, strict=True)
    marks = add_up([mark(read_picture(np.asarray(one.made)), scene) for one, scene in pairs])
    parts = "  ".join(f"{name} {marks.right[name] / marks.asked[name]:.3f}" for name in ATTRIBUTES)
    right = whole(made.scores)
    return made, f"{split:>6}  all {right.value:.3f} [n={right.n}]  {parts}  {seconds:.1f} s"


def run(artist: Artist, settings: Sequence[DrawConfig], count: int, out: Path | None) -> None:
    """Print a line for each split and setting, and save the sheet."""
    shown: Sheet | None = None
    for config in settings:
        print(f"guidance {config.guidance}, temperature {config.temperature}, {config.tries} tries")
        for split in ("seen", "unseen"):
            made, line = drawn(artist, split, count, config)
            shown = made if split == "seen" else shown
            print(line, flush=True)
    if out is not None and shown is not None:
        pictures = [np.asarray(one.made) for one in shown.made[:SHOWN]]
        save_png(out, sheet(pictures, shown.prompts[:SHOWN]))
        right = sum(one.whole for one in shown.scores[:SHOWN])
        print(f"{out}: {right} of {len(pictures)} hold all that was asked for")


def main() -> None:
    """Parse, open, run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--set", action="append", default=[], help="guidance,temperature,tries")
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--unproven", action="store_true")
    options = parser.parse_args()
    given = [[float(x) for x in one.split(",")] for one in options.set]
    settings = [DrawConfig(guidance=g, temperature=t, tries=int(n)) for g, t, n in given]
    run(
        Artist.open(options.model, unproven=options.unproven),
        settings or [PICTURE],
        options.count,
        options.sheet,
    )


if __name__ == "__main__":
    main()
