"""What training a recipe takes, before it is trained: parameters, memory by part, arithmetic.

Knows: how to count what the parts of a stage (`loads.py`) keep and do, and what a GPU makes of it.
Does not know: data, or anybody's allocator. Costs: seconds; parts are made of fake tensors,
which have shapes and no memory, so that Qwen3-8B is planned on a laptop as quickly as `nano`.

Peak memory is that of one micro-batch: weights, gradients, optimiser, what the forward keeps for
the backward (tensor by tensor), and a chunk of logits. What an allocator wastes comes on top.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lumoomni.config import nearest
from lumoomni.errors import InputError
from lumoomni.model.thinker import Thinker
from lumoomni.pipeline import Recipe
from lumoomni.recipes.gpus import find_gpu
from lumoomni.recipes.loads import LOADS, loads_of
from lumoomni.recipes.part_loads import Load, shapes_of
from lumoomni.runtime import Progress
from lumoomni.train.loop import LoopConfig
from lumoomni.train.optim import OptimConfig, is_hidden_matrix

ATTENTION = ("bmm", "attention")
"""In the names of the products of queries, keys and values."""
USED = 0.4
"""Share of a GPU's operations that a well-run training reaches."""


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Bytes and operations of one stage; `batch` samples a micro-batch, `updates` of `parts`."""

    stage: str
    trained: int
    frozen: int
    batch: int
    accumulate: int
    updates: int
    tokens: int
    """Positions of one sample in the part that has the most: text, patches or frames."""
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    flops: float
    """Of one update, forward and backward."""
    recomputable: bool = False
    """Whether layers could be computed again in the backward, and are not yet."""

    @property
    def total(self) -> int:
        """Peak bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits

    @property
    def samples(self) -> int:
        """Of one update."""
        return self.batch * self.accumulate

    def seconds(self, gpu: str) -> float:
        """Of one update on a GPU that reaches USED of its operations, and the optimiser's reading
        and writing (gradients, its own numbers, and as many weights) at full bandwidth."""
        made = find_gpu(gpu)
        moved = 2 * (2 * self.gradients + self.optimizer)
        return self.flops / (made.flops * USED) + moved / made.bandwidth

    def hours(self, gpu: str) -> float:
        """Of the whole stage."""
        return self.seconds(gpu) * self.updates / 3600


