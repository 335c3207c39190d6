"""What training a recipe takes, before it is trained: parameters, memory by part, arithmetic.

Knows: the parts that each stage's loss runs, at the longest inputs that its settings allow.
Does not know: data, speeds or anybody's allocator. Costs: seconds; parts are made of fake tensors,
which have shapes and no memory, so that Qwen3-8B is planned on a laptop as quickly as `nano`.

Peak memory is that of one micro-batch: weights, gradients, optimiser, what the forward keeps for
the backward (tensor by tensor), and a chunk of logits. What an allocator wastes comes on top.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.config import nearest
from lumoomni.errors import InputError
from lumoomni.model.audio import AudioTower
from lumoomni.model.perceiver import PerceiverConnector
from lumoomni.model.talker import Talker
from lumoomni.model.thinker import Thinker
from lumoomni.model.vision import VisionTower
from lumoomni.pipeline import Recipe
from lumoomni.runtime import Progress
from lumoomni.stages.align_connector import connector_shape
from lumoomni.train.contrast import CaptionHeads
from lumoomni.train.loop import LoopConfig
from lumoomni.train.loss import CHUNK_ELEMENTS
from lumoomni.train.optim import OptimConfig, is_hidden_matrix

SECONDS_OF_SOUND = 10
GPUS = {
    "h200": (989e12, 141e9),
    "h100": (989e12, 80e9),
    "a100": (312e12, 80e9),
    "4090": (165e12, 24e9),
    "l4": (121e12, 24e9),
    "3060": (51e12, 12e9),
}
"""Dense bf16 operations a second and bytes of memory, as the makers state them."""
USED = 0.4
"""Share of those operations that a well-run training reaches."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """One part at work in a stage: `run` is its forward on one micro-batch of fake tensors.

    `through`: gradients pass through it although it is frozen.
    """

    name: str
    module: nn.Module
    run: Callable[[], Any]
    trained: bool = True
    through: bool = False


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Bytes and operations of one stage; `batch` samples a micro-batch, `updates` of `parts`."""

    stage: str
    trained: int
    frozen: int
    batch: int
    accumulate: int
    updates: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    flops: float
    """Of one update, forward and backward."""

    @property
    def total(self) -> int:
        """Peak bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits

    def hours(self, gpu: str) -> float:
        """Of the whole stage on a GPU that reaches USED of its operations."""
        return self.flops * self.updates / (GPUS[gpu][0] * USED) / 3600


def plan(recipe: Recipe, progress: Progress | None = None) -> tuple[StagePlan, ...]:
    """A line for every stage that trains. Raises InputError when adopted parts are not named."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    configs = {stage.name: stage.config for stage in recipe.stages}
    shapes = _shapes(configs)
    found = []
    wanted = [name for name in configs if name in LOADS]
    progress = progress or Progress(silent=True)
    with progress.task("plan", total=len(wanted), unit="stage") as bar, FakeTensorMode():
        for name in wanted:
            config = configs[name]
            loads = list(LOADS[name](configs, shapes, config))
            vocabulary = shapes["thinker"].vocab_size if name in WITH_LOGITS else 0
            found.append(_measure(name, loads, config.loop, config.optim, vocabulary))
            bar.update(1)
    return tuple(found)


def known_gpu(name: str) -> None:
    """Raises InputError for a GPU that is not in the table."""
    if name not in GPUS:
        raise InputError(f"there is no GPU {name!r} in the table; {nearest(name, GPUS)}")


def fits(found: Sequence[StagePlan], gpu: str) -> dict[str, Any]:
    """Whether the largest stage fits a GPU, and hours at USED of its operations."""
    known_gpu(gpu)
    most = max(one.total for one in found)
    hours = {one.stage: round(one.hours(gpu), 3) for one in found}
    return {"gpu": gpu, "fits": most < GPUS[gpu][1], "peak": most, "hours": hours}


