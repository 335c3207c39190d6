"""The one training loop: batches by index, one normaliser, exact resume.

Knows: steps, accumulation, precision, clipping, schedules, checkpoints, progress.
Does not know: what a batch is or what is learned; a `Task` says that.
Costs: nothing per step but one number read back; batches are made in a thread, ahead of time. The
micro-batches of an update are learned from at the same time, by as many processes as there are
cores (`train/crew.py`).

Data position is one integer. `Task.batch(i)` is a pure function of i, and what is drawn in a loss
depends on (seed, i) alone, so a run that was killed and continued sees the same batches in the same
order, and its result is bit-equal on a CPU; with two micro-batches also to that of another number
of cores.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lumoomni.arithmetic import quick_float32
from lumoomni.config import WITHOUT_EFFECT
from lumoomni.errors import InputError, RunFailure
from lumoomni.pipeline import StageContext
from lumoomni.runtime import Interrupted, Progress, flushing, resolve_device
from lumoomni.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lumoomni.train.crew import Crew, crew, crew_size
from lumoomni.train.devices import resident, to_device
from lumoomni.train.optim import OptimConfig, Optimizers
from lumoomni.train.precision import bf16_supported
from lumoomni.train.prefetch import Prefetch
from lumoomni.train.recompute import recomputing

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how much at a time. `accumulate` micro-batches make one update."""

    steps: int
    batch_size: int
    accumulate: int = 1
    echo: int = 1
    """How often each training sample comes, for stages that group samples by length."""
    bf16: bool = True
    """Products in bfloat16 where that is faster (`train/precision.py`); elsewhere, and if false
    everywhere, in float32."""
    compile: bool = False
    checkpointing: bool = field(default=False, metadata=WITHOUT_EFFECT)
    """Compute the Thinker's layers again in the backward instead of keeping them."""
    log_every: int = field(default=10, metadata=WITHOUT_EFFECT)
    checkpoint_seconds: float = field(default=30.0, metadata=WITHOUT_EFFECT)
    prefetch: int = field(default=2, metadata=WITHOUT_EFFECT)
    """Micro-batches that a process has ready ahead of its updates."""
    makers: int = field(default=1, metadata=WITHOUT_EFFECT)
    """Threads that make them: more where pictures are decoded for a fast device."""

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch_size, self.accumulate, self.echo, self.makers)
        if min(counts) < 1:
            raise ValueError(
                "steps, batch_size, accumulate, echo and makers must be at least 1, got "
                + ", ".join(str(count) for count in counts)
            )


@dataclass(frozen=True)
class StepLoss:
    """total: sum over the micro-batch's supervised units (scalar, with gradient); parts: sums."""

    total: Tensor
    parts: dict[str, float]


class Task(Protocol):
    """What a stage trains. `modules` are saved and resumed; frozen parameters are left out.

    `helpers`, if a task has any, are modules that its loss needs beside them, on the same device.
    `echoes = True` says that its batches heed `LoopConfig.echo`.
    """

    modules: dict[str, nn.Module]

    def batch(self, index: int) -> Any:
        """Micro-batch number `index`; pure, called from another thread."""
        ...

    def weight(self, batch: Any) -> float:
        """How many supervised units (tokens, frames, pairs) the micro-batch holds."""
        ...

    def loss(self, batch: Any) -> StepLoss:
        """The loss summed over those units."""
        ...


@dataclass(frozen=True)
class FitResult:
    """steps done, the last smoothed loss, seconds of this process's part, samples per second."""

    steps: int
    loss: float
    seconds: float
    samples_per_second: float


@dataclass(frozen=True)
class Watch:
    """Look at the modules, in evaluation mode, after every so many updates and after the last."""

    every: int
    look: Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class FitSite:
    """Where a run keeps its things: scratch folder, progress bar, log sink, stop flag, identity."""

    name: str
    work: Path
    progress: Progress
    log: Callable[[dict[str, Any]], None]
    stop: threading.Event
    seed: int = 0
    device: torch.device = CPU
    crew: int = 0
    """Processes that share the micro-batches of an update; 0: as many as this machine can use."""
    watch: Watch | None = None


