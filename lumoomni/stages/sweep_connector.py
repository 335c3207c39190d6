"""Track A's stage 1.1, `sweep_connector`: which learning rate, and a norm on the tower or not.

Trains one connector for each choice, on the same samples in the same order, in a directory of its
own; a run that is finished is not run again. Ranks them by held-out loss, with how much the right
picture helps beside it. The gate: every run finished, and the best one uses its pictures.
"""

import itertools
import json
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lumoomni.errors import InputError
from lumoomni.gates import Check, Metric, Report, exact
from lumoomni.infer.assemble import save_part
from lumoomni.pipeline import StageContext
from lumoomni.runtime import append_line, atomic_write_json
from lumoomni.stages import align_connector
from lumoomni.stages.align_connector import AlignConnectorConfig
from lumoomni.train.loop import site_of

LOSS = "ablation.loss.correct"
GAINS = (
    "ablation.shuffled_over_correct",
    "ablation.zero_over_correct",
    "ablation.noise_over_correct",
)


@dataclass(frozen=True, kw_only=True)
class SweepConnectorConfig:
    """`align` with each of `lr` (the matrices' rate goes along) and of `vision_ln`.

    `listed` names single runs instead of a grid, as RATE/true or RATE/false.
    """

    align: AlignConnectorConfig
    lr: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    vision_ln: tuple[bool, ...] = (False, True)
    listed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for choice in choices(self):
            settings_of(self, choice)  # whose optimizer refuses rates that are no rates


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One run of a sweep."""

    lr: float
    vision_ln: bool

    @property
    def name(self) -> str:
        """Its directory."""
        return f"lr={self.lr:g},vision_ln={str(self.vision_ln).lower()}"


def choices(config: SweepConnectorConfig) -> tuple[Choice, ...]:
    """The runs in order, none twice. Raises InputError for none, and for a malformed one."""
    made = [
        Choice(lr=lr, vision_ln=ln) for lr, ln in itertools.product(config.lr, config.vision_ln)
    ]
    if config.listed:
        made = [_listed(text) for text in config.listed]
    if not made:
        raise InputError("sweep_connector has no runs; give lr and vision_ln, or listed")
    return tuple(dict.fromkeys(made))


def _listed(text: str) -> Choice:
    rate, _, norm = text.partition("/")
    try:
        return Choice(lr=float(rate), vision_ln={"true": True, "false": False}[norm])
    except (ValueError, KeyError) as error:
        raise InputError(f"{text!r} is no run of a sweep; write 1e-3/true or 1e-3/false") from error


def settings_of(config: SweepConnectorConfig, choice: Choice) -> AlignConnectorConfig:
    """The stage's settings for one choice."""
    base = config.align.optim
    optim = replace(base, lr=choice.lr, matrix_lr=base.matrix_lr * choice.lr / base.lr)
    return replace(config.align, optim=optim, vision_ln=choice.vision_ln)


def run(context: StageContext) -> Report:
    """Train what is missing, rank, write `ranking.json` and a directory for each run."""
    config: SweepConnectorConfig = context.config
    found: dict[Choice, dict[str, Metric]] = {}
    for choice in choices(config):
        found[choice] = _one(context, settings_of(config, choice), choice)
    order = sorted(found, key=lambda choice: found[choice][LOSS].value)
    rows = [_row(place, choice, found[choice]) for place, choice in enumerate(order, 1)]
    atomic_write_json(context.out / "ranking.json", rows)
    best = found[order[0]]
    metrics = {name: best[name] for name in best if name.startswith("ablation.")}
    metrics["sweep.runs"] = exact(len(found), n=len(found))
    metrics["frozen.changed"] = exact(sum(one["frozen.changed"].value for one in found.values()))
    for choice, measured in found.items():
        metrics[f"sweep.loss.{choice.name}"] = measured[LOSS]
    return Report(metrics=metrics, notes={"best": order[0].name})


def _one(context: StageContext, config: AlignConnectorConfig, choice: Choice) -> dict[str, Metric]:
    """The measures of one run, made now or, after a kill, before."""
    work = context.work / choice.name
    done = work / "report.json"
    folder = context.out / choice.name
    if not done.is_file():
        work.mkdir(exist_ok=True)
        context.progress.say(f"{context.name}: {choice.name}")
        site = replace(site_of(context), work=work, log=_log_to(work / "log.jsonl"))
        connector, metrics = align_connector.train(context, config, site, work)
        save_part(work, "image_connector", connector)
        atomic_write_json(done, Report(metrics=metrics).to_dict())
    kept = ("*connector.safetensors", "*connector.json", "report.json", "log.jsonl", "golden.jsonl")
    folder.mkdir()
    for path in (path for pattern in kept for path in work.glob(pattern)):
        if path.name != f"{context.name}.safetensors":  # the last checkpoint
            shutil.copyfile(path, folder / path.name)
    return Report.from_dict(json.loads(done.read_text())).metrics


def _log_to(path: Path) -> Any:
    return partial(append_line, path)


def _row(place: int, choice: Choice, metrics: dict[str, Metric]) -> dict[str, Any]:
    """A line of the ranked table: values with the ends of their intervals."""

    def shown(name: str) -> list[float | None]:
        metric = metrics[name]
        return [metric.value, metric.low, metric.high]

    row: dict[str, Any] = {"place": place, "lr": choice.lr, "vision_ln": choice.vision_ln}
    row["loss"] = shown(LOSS)
    return {**row, **{name.removeprefix("ablation."): shown(name) for name in GAINS}}


def checks(config: SweepConnectorConfig) -> tuple[Check, ...]:
    """The gate."""
    wanted = float(len(choices(config)))
    own = [
        check
        for check in align_connector.checks(config.align)
        if check.metric.startswith(("ablation.", "frozen."))
    ]
    count = Check(
        metric="sweep.runs", op="==", threshold=wanted, why="a ranking of some is no ranking"
    )
    return (*own, count)
