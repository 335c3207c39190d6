"""A part at work: its forward on one micro-batch of the longest inputs, and what it is made of.

Knows: the Thinker, the towers, and the shapes of their inputs, from a recipe or from the
config.json of adopted parts, whose weights are random here.
Does not know: which stage they work in, or data. Tensors are fake or real, as they are made.
Costs: making the parts, where tensors are real.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from lumoomni.errors import InputError
from lumoomni.model.audio import AudioTower, feature_count
from lumoomni.model.lora import PLACES, LoraSettings, attach
from lumoomni.model.siglip import check_kind
from lumoomni.model.thinker import Thinker
from lumoomni.model.vision import VisionTower
from lumoomni.train.freeze import freeze
from lumoomni.train.loss import CHUNK_ELEMENTS, lm_loss
from lumoomni.train.recompute import recomputing

SECONDS_OF_SOUND = 10
FRAMES_A_SYMBOL = 4
"""Of sound, for a recogniser's symbol or a reply's token."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """One part at work in a stage: `run` is its forward on one micro-batch.

    `name` is the part's in the stage's task. Parameters train if they require gradients;
    `trained`: some do. `through`: gradients pass through it although it is frozen.
    `tokens`: positions of one sample that it runs over.
    """

    name: str
    module: nn.Module
    run: Callable[[], Any]
    trained: bool = True
    through: bool = False
    tokens: int = 0
    times: float | None = None
    """Forwards that its weights' products are worth; None: 3, 2 or 1 as it is trained or through.
    """
    counted: Callable[[], Any] | None = None
    """The same forward without activation checkpointing, for counting."""
    pieces: int = 1
    piece_bytes: int = 0
    """With checkpointing: how many equal pieces are computed again one by one, and the input that
    each of them keeps."""
    loss: Callable[[Any], Tensor] | None = None
    """What `run` gave -> a scalar, where a mean of it costs less than the stage's own loss. It
    needs real values, so its cost is stated:"""
    loss_flops: float = 0.0
    """Forward and backward."""
    loss_bytes: int = 0


def shapes_of(configs: dict[str, Any]) -> dict[str, Any]:
    """The Thinker's config, and what makes its vision tower, from the recipe or from folders.

    Raises InputError when adopted parts are not named.
    """
    if "pretrain_text" in configs:
        text = configs["pretrain_text"]
        return {
            "thinker": text.thinker,
            "positions": text.context_tokens,
            "vision": configs["train_vision_encoder"].vision,
            "dtype": torch.float32,
        }
    adopted = configs["adopt_parts"]
    from lumoomni.model.hf_config import config_from_hf, read_config
    from lumoomni.stages.adopt_parts import find_model

    return {
        "thinker": config_from_hf(read_config(find_model(adopted.llm, "llm"))),
        "positions": adopted.context_tokens,
        "vision": _siglip(find_model(adopted.vision, "vision")),
        "dtype": getattr(torch, adopted.dtype),
    }


def _siglip(folder: Path) -> Any:
    try:
        from transformers import SiglipVisionConfig
    except ImportError as error:
        raise InputError("planning with a SigLIP needs `pip install lumoomni[hf]`") from error
    check_kind(str(folder))
    return SiglipVisionConfig.from_pretrained(folder)


def thinker_load(
    shapes: dict[str, Any],
    batch: int,
    *,
    trained: bool,
    name: str = "thinker",
    answers: bool = True,
    checkpointing: bool = False,
) -> Load:
    """A Thinker on a full context. `answers`: a loss is made of its states."""
    with typed(shapes["dtype"]):
        made = Thinker(shapes["thinker"])
    if not trained:
        freeze(made)
    length = shapes["positions"]
    ids = torch.randint(made.config.vocab_size, (batch, length))
    load = Load(
        name=name,
        module=made,
        run=lambda: thinker_states(made, ids, answers, checkpointing),
        trained=trained,
        through=answers,
        tokens=length,
    )
    if checkpointing:
        load = computed_again(load, made, ids, 4.0 if trained else 3.0)
    return with_answers(load, made, ids) if answers else load


def computed_again(load: Load, made: Thinker, ids: Tensor, times: float) -> Load:
    """A Thinker's load on ids [B, T] with checkpointing: layers are done again one by one."""
    layers, width = made.config.layers, made.config.width
    return replace(
        load,
        times=times,
        counted=lambda: thinker_states(made, ids, True),
        pieces=layers,
        piece_bytes=ids.numel() * width * made.token_table.weight.dtype.itemsize,
    )


def thinker_states(made: Thinker, ids: Tensor, grows: bool, checkpointing: bool = False) -> Tensor:
    """ids [B, T] -> [B, T, D]; `grows`: gradients reach the embeddings, some are a connector's."""
    x = made.embed(ids)
    if grows and not x.requires_grad:
        x = x.detach().requires_grad_()
    with recomputing([made], checkpointing):
        return made(x).hidden


