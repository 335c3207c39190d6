"""How fast a built model speaks, and how soon: the first call of a process and later ones.

Knows: when each chunk of sound left, and how long the speech is. Costs: a few seconds.

    python -m benchmarks.speak runs/nano [--json speak.json]
"""

import argparse
import json
import time
from pathlib import Path

import lumoomni
from lumoomni.infer.chat import Lumo

TEXT = "a small blue star above a large yellow circle"


def measure(model: Lumo) -> dict[str, float]:
    """Share of the time after which the first sound leaves, and seconds for a second of speech."""
    began, first, samples = time.perf_counter(), 0.0, 0
    for chunk in model.stream_speech(TEXT):
        first = first or time.perf_counter() - began
        samples += len(chunk)
    total = time.perf_counter() - began
    rate = model.parts.settings.mel.rate
    return {"first_share": first / total, "real_time_factor": total * rate / samples}


def main() -> None:
    """Print one line a call, optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = lumoomni.load(options.model)
    rows = [measure(model) for _ in range(options.calls)]
    for number, row in enumerate(rows, 1):
        print(
            f"call {number}: first sound after {row['first_share']:.0%} of the time, "
            f"real-time factor {row['real_time_factor']:.3f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
