"""A training checkpoint: model, optimiser and data position in one file.

One safetensors file, written beside the old one and moved over it, so there is always a whole one.
Does not know: what the numbers mean, or random state: the loop seeds each micro-batch by number.
Nothing in it can run code.
Costs: three to four times the trained parameters in bytes x 4.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lumoomni.errors import InputError
from lumoomni.runtime import atomic_write_bytes


@dataclass(frozen=True)
class Checkpoint:
    """`step` updates are done; `meta` holds small JSON facts (what run this belongs to)."""

    step: int
    model: dict[str, Tensor]
    optim: dict[str, Tensor]
    meta: dict[str, str]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically. Raises InputError when the disk is full; the previous file stays whole."""
    tensors = {f"model.{k}": v.detach().contiguous() for k, v in checkpoint.model.items()}
    tensors |= {f"optim.{k}": v.detach().contiguous() for k, v in checkpoint.optim.items()}
    # Tied parameters share memory; safetensors wants every tensor to own its bytes.
    seen: dict[int, str] = {}
    for name, tensor in list(tensors.items()):
        if tensor.data_ptr() in seen and tensor.numel():
            tensors[name] = tensor.clone()
        seen[tensor.data_ptr()] = name
    facts = {"step": str(checkpoint.step), "meta": json.dumps(checkpoint.meta)}
    atomic_write_bytes(path, save(tensors, facts))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises InputError when the file is not one."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optim": {}}
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                kind, _, rest = name.partition(".")
                if kind in parts:
                    parts[kind][rest] = file.get_tensor(name)
            step, meta = int(facts["step"]), json.loads(facts["meta"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise InputError(
            f"{path} is not a usable training checkpoint ({error}); "
            "delete it to start this stage again"
        ) from error
    return Checkpoint(step, parts["model"], parts["optim"], meta)