def fit(
    task: Task,
    loop: LoopConfig,
    optim: OptimConfig,
    site: FitSite,
    rate_scale: dict[str, float] | None = None,
) -> FitResult:
    """Train `task` for `loop.steps` updates, from the last checkpoint in `site.work` if any.

    Raises Interrupted after saving when `site.stop` is set, RunFailure when the loss is not
    finite or a process of the crew died, InputError when a checkpoint cannot be read or a setting
    would do nothing.
    """
    for module in task.modules.values():
        module.train()
        if loop.compile:
            module.compile()
    if loop.echo > 1 and not getattr(task, "echoes", False):
        raise InputError(
            f"{site.name}.loop.echo is {loop.echo}, but this stage makes each sample for one "
            "batch; set it to 1"
        )
    parts = (*task.modules.values(), *getattr(task, "helpers", ()))
    with resident(parts, site.device), recomputing(parts, loop.checkpointing):
        result = _fit(task, loop, optim, site, rate_scale)
    for module in task.modules.values():
        module.eval()
    return result


def _fit(
    task: Task,
    loop: LoopConfig,
    optim: OptimConfig,
    site: FitSite,
    rate_scale: dict[str, float] | None,
) -> FitResult:
    """`fit` with everything in its place."""
    optimizers = Optimizers(_named(task), optim, rate_scale, bf16=loop.bf16)
    path = site.work / f"{site.name}.safetensors"
    start = _resume(task, optimizers, path) if path.exists() else 0
    size = site.crew or crew_size(loop.accumulate)
    if not _shareable(task, loop, site.device):
        size = 1
    began = time.monotonic()
    shared = optimizers.shareable()
    with flushing(), quick_float32(), crew(size, optimizers.parameters, shared) as member:
        optimizers.join(member)
        run = _Run(task, loop, optimizers, site if member.rank == 0 else _quiet(site), member)
        run.go(start, path)
    seconds = time.monotonic() - began
    samples = (loop.steps - start) * loop.batch_size * loop.accumulate
    return FitResult(loop.steps, run.smoothed.last, seconds, samples / max(seconds, 1e-9))


