"""The answer of `lumo plan`: what was counted, measured and sized, as tables, sentences or JSON.

Knows: which of the three was asked for, and how people read it. Does not know: how any is done.
Costs: what was asked for.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lumoomni.errors import InputError
from lumoomni.pipeline import Recipe
from lumoomni.recipes.epoch import Epoch, seconds_of, size_epoch
from lumoomni.recipes.gpus import find_gpu
from lumoomni.recipes.plan import StagePlan, fits, plan
from lumoomni.recipes.plan_measure import MeasureConfig, Measured, measure
from lumoomni.recipes.plan_rest import Rest, rest_of
from lumoomni.runtime import Progress

Columns = tuple[str, ...]
Rows = list[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Question:
    """`gpu` of the table; `measure` on `device`; `epoch` as people write durations; one `stage`."""

    gpu: str | None = None
    measure: bool = False
    epoch: str | None = None
    stage: str | None = None
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Study:
    """`fit` is what `fits` says of the GPU; None, like `gpu`, where none was named. `rest` are the
    stages that no update is counted of; there are none where one stage was asked for."""

    recipe: str
    plans: tuple[StagePlan, ...]
    gpu: str | None
    fit: dict[str, Any] | None
    measured: tuple[Measured, ...]
    epochs: tuple[Epoch, ...]
    rest: tuple[Rest, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, complete."""
        rows = [{**asdict(one), "total": one.total} for one in self.plans]
        if self.gpu is not None:
            for row, one in zip(rows, self.plans, strict=True):
                row["seconds"] = one.seconds(self.gpu)
        return {
            "recipe": self.recipe,
            "stages": rows,
            "gpu": self.fit,
            "measured": [asdict(one) for one in self.measured],
            "epochs": [{**asdict(one), "setting": one.setting} for one in self.epochs],
            "rest": [asdict(one) for one in self.rest],
        }

    def tables(self) -> list[tuple[str, Columns, Rows]]:
        """Title, columns and rows of each."""
        out = [(f"what {self.recipe} takes", *shown(self.plans, self.gpu))]
        if self.rest:
            rows = [(r.stage, _short(r.frozen) if r.frozen else "", r.does) for r in self.rest]
            out.append(("stages without a count", ("stage", "parameters", "what it does"), rows))
        if self.measured:
            first = self.measured[0]
            title = f"measured on {first.device} in {first.dtype}, on noise of the longest inputs"
            out.append((title, *shown_measures(self.measured)))
        return out

    def sentences(self) -> list[str]:
        """What to change so that it fits, and the settings of the epoch."""
        said = list(self.fit["advice"]) if self.fit else []
        for one in self.epochs:
            said.append(
                f"{one.setting}  # {one.samples:,} samples, {one.seconds:,.0f} s as {one.rate}"
            )
        return said


def study(recipe: Recipe, question: Question, progress: Progress | None = None) -> Study:
    """Answer. Raises InputError for bad questions before anything is made."""
    gpu, wanted = question.gpu, None
    if gpu is not None:
        find_gpu(gpu)
        gpu = gpu.lower()
    if question.epoch is not None:
        wanted = seconds_of(question.epoch)
        if not question.measure and gpu is None:
            raise InputError("--epoch needs the time of an update; add --measure or --gpu NAME")
    plans = plan(recipe, progress, question.stage)
    measured: tuple[Measured, ...] = ()
    if question.measure:
        measured = measure(recipe, plans, MeasureConfig(device=question.device), progress)
    epochs = () if wanted is None else _epochs(plans, measured, gpu, wanted)
    return Study(
        recipe=recipe.name,
        plans=plans,
        gpu=gpu,
        fit=None if gpu is None else fits(plans, gpu),
        measured=measured,
        epochs=epochs,
        rest=rest_of(recipe) if question.stage is None else (),
    )


def _epochs(
    plans: Sequence[StagePlan], measured: Sequence[Measured], gpu: str | None, wanted: float
) -> tuple[Epoch, ...]:
    """At the measured rate where there is one, else at the GPU's estimated one."""
    seen = {one.stage: one for one in measured}
    out = []
    for one in plans:
        update, rate = None, f"estimated for {gpu} by arithmetic alone"
        if one.stage in seen:
            update, rate = seen[one.stage].seconds, "measured here"
        elif gpu is not None:
            update = one.seconds(gpu)
        assert update is not None
        out.append(
            size_epoch(one.stage, wanted=wanted, update=update, samples=one.samples, rate=rate)
        )
    return tuple(out)


def shown(
    found: Sequence[StagePlan], gpu: str | None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for people: micro-batches x samples x tokens, MiB, and TFLOP an update."""
    parts_of = "weights + gradients + optimizer + kept + logits"
    columns = ("stage", "trained", "frozen", "batch", "peak MiB", parts_of, "TFLOP")
    rows = []
    for one in found:
        parts = (one.weights, one.gradients, one.optimizer, one.activations, one.logits)
        row: tuple[str, ...] = (
            one.stage,
            _short(one.trained),
            _short(one.frozen),
            f"{one.accumulate} x {one.batch} x {one.tokens}",
            f"{one.total / 2**20:,.0f}",
            " + ".join(f"{part / 2**20:,.0f}" for part in parts),
            f"{one.flops / 1e12:.3g}",
        )
        rows.append(row if gpu is None else (*row, f"{one.hours(gpu):.2f}"))
    if gpu is None:
        return columns, rows
    verdict = "fits" if fits(found, gpu)["fits"] else "DOES NOT FIT"
    return (*columns, f"h on {gpu} ({verdict})"), rows


def _short(count: int) -> str:
    return f"{count / 1e6:,.2f} M"


def shown_measures(
    found: Sequence[Measured],
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for people; the peak beside what was computed for it."""
    columns = ("stage", "ms an update", "from - to (n)", "samples/s", "tokens/s", "MFU", "peak MiB")
    rows = [
        (
            one.stage,
            f"{1000 * one.seconds:,.1f}",
            f"{1000 * one.fastest:,.0f} - {1000 * one.slowest:,.0f} ({one.updates})",
            f"{one.samples_per_second:,.1f}",
            f"{one.tokens_per_second:,.0f}",
            "" if one.mfu is None else f"{one.mfu:.1%}",
            f"{_mib(one.peak_memory)} of {_mib(one.computed_memory)}",
        )
        for one in found
    ]
    return columns, rows


def _mib(count: int | None) -> str:
    return "?" if count is None else f"{count / 2**20:,.0f}"