def shown(
    found: Sequence[StagePlan], gpu: str | None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for people: MiB, and TFLOP an update."""
    parts_of = "weights + gradients + optimizer + kept + logits"
    columns = ("stage", "trained", "frozen", "batch", "peak MiB", parts_of, "TFLOP")
    rows = []
    for one in found:
        parts = (one.weights, one.gradients, one.optimizer, one.activations, one.logits)
        row: tuple[str, ...] = (
            one.stage,
            _short(one.trained),
            _short(one.frozen),
            f"{one.accumulate} x {one.batch}",
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


def _measure(
    name: str, loads: list[Load], loop: LoopConfig, optim: OptimConfig, vocabulary: int
) -> StagePlan:
    trained = [(n, p) for load in loads if load.trained for n, p in load.module.named_parameters()]
    frozen = [p for load in loads if not load.trained for p in load.module.parameters()]
    matrices = sum(p.numel() for n, p in trained if optim.matrix_lr and is_hidden_matrix(n, p))
    count = sum(p.numel() for _, p in trained)
    kept, flops = 0, 0.0
    for load in loads:
        grows = load.trained or load.through
        bytes_kept, forward = _forward(load.run, grows)
        kept += bytes_kept
        # The backward makes one product for the inputs and one for the weights, if they train.
        flops += forward * (3 if load.trained else 2 if load.through else 1)
    chunk = max(64 * vocabulary, CHUNK_ELEMENTS) if vocabulary else 0
    return StagePlan(
        stage=name,
        trained=count,
        frozen=sum(p.numel() for p in frozen),
        batch=loop.batch_size,
        accumulate=loop.accumulate,
        updates=loop.steps,
        weights=_bytes(p for _, p in trained) + _bytes(frozen),
        gradients=_bytes(p for _, p in trained),
        optimizer=4 * matrices + 8 * (count - matrices),
        activations=kept,
        logits=2 * chunk,
        flops=flops * loop.accumulate,
    )


def _bytes(parameters: Any) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def _forward(run: Callable[[], Any], grows: bool) -> tuple[int, float]:
    """Bytes kept for the backward (each storage once, weights not counted), and operations."""
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
        torch.autocast("cpu", torch.bfloat16, cache_enabled=False),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        counter,
    ):
        run()
    return sum(kept.values()), float(counter.get_total_flops())


def _shapes(configs: dict[str, Any]) -> dict[str, Any]:
    """The Thinker's config, and what makes its vision tower, from the recipe or from folders."""
    if "pretrain_text" in configs:
        text = configs["pretrain_text"]
        return {
            "thinker": text.thinker,
            "positions": text.context_tokens,
            "vision": configs["train_vision_encoder"].vision,
            "dtype": torch.float32,
        }
    adopted = configs["adopt_parts"]
    from lumoomni.model.hf_weights import inspect_thinker
    from lumoomni.stages.adopt_parts import find_model

    folder = find_model(adopted.llm, "llm")
    return {
        "thinker": inspect_thinker(folder),
        "positions": adopted.context_tokens,
        "vision": _siglip(find_model(adopted.vision, "vision")),
        "dtype": getattr(torch, adopted.dtype),
    }


def _siglip(folder: Path) -> Any:
    try:
        from transformers import SiglipVisionConfig
    except ImportError as error:
        raise InputError("planning with a SigLIP needs `pip install lumoomni[hf]`") from error
    return SiglipVisionConfig.from_pretrained(folder)


def _thinker(shapes: dict[str, Any], batch: int, *, trained: bool) -> Load:
    with _typed(shapes["dtype"]):
        made = Thinker(shapes["thinker"])
    x = torch.empty(batch, shapes["positions"], made.config.width, requires_grad=True)
    return Load(
        name="thinker", module=made, run=lambda: made(x).hidden, trained=trained, through=True
    )


def _vision(shapes: dict[str, Any], batch: int, *, trained: bool) -> tuple[Load, int, int]:
    """The tower's load, its width and its number of patches."""
    shape = shapes["vision"]
    if hasattr(shape, "grid"):
        made, size, width, count = VisionTower(shape), shape.image_size, shape.width, shape.grid**2
        run = lambda: made(torch.empty(batch, 3, size, size))  # noqa: E731
    else:
        from transformers import SiglipVisionModel

        class Bare(SiglipVisionModel):
            def init_weights(self) -> None:
                """Fake weights have no values to begin with."""

        with _typed(shapes["dtype"]):
            model: Any = Bare(shape)
        made, size, width = model, shape.image_size, shape.hidden_size
        count = (size // shape.patch_size) ** 2
        pixels = torch.empty(batch, 3, size, size, dtype=shapes["dtype"])
        run = lambda: model(pixel_values=pixels)  # noqa: E731
    return Load(name="vision", module=made, run=run, trained=trained), width, count


@contextlib.contextmanager
def _typed(dtype: torch.dtype) -> Iterator[None]:
    """New parameters in `dtype`: fake ones cannot be converted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _mels(config: Any, batch: int) -> tuple[Tensor, Tensor]:
    frames = SECONDS_OF_SOUND * 100
    return torch.empty(batch, frames, config.n_mels), torch.full((batch,), frames)


def _text_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    yield _thinker(shapes, config.loop.batch_size, trained=True)


def _audio_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    mel = configs["pretrain_text"].mel
    audio = replace(config.audio, symbols=shapes["thinker"].vocab_size, n_mels=mel.n_mels)
    made = AudioTower(audio)
    mels, lengths = _mels(audio, config.loop.batch_size)
    run = lambda: made.log_probs(made(mels, lengths).features)  # noqa: E731
    yield Load(name="audio", module=made, run=run)


def _vision_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    batch = config.loop.batch_size
    tower, width, count = _vision(shapes, batch, trained=True)
    yield tower
    heads = CaptionHeads(replace(config.heads, vocab_size=shapes["thinker"].vocab_size), width)
    ids = torch.zeros(batch, config.heads.max_tokens, dtype=torch.long)
    mask = torch.ones_like(ids, dtype=torch.bool)
    patches = torch.empty(batch, count, width, requires_grad=True)
    run = lambda: (heads.text(ids, mask), heads.places(patches, ids, mask))  # noqa: E731
    yield Load(name="heads", module=heads, run=run)


def _codec_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    shape = replace(config.speech, n_mels=configs["pretrain_text"].mel.n_mels)
    codec = SpeechCodec(shape)
    frames = SECONDS_OF_SOUND * 100 // shape.stride
    x = torch.empty(config.loop.batch_size, shape.n_mels * shape.stride, frames)
    halves = nn.Sequential(codec.encode_in, codec.encode_mid, codec.encode_out)
    back = nn.Sequential(codec.decode_in, codec.decode_mid, codec.decode_out)
    yield Load(name="speech_codec", module=codec, run=lambda: back(halves(x)))


def _talker_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    talker = Talker(replace(config.talker, source_width=shapes["thinker"].width))
    frames = SECONDS_OF_SOUND * 100 // configs["train_codecs"].speech.stride
    x = torch.empty(config.loop.batch_size, frames, config.talker.width, requires_grad=True)
    yield Load(name="talker", module=talker, run=lambda: talker.decode(x))


def _align_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    batch = config.loop.batch_size
    tower, width, count = _vision(shapes, batch, trained=False)
    yield tower
    tower_shape: Any = _Wide(width)
    shape = connector_shape(shapes["thinker"], tower_shape, config, 0)
    made = PerceiverConnector(shape)
    patches = torch.empty(batch, count, width)
    yield Load(name="image_connector", module=made, run=lambda: made(patches))
    if config.thinker_from < 1:
        yield _thinker({**shapes, "positions": config.context}, batch, trained=False)


def _instruct_loads(configs: dict[str, Any], shapes: dict[str, Any], config: Any) -> Iterator[Load]:
    batch = config.loop.batch_size
    yield _vision(shapes, batch, trained=False)[0]
    mel = configs["pretrain_text"].mel
    audio = replace(configs["train_audio_encoder"].audio, n_mels=mel.n_mels, symbols=0)
    ears = AudioTower(audio)
    mels, lengths = _mels(audio, batch)
    yield Load(name="audio", module=ears, run=lambda: ears(mels, lengths), trained=False)
    yield _thinker(shapes, batch, trained=True)
    if config.hold_weight:
        before = Thinker(shapes["thinker"])
        x = torch.empty(batch, shapes["positions"], before.config.width)
        yield Load(name="before", module=before, run=lambda: before(x).hidden, trained=False)


@dataclass(frozen=True)
class _Wide:
    """All that a connector's shape asks of a tower's config."""

    width: int


LOADS: dict[str, Callable[..., Iterator[Load]]] = {
    "pretrain_text": _text_loads,
    "train_audio_encoder": _audio_loads,
    "train_vision_encoder": _vision_loads,
    "train_codecs": _codec_loads,
    "train_talker": _talker_loads,
    "align_connector": _align_loads,
    "instruct": _instruct_loads,
}
WITH_LOGITS = ("pretrain_text", "align_connector", "instruct")