def plan(
    recipe: Recipe, progress: Progress | None = None, only: str | None = None
) -> tuple[StagePlan, ...]:
    """A line for every stage that trains, or for the one named `only`.

    Raises InputError when adopted parts are not named, or for a stage that trains nothing.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    configs = {stage.name: stage.config for stage in recipe.stages}
    wanted = trained_stages(recipe, only)
    shapes = shapes_of(configs)
    found = []
    progress = progress or Progress(silent=True)
    with progress.task("plan", total=len(wanted), unit="stage") as bar, FakeTensorMode():
        for name in wanted:
            config = configs[name]
            loads = loads_of(name, configs, shapes)
            found.append(_count(name, loads, config.loop, config.optim))
            bar.update(1)
    return tuple(found)


def trained_stages(recipe: Recipe, only: str | None = None) -> list[str]:
    """Names of the stages that can be planned, in order. Raises InputError if `only` is none."""
    names = [stage.name for stage in recipe.stages if type(stage.config) in LOADS]
    if only is None:
        return names
    if recipe.stage(only).name not in names:
        raise InputError(f"there is nothing to plan in stage {only!r}; {nearest(only, names)}")
    return [only]


def named_parameters(loads: Sequence[Load]) -> list[tuple[str, nn.Parameter]]:
    """Parameters that train, with the names that the training loop gives them."""
    return [
        (f"{load.name}.{name}", parameter)
        for load in loads
        for name, parameter in load.module.named_parameters()
        if load.trained and parameter.requires_grad
    ]


def fits(found: Sequence[StagePlan], gpu: str) -> dict[str, Any]:
    """Whether the largest stage fits a GPU, what to do if not, and hours of each stage."""
    memory = find_gpu(gpu).memory
    most = max(one.total for one in found)
    hours = {one.stage: round(one.hours(gpu), 3) for one in found}
    return {
        "gpu": gpu,
        "memory": memory,
        "fits": most < memory,
        "peak": most,
        "hours": hours,
        "advice": [said for one in found if (said := advice(one, memory, gpu))],
    }


def advice(one: StagePlan, memory: float, where: str) -> str:
    """What to change so that a stage fits into so many bytes, with both numbers; empty if it does.

    Fewer samples at a time with as many in an update teach the same.
    """
    if one.total < memory:
        return ""
    said = f"{one.stage} needs {one.total / 1e9:.2f} GB and {where} has {memory / 1e9:.2f} GB: "
    loop = f"{one.stage}.loop"
    standing = one.weights + one.gradients + one.optimizer
    room = memory - standing - one.logits
    most = int(room / max(1.0, one.activations / one.batch))
    sizes = [size for size in range(1, min(most, one.batch - 1) + 1) if not one.samples % size]
    if sizes:
        batch = sizes[-1]
        return said + (
            f"set {loop}.batch_size={batch} {loop}.accumulate={one.samples // batch}, which learns "
            "from as many samples an update"
        )
    if standing < memory:
        less = f"keep less for the backward ({loop}.checkpointing=true: activation checkpointing)"
        ways = [
            f"lower {loop}.batch_size ({one.batch}) and raise {loop}.accumulate ({one.accumulate})",
            "shorten its inputs",
            *([less] if one.recomputable else []),
        ]
        return said + f"{', '.join(ways[:-1])}, or {ways[-1]}"
    return said + (
        f"weights, gradients and optimiser alone take {standing / 1e9:.2f} GB, so no batch_size "
        "fits; train fewer parameters or take a larger GPU"
    )


def _count(name: str, loads: list[Load], loop: LoopConfig, optim: OptimConfig) -> StagePlan:
    trained = named_parameters(loads)
    everything = [p for load in loads for p in load.module.parameters()]
    matrices = sum(p.numel() for n, p in trained if optim.matrix_lr and is_hidden_matrix(n, p))
    count = sum(p.numel() for _, p in trained)
    kept, flops = 0, 0.0
    for load in loads:
        run = load.counted or load.run
        grows = load.trained or load.through
        bytes_kept, forward, between = _forward(run, grows, loop.bf16)
        kept += bytes_kept // load.pieces + load.pieces * load.piece_bytes
        # The backward makes one product for the inputs and one for the weights, if they train.
        times = load.times or (3 if load.trained else 2 if load.through else 1)
        again = load.piece_bytes > 0  # with checkpointing each piece's forward, a second time
        flops += forward * times + between * (3 + again if grows else 1) + load.loss_flops
    return StagePlan(
        stage=name,
        trained=count,
        frozen=sum(p.numel() for p in everything) - count,
        batch=loop.batch_size,
        accumulate=loop.accumulate,
        updates=loop.steps,
        tokens=max(load.tokens for load in loads),
        weights=_bytes(everything),
        gradients=_bytes(p for _, p in trained),
        optimizer=4 * matrices + 8 * (count - matrices),
        activations=kept,
        logits=sum(load.loss_bytes for load in loads),
        flops=flops * loop.accumulate,
        recomputable=not loop.checkpointing
        and any(isinstance(m, Thinker) for load in loads for m in load.module.modules()),
    )


def _bytes(parameters: Any) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def _forward(run: Callable[[], Any], grows: bool, bf16: bool = True) -> tuple[int, float, float]:
    """Bytes kept for the backward (each storage once, weights not counted), operations with
    weights, and those of attention: its backward makes two products whether weights train or not.
    """
    from torch.utils.flop_counter import FlopCounterMode

    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    with (
        torch.set_grad_enabled(grows),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        counter,
    ):
        run()
    between = sum(
        count
        for op, count in counter.get_flop_counts().get("Global", {}).items()
        if any(word in str(op) for word in ATTENTION)
    )
    return sum(kept.values()), float(counter.get_total_flops() - between), float(between)