class _Run:
    """The updates of one member of the crew."""

    def __init__(
        self, task: Task, loop: LoopConfig, optimizers: Optimizers, site: FitSite, crew: Crew
    ) -> None:
        self.smoothed = _Smoothed()
        self._task, self._loop, self._optimizers = task, loop, optimizers
        self._site, self._crew = site, crew
        self._autocast = loop.bf16 and bf16_supported(site.device)

    def go(self, start: int, path: Path) -> None:
        """From update `start` to the last; rank 0 logs, and saves to `path`."""
        loop, site, first = self._loop, self._site, self._crew.rank == 0
        saved = time.monotonic()
        mine = self._crew.mine(loop.accumulate)
        coming = (step * loop.accumulate + i for step in range(start, loop.steps) for i in mine)
        with (
            Prefetch(self._task.batch, coming, ahead=loop.prefetch, makers=loop.makers) as batches,
            site.progress.task(site.name, total=loop.steps, unit="step", start=start) as bar,
        ):
            for step in range(start, loop.steps):
                micro = {step * loop.accumulate + i: batches.next() for i in mine}
                factor = self._optimizers.set_rate(step, loop.steps)
                loss, parts, stopping = self._update(micro)
                self.smoothed.add(loss, {**parts, **batches.spent(len(mine))})
                bar.update(1, loss=self.smoothed.loss)
                done = step + 1
                if done % loop.log_every == 0 or done == loop.steps:
                    site.log({"step": done, "lr": factor, **self.smoothed.flush()})
                if site.watch and (done % site.watch.every == 0 or done == loop.steps):
                    self._look(site.watch, done)
                late = time.monotonic() - saved > loop.checkpoint_seconds
                if first and (stopping or late or done == loop.steps):
                    _save(self._task, self._optimizers, path, done)
                    saved = time.monotonic()
                if stopping and done < loop.steps:
                    raise Interrupted(f"{site.name} stopped after step {done} of {loop.steps}")

    def _look(self, watch: Watch, done: int) -> None:
        # Losses are seeded by micro-batch, so whatever is drawn here changes no result.
        modules = self._task.modules.values()
        for module in modules:
            module.eval()
        watch.look(done)
        for module in modules:
            module.train()

    def _update(self, micro: dict[int, Any]) -> tuple[float, dict[str, float], bool]:
        task, device, optimizers = self._task, self._site.device, self._optimizers
        weight, total, parts = 0.0, 0.0, {}
        for index, batch in micro.items():
            weight += task.weight(batch)
            batch = to_device(batch, device) if device.type != "cpu" else batch
            torch.manual_seed((self._site.seed * 1_000_003 + index) % 2**63)
            # No cache of casts: all threads share it, and the one that makes batches empties it
            # whenever it leaves an autocast block. A weight used twice would be cast once or twice
            # by chance, and its gradient rounded accordingly.
            with torch.autocast(
                device.type, torch.bfloat16, enabled=self._autocast, cache_enabled=False
            ):
                result = task.loss(batch)
            result.total.backward()
            total += float(result.total.detach())
            for key, value in result.parts.items():
                parts[key] = parts.get(key, 0.0) + value
        note = {"weight": weight, "loss": total, "stop": self._site.stop.is_set(), "parts": parts}
        notes = self._crew.add_up(optimizers.parameters, note)
        # One normaliser for the whole update: N micro-batches give the gradient of one big batch.
        weight, total = (sum(note[key] for note in notes) for key in ("weight", "loss"))
        _check(total, weight, self._site.name, min(micro) // self._loop.accumulate + 1)
        means: dict[str, float] = {}
        for other in notes:
            for key, value in other["parts"].items():
                means[key] = means.get(key, 0.0) + value / weight
        torch._foreach_div_([p.grad for p in optimizers.parameters if p.grad is not None], weight)
        means["grad_norm"] = optimizers.step()
        return total / weight, means, notes[0]["stop"]


def _check(loss: float, weight: float, name: str, update: int) -> None:
    where = f"update {update} of {name}"
    if weight <= 0:
        raise RunFailure(
            f"{where} has nothing to learn from: every label is masked; look at the data with "
            "`lumo data check`"
        )
    if not loss < float("inf"):
        raise RunFailure(
            f"the loss became {loss} at {where}; lower {name}.optim.lr and matrix_lr, or look at "
            "the data"
        )


def _shareable(task: Task, loop: LoopConfig, device: torch.device) -> bool:
    """Whether a crew may train this: on a CPU, where all that is learned comes from gradients.

    Persistent buffers (a codebook's running means) learn in the forward pass, so the members' own
    would drift apart.
    """
    learned = sum(len(module.state_dict()) for module in task.modules.values())
    return device.type == "cpu" and not loop.compile and learned == len(_named(task))


def _quiet(site: FitSite) -> FitSite:
    """Where a member of the crew runs that neither shows nor logs nor hears anything."""
    return replace(
        site,
        progress=Progress(silent=True),
        log=lambda entry: None,
        stop=threading.Event(),
        watch=None,
    )


def _named(task: Task) -> list[tuple[str, nn.Parameter]]:
    return [
        (f"{name}.{key}", parameter)
        for name, module in task.modules.items()
        for key, parameter in module.named_parameters()
    ]


def _state(task: Task) -> dict[str, Tensor]:
    """Trained parameters and persistent buffers; frozen weights belong to their own artifact."""
    frozen = {name for name, parameter in _named(task) if not parameter.requires_grad}
    return {
        f"{name}.{key}": value
        for name, module in task.modules.items()
        for key, value in module.state_dict().items()
        if f"{name}.{key}" not in frozen
    }


def _save(task: Task, optimizers: Optimizers, path: Path, step: int) -> None:
    save_checkpoint(path, Checkpoint(step, _state(task), optimizers.tensors(), {}))


def _resume(task: Task, optimizers: Optimizers, path: Path) -> int:
    checkpoint = load_checkpoint(path)
    state = _state(task)
    if state.keys() != checkpoint.model.keys():
        odd = sorted(state.keys() ^ checkpoint.model.keys())[:3]
        raise InputError(
            f"{path} holds other parameters than this model, for example {', '.join(odd)}: it is "
            "of another version; delete it to start this stage again"
        )
    with torch.no_grad():
        for key, value in checkpoint.model.items():
            state[key].copy_(value)
    optimizers.load_tensors(checkpoint.optim)
    return checkpoint.step


class _Smoothed:
    """Means since the last log line, and a running loss for the bar."""

    def __init__(self) -> None:
        self.loss = self.last = float("nan")
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, loss: float, parts: dict[str, float]) -> None:
        self.loss = loss if self.loss != self.loss else 0.9 * self.loss + 0.1 * loss
        self.last = self.loss
        self._count += 1
        for key, value in {"loss": loss, **parts}.items():
            self._sums[key] = self._sums.get(key, 0.0) + value

    def flush(self) -> dict[str, float]:
        means = {key: value / self._count for key, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


def site_of(context: StageContext, name: str = "") -> FitSite:
    """The place where a stage's training run keeps its things."""
    return FitSite(
        name=name or context.name,
        work=context.work,
        progress=context.progress,
        log=context.log,
        stop=context.stop,
        seed=context.seed,
        device=resolve_device(context.device),
    )
