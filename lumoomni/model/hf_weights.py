"""Hugging Face Qwen3 and Qwen3-MoE checkpoints <-> Thinker, tensor by tensor.

Knows: their tensor names (per-expert and stacked experts), and how ours are fused (query,
key and value in one matrix; gate and up in one). A Thinker with a short convolution or a maker is
more than Qwen3: its folder holds the code that it needs (`modeling_lumoomni.py`).
Does not know: tokenizers, hubs or training.
Costs: the model once; one tensor more where a type changes on the way.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lumoomni.config import read_object
from lumoomni.errors import InputError
from lumoomni.model.hf_config import CODE, OURS, Making, config_from_hf, config_to_hf, read_config
from lumoomni.model.moe import MoEConfig
from lumoomni.model.routed import MATRICES
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.model.weight_files import StoredTensor, stored_tensors

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 4_000_000_000


@dataclass(frozen=True)
class Piece:
    """One checkpoint tensor and the rows of our parameter that it fills (None = all of it)."""

    source: str
    target: str
    rows: slice | None = None
    expert: int | None = None


def load_thinker(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Thinker:
    """Read a checkpoint folder (config.json and one or many safetensors files).

    Raises InputError for an unknown architecture, missing or unexpected tensors, or wrong shapes.
    """
    folder = Path(folder)
    config = config_from_hf(read_config(folder))
    with torch.device("meta"):
        thinker = Thinker(config)
    thinker = thinker.to(dtype).to_empty(device=device)
    thinker.rope.rebuild(torch.device(device))
    parameters = dict(thinker.named_parameters())
    sources = _open_all(folder)
    plan = pieces(config, stacked=any(".experts.gate_up_proj" in name for name in sources))
    _check_names(folder, config, plan, set(sources))
    for piece in plan:
        target, value = _target(parameters, piece), sources[piece.source]
        if value.shape != target.shape:
            raise InputError(
                f"{piece.source} in {folder} has shape {value.shape}, but config.json "
                f"asks for {tuple(target.shape)}; the two files do not belong together"
            )
        value.fill(target)
    return thinker


def inspect_thinker(folder: Path) -> ThinkerConfig:
    """The shape of a checkpoint folder, and proof that its tensors are those of the shape.

    Only names are read. Raises InputError as `load_thinker` does.
    """
    folder = Path(folder)
    config = config_from_hf(read_config(folder))
    names = set(_open_all(folder))
    stacked = any(".experts.gate_up_proj" in name for name in names)
    _check_names(folder, config, pieces(config, stacked=stacked), names)
    return config


def save_thinker(
    thinker: Thinker,
    folder: Path,
    dtype: torch.dtype | None = None,
    making: Making | None = None,
) -> None:
    """Write config.json and safetensors (sharded above 4 GB) that transformers can load.

    Experts are written one by one, the layout of the published checkpoints.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parameters = dict(thinker.named_parameters())
    dtype = dtype or thinker.token_table.weight.dtype
    plan = pieces(thinker.config, stacked=False)
    if making is not None:
        parameters |= {f"maker.{name}": one for name, one in making.maker.named_parameters()}
        plan += _maker_pieces(plan)
    shards: list[list[Piece]] = [[]]
    size = 0
    for piece in plan:
        grown = _target(parameters, piece).numel() * dtype.itemsize
        if shards[-1] and size + grown > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += grown
    index: dict[str, str] = {}
    for number, shard in enumerate(shards):
        name = WEIGHTS
        if len(shards) > 1:
            name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        tensors = {
            piece.source: _target(parameters, piece).detach().to("cpu", dtype).contiguous()
            for piece in shard
        }
        temporary = folder / f".{name}.part"
        save_file(tensors, temporary, metadata={"format": "pt"})
        temporary.replace(folder / name)
        index.update(dict.fromkeys(tensors, name))
    if len(shards) > 1:
        total = sum(p.numel() for p in parameters.values()) * dtype.itemsize
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": index})
    hf = config_to_hf(thinker.config, dtype, making)
    if hf["model_type"] == OURS:
        shutil.copyfile(CODE, folder / CODE.name)
    _write_json(folder / "config.json", hf)


