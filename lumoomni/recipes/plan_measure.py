"""What an update really takes here: a stage's parts, made at random, trained for a few updates.

Knows: the training loop itself (`train/loop.py`, with its processes, precision and optimiser), a
stage-watch around it, and what this system says of memory.
Does not know: data, checkpoints, or what is learned: it is noise. Making batches is not in it.
Costs: the stage's memory, and a few updates of it; no file but an empty folder for a moment.

Adopted parts are made from their config.json, so no checkpoint is read. What a GPU does besides,
and other programs, are in the numbers: the median is of what was seen.
"""

import contextlib
import ctypes
import gc
import itertools
import math
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lumoomni.errors import InputError
from lumoomni.pipeline import Recipe
from lumoomni.recipes.gpus import find_gpu, gpu_called
from lumoomni.recipes.loads import loads_of
from lumoomni.recipes.part_loads import Load, shapes_of
from lumoomni.recipes.plan import StagePlan, advice, named_parameters
from lumoomni.runtime import Progress, resolve_device
from lumoomni.train.loop import FitSite, LoopConfig, StepLoss, fit
from lumoomni.train.optim import OptimConfig
from lumoomni.train.precision import bf16_supported


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """How long to look: `warmup` updates are not counted; of the counted ones the median is.

    After `seconds` of counted ones, `least` of them are enough.
    """

    warmup: int = 2
    updates: int = 7
    least: int = 3
    seconds: float = 8.0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.warmup < 0 or not 1 <= self.least <= self.updates:
            raise ValueError(
                f"warmup must be at least 0 and least between 1 and updates, got {self.warmup}, "
                f"{self.least} and {self.updates}"
            )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One stage on one device. Times are of one update, in seconds; memory in bytes."""

    stage: str
    device: str
    dtype: str
    trained: int
    frozen: int
    updates: int
    """How many were timed."""
    seconds: float
    """The median."""
    fastest: float
    slowest: float
    samples_per_second: float
    tokens_per_second: float
    mfu: float | None
    """The plan's operations a second, as a share of the GPU's; None where its peak is not known."""
    peak_memory: int | None
    """Most that tensors took on CUDA; elsewhere by how much the process grew, None where the
    system does not say. Of several processes that share an update, the first."""
    computed_memory: int


def measure(
    recipe: Recipe,
    plans: Sequence[StagePlan],
    config: MeasureConfig | None = None,
    progress: Progress | None = None,
) -> tuple[Measured, ...]:
    """Every planned stage, one after the other. Raises InputError where one cannot fit."""
    config, progress = config or MeasureConfig(), progress or Progress(silent=True)
    device = resolve_device(config.device)
    configs = {stage.name: stage.config for stage in recipe.stages}
    shapes = shapes_of(configs)
    room = memory_left(device)
    for one in plans:
        said = advice(one, room, f"the {device.type} here") if room is not None else ""
        if said:
            raise InputError(f"{said}; or measure others with --stage")
    found = []
    for one in plans:
        watch = MemoryWatch(device)
        stage = configs[one.stage]
        try:
            with device:
                loads = loads_of(one.stage, configs, shapes)
            for load in loads:
                load.module.to(device)  # tables that are made on the CPU
            times = time_updates(
                one.stage, loads, stage.loop, stage.optim, config, progress, device
            )
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{one.stage} ran out of memory on the {device.type} here, beyond the "
                f"{one.total / 1e9:.2f} GB that were computed for it; lower "
                f"{one.stage}.loop.batch_size and raise {one.stage}.loop.accumulate"
            ) from error
        found.append(_measured(one, loads, times, device, stage.loop, watch.peak()))
        del loads
        progress.say(f"{one.stage}: {1000 * found[-1].seconds:.1f} ms an update")
    return tuple(found)


class NoiseTask:
    """The parts of a stage as a task of the training loop; a batch is its number."""

    echoes = True

    def __init__(self, loads: Sequence[Load], samples: int) -> None:
        self.modules: dict[str, nn.Module] = {x.name: x.module for x in loads if x.trained}
        self.helpers = tuple(x.module for x in loads if not x.trained)
        self._loads, self._samples = loads, samples

    def batch(self, index: int) -> int:
        return index

    def weight(self, batch: int) -> float:
        return float(self._samples)

    def loss(self, batch: int) -> StepLoss:
        totals = []
        for load in self._loads:
            grows = load.trained or load.through
            with torch.set_grad_enabled(grows):
                out = load.run()
            if grows and out is not None:
                totals.append(load.loss(out) if load.loss else mean_of(out))
        return StepLoss(torch.stack([total.float() for total in totals]).sum(), {})


def mean_of(out: Any) -> Tensor:
    """A scalar that every tensor in an output has a part in; dataclasses and tuples are opened."""
    if isinstance(out, Tensor):
        return out.float().mean()
    if is_dataclass(out):
        out = [getattr(out, field.name) for field in fields(out)]
    return torch.stack([mean_of(one) for one in out if one is not None]).sum()


class _Enough(Exception):
    """Enough updates were seen; nothing is saved."""


def time_updates(
    name: str,
    loads: Sequence[Load],
    loop: LoopConfig,
    optim: OptimConfig,
    config: MeasureConfig,
    progress: Progress,
    device: torch.device,
) -> list[float]:
    """Seconds of each counted update of the stage's own loop, which ends by an exception: a
    finished run would be saved."""
    ends = [time.monotonic()]

    def log(entry: dict[str, Any]) -> None:
        ends.append(time.monotonic())
        counted = len(ends) - 1 - config.warmup
        late = counted > 0 and ends[-1] - ends[config.warmup] > config.seconds
        if counted >= (config.least if late else config.updates):
            raise _Enough

    short = replace(
        loop, steps=config.warmup + config.updates, log_every=1, checkpoint_seconds=math.inf
    )
    task = NoiseTask(loads, loop.batch_size)
    with tempfile.TemporaryDirectory(prefix="lumo-plan-") as folder:
        site = FitSite(
            name=f"measure {name}",
            work=Path(folder),
            progress=progress,
            log=log,
            stop=threading.Event(),
            device=device,
        )
        with contextlib.suppress(_Enough):
            fit(task, short, optim, site)
    steps = [after - before for before, after in itertools.pairwise(ends)]
    return steps[config.warmup :]


def _measured(
    one: StagePlan,
    loads: Sequence[Load],
    times: list[float],
    device: torch.device,
    loop: LoopConfig,
    peak: int | None,
) -> Measured:
    seconds = statistics.median(times)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    known = gpu_called(name) if device.type == "cuda" else None
    trained = sum(p.numel() for _, p in named_parameters(loads))
    every = sum(p.numel() for load in loads for p in load.module.parameters())
    rate = one.samples / seconds
    return Measured(
        stage=one.stage,
        device=name,
        dtype="bfloat16" if loop.bf16 and bf16_supported(device) else "float32",
        trained=trained,
        frozen=every - trained,
        updates=len(times),
        seconds=seconds,
        fastest=min(times),
        slowest=max(times),
        samples_per_second=rate,
        tokens_per_second=rate * one.tokens,
        mfu=one.flops / seconds / find_gpu(known).flops if known else None,
        peak_memory=peak,
        computed_memory=one.total,
    )


class MemoryWatch:
    """The most memory from its making on, beyond what was there then."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        _give_back()
        self._device, self._before = device, 0
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        elif device.type == "cpu" and _forget_peak():
            self._before = _status_bytes("VmRSS")

    def peak(self) -> int | None:
        """Bytes; None where the system does not say."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        if self._device.type != "cpu" or not self._before:
            return None
        return max(0, _status_bytes("VmHWM") - self._before)


def _give_back() -> None:
    """Freed memory back to the system, or what comes next would grow into it unseen (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _forget_peak() -> bool:
    """Let Linux count this process's peak anew; False on systems that cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status_bytes(key: str) -> int:
    """A size from Linux's account of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])
    return 0


def memory_left(device: torch.device) -> int | None:
    """Bytes that a device has to give now; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")), None)
