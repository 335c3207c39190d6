"""Low-rank adapters (LoRA, arXiv 2106.09685) on a Thinker's matrices, through `peft`.

Knows: which matrices there are, how adapters come on, off and into them, and their small files.
Does not know: training, or where the base lies; a hash names it.
Costs: rank (in + out) numbers a matrix and two thin products more. `infer/step.py` reads weights
directly and steps aside for wrapped matrices; merged ones are plain again. Needs `lumoomni[hf]`.

Experts of a mixture are stacked tensors and no `nn.Linear`: they get no adapter, and are counted.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lumoomni.config import from_dict, nearest, to_dict
from lumoomni.errors import InputError
from lumoomni.model.thinker import Thinker
from lumoomni.runtime import atomic_write_bytes, atomic_write_json

ADAPTER = "thinker_adapter"
PLACES = {
    "qkv": "attention.qkv",
    "out": "attention.out",
    "gate_up": "ffn.gate_up",
    "down": "ffn.down",
}
"""A block's matrices; query, key and value are one, so are gate and up, and share an `A`."""
NAME = "default"  # peft may hold several adapters; we hold one


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """W becomes W + alpha / rank * B A in each of `modules` of every block; B starts at zero."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    modules: tuple[str, ...] = tuple(PLACES)

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                "rank must be at least 1, alpha positive and dropout in [0, 1), got "
                f"{self.rank}, {self.alpha} and {self.dropout}"
            )
        if not self.modules:
            raise ValueError(f"no module to adapt; name some of {', '.join(PLACES)}")
        for name in self.modules:
            if name not in PLACES:
                raise ValueError(f"a block has no {name!r}; {nearest(name, PLACES)}")


@dataclass(frozen=True)
class Attached:
    """Names of the adapted matrices, and how many experts have none."""

    names: tuple[str, ...]
    experts_left_out: int


def attach(thinker: Thinker, settings: LoraSettings) -> Attached:
    """Put fresh adapters on, in place; only they ask for gradients afterwards (peft's doing).

    They are kept in float32 whatever the base's type: small updates vanish in bfloat16.
    Raises InputError without `peft`, for a Thinker that has adapters, and where nothing fits.
    """
    if adapters(thinker):
        raise InputError("this Thinker has adapters already; merge them before adding others")
    wanted = "|".join(re.escape(PLACES[name]) for name in settings.modules)
    pattern = rf"blocks\.\d+\.({wanted})"
    if not any(re.fullmatch(pattern, name) for name, _ in thinker.named_modules()):
        raise InputError(
            f"none of this Thinker's {thinker.config.layers} blocks has a matrix "
            f"{' or '.join(settings.modules)} (experts are stacked tensors); adapt qkv and out"
        )
    _inject(thinker, settings, pattern)
    found = adapters(thinker)
    for layer in found.values():
        for parameter in (layer.lora_A[NAME].weight, layer.lora_B[NAME].weight):
            parameter.data = parameter.data.float()
    asked_of_experts = bool({"gate_up", "down"} & set(settings.modules))
    experts = [
        block.moe.config.experts  # type: ignore[union-attr]
        for block in thinker.blocks
        if block.moe is not None and asked_of_experts
    ]
    return Attached(tuple(found), sum(experts))  # type: ignore[arg-type]


def _inject(thinker: Thinker, settings: LoraSettings, pattern: str) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("adapters need `pip install lumoomni[hf]`") from error
    made = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=pattern,
        bias="none",
    )
    inject_adapter_in_model(made, thinker, NAME)
    # What peft leaves on the model itself would outlive the adapters.
    del thinker.peft_config


def adapters(thinker: Thinker) -> dict[str, Any]:
    """Name of a matrix -> peft's layer around it; empty for a plain Thinker."""
    return {
        name: module
        for name, module in thinker.named_modules()
        if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    }


def adapter_tensors(thinker: Thinker) -> dict[str, Tensor]:
    """`NAME.lora_A.weight` [R, in] and `NAME.lora_B.weight` [out, R], peft's own names, on CPU."""
    return {
        f"{name}.{side}.weight": getattr(layer, side)[NAME].weight.detach().cpu().contiguous()
        for name, layer in adapters(thinker).items()
        for side in ("lora_A", "lora_B")
    }


@contextmanager
def bare(thinker: Thinker) -> Iterator[Thinker]:
    """The same Thinker without its adapters for a while: the very tensors of the base."""
    found = adapters(thinker)
    for name, layer in found.items():
        _put(thinker, name, layer.base_layer)
    try:
        yield thinker
    finally:
        for name, layer in found.items():
            _put(thinker, name, layer)


@torch.no_grad()
def merge(thinker: Thinker) -> int:
    """Fold the adapters into the weights, in place; returns how many matrices there were.

    Sums are made in float32 and rounded once. Raises RuntimeError for a sum that is not finite.
    """
    found = adapters(thinker)
    for name, layer in found.items():
        weight = layer.base_layer.weight
        total = weight.float() + layer.get_delta_weight(NAME).float()
        if not bool(torch.isfinite(total).all()):
            raise RuntimeError(f"the adapter of {name} makes weights that are not finite")
        weight.copy_(total)
        _put(thinker, name, layer.base_layer)
    return len(found)


def _put(thinker: Thinker, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(thinker.get_submodule(parent), leaf, module)


def save_adapter(folder: Path, thinker: Thinker, settings: LoraSettings, base: str) -> None:
    """Write the adapters alone, and beside them their settings and the base's hash."""
    atomic_write_bytes(folder / f"{ADAPTER}.safetensors", save(adapter_tensors(thinker)))
    atomic_write_json(folder / f"{ADAPTER}.json", {**to_dict(settings), "base": base})


def load_adapter(thinker: Thinker, facts: dict[str, Any], path: Path, base: str) -> None:
    """Put saved adapters on, in place: `facts` of the .json, and the .safetensors at `path`.

    Raises InputError when they were made for a base of another hash, or do not fit.
    """
    settings = dict(facts)
    wanted = settings.pop("base", None)
    if wanted != base:
        raise InputError(
            f"{path} was made for base {wanted}, but this Thinker is {base}; put the same base "
            "back, or build the stage again"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error
    with torch.random.fork_rng(devices=[]):  # fresh adapters are drawn, and overwritten below
        attach(thinker, from_dict(LoraSettings, settings, where=ADAPTER))
    own = {
        f"{name}.{side}.weight": getattr(layer, side)[NAME].weight
        for name, layer in adapters(thinker).items()
        for side in ("lora_A", "lora_B")
    }
    odd = sorted(own.keys() ^ tensors.keys())
    odd += sorted(k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape)
    if odd:
        raise InputError(
            f"{path} does not fit this Thinker: {len(odd)} of {len(own)} tensors differ, first "
            f"{odd[0]!r}; build the stage again"
        )
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)
    thinker.requires_grad_(False).eval()
