"""All benchmarks, one after the other, in processes of their own, into one folder of JSON files.

python -m benchmarks.run [--out benchmarks/results] [--quick]
"""

import argparse
import subprocess
import sys
from pathlib import Path

BENCHMARKS: dict[str, str] = {
    "thinker_train": "--out",
    "generate": "--out",
    "griffin_lim": "--json",
    "track_a": "--json",
    "rows": "--json",
    "grammar": "--json",
    "shapes": "--json",
    "precision": "--json",
}


def main() -> int:
    """Run each; the exit code is the first one that is not zero."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, flag in BENCHMARKS.items():
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", flag]
        command.append(str(options.out / f"{name}.json"))
        command += ["--quick"] if options.quick else []
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
