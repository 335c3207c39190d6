"""A toy recipe for spine tests: stages that write numbers, no torch."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from lumoomni.gates import Check, Report, exact
from lumoomni.pipeline import Recipe, Stage, StageContext


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    value: float = 1.0
    least: float = 0.0
    steps: int = 3
    pause: float = 0.0


def run(context: StageContext) -> Report:
    """Counts up to `steps`, remembering where it was, and adds its parents' numbers."""
    config: ToyConfig = context.config
    place = context.work / "count.txt"
    count = int(place.read_text()) if place.exists() else 0
    with (context.cache / "runs.txt").open("a") as file:
        file.write(f"{context.name} from {count}\n")
    while count < config.steps:
        count += 1
        place.write_text(str(count))
        context.log({"step": count, "loss": 1.0 / count})
        time.sleep(config.pause)
    total = config.value + sum(
        json.loads(parent.file("number.json").read_text()) for parent in context.parents.values()
    )
    (context.out / "number.json").write_text(json.dumps(total))
    return Report(metrics={"number": exact(total)})


def checks(config: ToyConfig) -> tuple[Check, ...]:
    return (Check(metric="number", op=">=", threshold=config.least, why="numbers must be large"),)


def recipe(**configs: ToyConfig) -> Recipe:
    """Three stages: one, two (from one), three (from both)."""
    parents = {"one": (), "two": ("one",), "three": ("one", "two")}
    return Recipe(
        name="toy",
        stages=tuple(
            Stage(
                name=name,
                config=configs.get(name, ToyConfig()),
                parents=needed,
                run=run,
                checks=checks,
            )
            for name, needed in parents.items()
        ),
    )


def runs(out: Path) -> list[str]:
    """Which stages ran, in order."""
    return [line.split()[0] for line in (out / ".cache" / "runs.txt").read_text().splitlines()]