def with_answers(load: Load, made: Thinker, ids: Tensor) -> Load:
    """The language-model loss at every position of ids [B, T]."""
    count, (symbols, width) = ids.shape[0] * (ids.shape[1] - 1), made.head_weight().shape
    learned = made.head_weight().requires_grad
    chunk = min(max(64, CHUNK_ELEMENTS // symbols), count)
    return replace(
        load,
        loss=lambda hidden: lm_loss(hidden, ids, made.head_weight()).total,
        loss_flops=2.0 * count * symbols * width * (2 + learned),
        # A chunk of logits; the states' gradient; the head's, in float32.
        loss_bytes=2 * chunk * symbols + 2 * count * width + 4 * symbols * width * learned,
    )


def adapted_load(
    shapes: dict[str, Any], batch: int, lora: LoraSettings, checkpointing: bool
) -> Load:
    """A frozen Thinker with adapters. Raises InputError without `peft`, where tensors are real."""
    with typed(shapes["dtype"]):
        made = Thinker(shapes["thinker"])
    freeze(made)
    if isinstance(made.token_table.weight, FakeTensor):
        stand_in(made, lora)
    else:
        attach(made, lora)
    length, config = shapes["positions"], made.config
    ids = torch.randint(config.vocab_size, (batch, length))
    load = Load(
        name="thinker",
        module=made,
        run=lambda: thinker_states(made, ids, True, checkpointing),
        through=True,
        tokens=length,
        times=2.0,  # the adapters' own gradients, thin products, are left out
        counted=lambda: thinker_states(made, ids, True),
    )
    if checkpointing:
        load = computed_again(load, made, ids, 3.0)
    return with_answers(load, made, ids)


def stand_in(made: Thinker, lora: LoraSettings) -> None:
    """What `attach` does, for fake tensors: of these peft makes nothing."""
    places = [PLACES[name] for name in lora.modules]
    for name, base in list(made.named_modules()):
        if isinstance(base, nn.Linear) and name.endswith(tuple(f".{place}" for place in places)):
            parent, _, leaf = name.rpartition(".")
            setattr(made.get_submodule(parent), leaf, Adapted(base, lora.rank))


class Adapted(nn.Module):
    """A matrix with a low-rank adapter in float32, as peft's."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.low = nn.Linear(base.in_features, rank, bias=False)
        self.high = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out] in the base's type."""
        out = self.base(x)
        return (out + self.high(self.low(x.float()))).to(out.dtype)


def vision_load(shapes: dict[str, Any], batch: int, *, trained: bool) -> tuple[Load, int, int]:
    """The tower's load, its width and its number of patches."""
    shape = shapes["vision"]
    made: Any
    if hasattr(shape, "grid"):
        made = VisionTower(replace(shape, symbols=shapes["thinker"].vocab_size))
        size, width, count = shape.image_size, shape.width, shape.grid**2
        pixels = torch.randn(batch, 3, size, size)
        run = lambda: pictures(made, pixels, reads=trained)  # noqa: E731
    else:
        from transformers import SiglipVisionModel

        class Bare(SiglipVisionModel):
            def init_weights(self) -> None:
                """Weights stay as torch makes them; fake ones have no values to begin with."""

        with typed(shapes["dtype"]):
            made = Bare(shape)
        size, width = shape.image_size, shape.hidden_size
        count = (size // shape.patch_size) ** 2
        pixels = torch.randn(batch, 3, size, size, dtype=shapes["dtype"])
        run = lambda: made(pixel_values=pixels)  # noqa: E731
    if not trained:
        freeze(made)
    load = Load(name="vision", module=made, run=run, trained=trained, tokens=count)
    return load, width, count


def pictures(made: VisionTower, pixels: Tensor, *, reads: bool) -> tuple[Tensor, ...]:
    """Features; `reads`: and what its reader of regions, if any, says of every patch."""
    found = made(pixels)
    if made.reader is None or not reads:
        return found.cls, found.patches
    seen = found.patches
    return found.cls, seen, made.reader.centres(seen), made.reader.describe(seen)


@contextlib.contextmanager
def typed(dtype: torch.dtype) -> Iterator[None]:
    """New parameters in `dtype`: fake ones cannot be converted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def audio_load(
    configs: dict[str, Any], shapes: dict[str, Any], batch: int, *, trained: bool
) -> Load:
    """The tower on mels of SECONDS_OF_SOUND; with its recogniser's loss where it trains."""
    config = replace(
        configs["train_audio_encoder"].audio,
        n_mels=configs["pretrain_text"].mel.n_mels,
        symbols=shapes["thinker"].vocab_size,
    )
    made, frames = AudioTower(config), SECONDS_OF_SOUND * 100
    mels, lengths = torch.randn(batch, frames, config.n_mels), torch.full((batch,), frames)
    heard = feature_count(frames)
    if not trained:
        freeze(made)
        return Load(
            name="audio",
            module=made,
            run=lambda: made(mels, lengths).features,
            trained=False,
            tokens=heard,
        )
    symbols = heard // FRAMES_A_SYMBOL
    said, sizes = torch.randint(1, config.symbols, (batch, symbols)), torch.full((batch,), symbols)
    times = torch.full((batch,), heard)

    def loss(scores: Tensor) -> Tensor:
        scores = scores.transpose(0, 1)
        return F.ctc_loss(scores, said, times, sizes, reduction="sum", zero_infinity=True)

    return Load(
        name="audio",
        module=made,
        run=lambda: made.log_probs(made(mels, lengths).features),
        tokens=heard,
        loss=loss,
    )


def rest() -> None:
    """The forward of a part that is there and does nothing."""