def pieces(config: ThinkerConfig, *, stacked: bool) -> list[Piece]:
    """Every checkpoint tensor of a model; `stacked` is the layout of experts as one tensor."""
    plan = [Piece("model.embed_tokens.weight", "token_table.weight")]
    if config.short_conv:
        plan.append(Piece("model.short_conv.weight", "short_conv.weight"))
    for layer in range(config.layers):
        theirs, ours = f"model.layers.{layer}.", f"blocks.{layer}."
        plan.append(Piece(theirs + "input_layernorm.weight", ours + "attention_norm.weight"))
        plan.append(Piece(theirs + "post_attention_layernorm.weight", ours + "ffn_norm.weight"))
        plan += _attention_pieces(config, theirs + "self_attn.", ours + "attention.")
        moe = None if layer in config.dense_layers else config.moe
        if moe is None:
            plan += _gate_up(theirs + "mlp.", ours + "ffn.gate_up.weight", config.ffn_width)
            plan.append(Piece(theirs + "mlp.down_proj.weight", ours + "ffn.down.weight"))
        else:
            plan += _moe_pieces(moe, theirs + "mlp.", ours + "moe.", stacked)
    plan.append(Piece("model.norm.weight", "norm.weight"))
    if not config.tied:
        plan.append(Piece("lm_head.weight", "head_table"))
    return plan


def _maker_pieces(plan: list[Piece]) -> list[Piece]:
    """The matrices of the layers once more, under the maker's names."""
    ends = tuple(f"{name}.{kind}" for name in MATRICES for kind in ("weight", "bias"))
    return [
        replace(
            piece,
            source="{0}.maker_{2}".format(*piece.source.rpartition(".")),
            target=f"maker.{piece.target}",
        )
        for piece in plan
        if piece.target.endswith(ends)
    ]


def _attention_pieces(config: ThinkerConfig, theirs: str, ours: str) -> Iterator[Piece]:
    width = config.head_width
    ends = [config.heads * width]
    ends += [ends[0] + config.kv_heads * width, ends[0] + 2 * config.kv_heads * width]
    kinds = ("weight", "bias") if config.qkv_bias else ("weight",)
    for name, begin, end in zip("qkv", [0, *ends], ends, strict=False):
        for kind in kinds:
            source = f"{theirs}{name}_proj.{kind}"
            yield Piece(source, f"{ours}qkv.{kind}", slice(begin, end))
    yield Piece(theirs + "o_proj.weight", ours + "out.weight")
    if config.out_bias:
        yield Piece(theirs + "o_proj.bias", ours + "out.bias")
    if config.qk_norm:
        yield Piece(theirs + "q_norm.weight", ours + "q_norm")
        yield Piece(theirs + "k_norm.weight", ours + "k_norm")


def _gate_up(theirs: str, target: str, width: int, expert: int | None = None) -> Iterator[Piece]:
    yield Piece(theirs + "gate_proj.weight", target, slice(0, width), expert)
    yield Piece(theirs + "up_proj.weight", target, slice(width, 2 * width), expert)


def _moe_pieces(moe: MoEConfig, theirs: str, ours: str, stacked: bool) -> Iterator[Piece]:
    yield Piece(theirs + "gate.weight", ours + "router.weight")
    if stacked:
        yield Piece(theirs + "experts.gate_up_proj", ours + "gate_up")
        yield Piece(theirs + "experts.down_proj", ours + "down")
        return
    for expert in range(moe.experts):
        prefix = f"{theirs}experts.{expert}."
        yield from _gate_up(prefix, ours + "gate_up", moe.ffn_width, expert)
        yield Piece(prefix + "down_proj.weight", ours + "down", None, expert)


def _target(parameters: dict[str, Any], piece: Piece) -> Tensor:
    target = parameters[piece.target]
    if piece.expert is not None:
        target = target[piece.expert]
    return target if piece.rows is None else target[piece.rows]


def _open_all(folder: Path) -> dict[str, StoredTensor]:
    """Tensor name -> where it is stored, over every shard of the folder."""
    if (folder / INDEX).is_file():
        weight_map = read_object(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict):
            raise InputError(f"{folder / INDEX} names no weight_map; get a whole copy")
        files = sorted(set(weight_map.values()))
    else:
        files = [WEIGHTS]
    found: dict[str, StoredTensor] = {}
    for name in files:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} does not exist; the checkpoint is incomplete")
        found.update(stored_tensors(folder / name))
    return found


def _check_names(folder: Path, config: ThinkerConfig, plan: list[Piece], found: set[str]) -> None:
    wanted = {piece.source for piece in plan}
    if config.tied:
        found = found - {"lm_head.weight"}  # some writers store the tied head a second time
    missing, unexpected = sorted(wanted - found), sorted(found - wanted)
    if missing or unexpected:
        raise InputError(
            f"{folder} does not match its config.json: {len(missing)} tensors missing "
            f"{missing[:5]}, {len(unexpected)} unexpected {unexpected[:5]}"
        )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)
