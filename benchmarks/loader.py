"""Whether making batches ever holds training up: read from the logs of a finished build.

Knows: each update's wall time, the processor time that its batch took to make, and the wait for it.
Costs: nothing; the build measured it.

    python -m benchmarks.loader runs/nano [--json loader.json]
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path


def measure(log: Path) -> dict[str, float] | None:
    """Median milliseconds an update, for its data, and waited; None where nothing was timed."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rows = [row for row in rows if "data_ms" in row]
    steps = [
        1000 * (b["time"] - a["time"]) / (b["step"] - a["step"])
        for a, b in itertools.pairwise(rows)
        if b["step"] > a["step"]
    ]
    if not steps:
        return None
    step, data = statistics.median(steps), statistics.median(row["data_ms"] for row in rows)
    waited = statistics.median(row["wait_ms"] for row in rows)
    return {"step_ms": step, "data_ms": data, "wait_ms": waited, "ratio": step / data}


def main() -> None:
    """Print one line a stage, optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    for log in sorted(options.build.glob("*/log.jsonl")):
        row = measure(log)
        if row is not None:
            found[log.parent.name] = row
            print(
                f"{log.parent.name:>22}  update {row['step_ms']:6.1f} ms  its data "
                f"{row['data_ms']:6.1f} ms  waited {row['wait_ms']:5.1f} ms  {row['ratio']:.1f}x"
            )
    if options.json:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
