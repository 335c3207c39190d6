"""New rows as a small folder of their own, and put on the base that they were trained for.

    trainable_rows.safetensors   `embeddings` [K, D] float32, and `lm_head` where the base is untied
    trainable_rows.pt            the same with `row_start`, `row_end`, `base_llm`, `dtype`; it loads
                                 with `weights_only=True`
    trainable_rows.json          ranges, hashes of base and token space, type
    token_space.json             what the rows' ids mean
    trainable_maker.safetensors  matrices of their own for these ids, where they have any

Knows: these files, and what they must agree on. Does not know: training.
Costs: K x D numbers, twice; merging writes the whole base once more with K rows behind its tables.

`row_end` is exclusive, as in the files of the project whose names these are.
"""

import hashlib
import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lumoomni.artifacts import hash_file
from lumoomni.config import canonical_json, from_dict, to_dict
from lumoomni.errors import InputError
from lumoomni.model.hf_config import Making, read_config
from lumoomni.model.hf_weights import load_thinker, save_thinker
from lumoomni.model.routed import matrices, new_maker
from lumoomni.model.rows import Rows, RowsConfig, RowThinker
from lumoomni.model.thinker import Thinker
from lumoomni.runtime import atomic_write_bytes, atomic_write_json, whole_folder
from lumoomni.uti.space import TokenSpace
from lumoomni.uti.space_file import load_space, refuse_other, save_space

NAME = "trainable_rows"
MAKER = "trainable_maker.safetensors"
BASE_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json")
"""Those whose hashes name an adopted Thinker too (`assemble.base_hash`)."""
TEXT_FILES = ("*token*", "vocab*", "merges.txt", "chat_template*", "generation_config.json")
"""What a base's folder knows of text, and a model made of it keeps."""
OLDER = ("row_start", "row_end", "base_llm", "dtype")
"""What the first such files said besides their tensors."""
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class RowFacts:
    """What `trainable_rows.json` says. `base` is the SHA-256 that `base_of` makes."""

    row_start: int
    row_end: int
    width: int
    base_llm: str
    base: str
    abi: str
    has_lm_head: bool
    has_maker: bool = False
    markers: int = 0
    dtype: str = "float32"
    schema: int = SCHEMA


@dataclass(frozen=True)
class RowPackage:
    """Rows in evaluation mode, what they are for, and the space of their ids; the maker's matrices
    by name, where these ids have any."""

    rows: Rows
    facts: RowFacts
    space: TokenSpace
    maker: dict[str, Tensor] | None = None

    def on(self, thinker: Thinker) -> RowThinker:
        """The model of a Thinker and these. Raises ValueError where they do not fit."""
        if self.maker is None:
            return RowThinker(thinker, self.rows)
        maker = new_maker(thinker)
        own = named_matrices(maker)
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in self.maker.items()}:
            raise ValueError(
                f"{MAKER} holds {len(self.maker)} matrices that are not those of this Thinker's "
                f"{len(thinker.blocks)} layers"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(self.maker[name])
        return RowThinker(thinker, self.rows, maker).eval()


def base_of(folder: Path) -> str:
    """SHA-256 that names a base model's folder: its config and its weights, by their bytes."""
    files = sorted({path for pattern in BASE_FILES for path in folder.glob(pattern)})
    endings = {path.suffix for path in files}
    if ".safetensors" not in endings or not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no config.json with .safetensors; give a model's folder")
    hashes = {path.name: hash_file(path) for path in files}
    return hashlib.sha256(canonical_json(hashes).encode()).hexdigest()


def named_matrices(maker: Thinker) -> dict[str, Tensor]:
    """What of a maker is its own, by name."""
    own = {id(parameter) for parameter in matrices(maker).parameters()}
    return {name: one for name, one in maker.named_parameters() if id(one) in own}


def save_rows(
    folder: Path,
    rows: Rows,
    space: TokenSpace,
    *,
    base: str,
    base_llm: str,
    maker: Thinker | None = None,
) -> RowFacts:
    """Write the package. Raises InputError when rows and space disagree about the new ids."""
    config = rows.config
    have, want = (config.start, config.start + config.count), _range_of(space)
    if have != want:
        raise InputError(
            f"the rows are ids {have[0]} to {have[1] - 1}, but the token space has its new ids at "
            f"{want[0]} to {want[1] - 1}; train rows in this space"
        )
    facts = RowFacts(
        row_start=have[0],
        row_end=have[1],
        width=config.width,
        base_llm=base_llm,
        base=base,
        abi=space.abi,
        has_lm_head=rows.row_head is not None,
        has_maker=maker is not None,
        markers=config.markers,
    )
    tensors = {"embeddings": rows.row_table.detach().float().cpu().contiguous()}
    if rows.row_head is not None:
        tensors["lm_head"] = rows.row_head.detach().float().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(folder / f"{NAME}.safetensors", save(tensors))
    older = {k: getattr(facts, k) for k in (*OLDER, "has_maker")}
    buffer = io.BytesIO()
    torch.save({**older, "embeddings": None, "lm_head": None, **tensors}, buffer)
    atomic_write_bytes(folder / f"{NAME}.pt", buffer.getvalue())
    if maker is not None:
        own = {name: one.detach().cpu() for name, one in named_matrices(maker).items()}
        atomic_write_bytes(folder / MAKER, save(own))
    save_space(folder, space)
    atomic_write_json(folder / f"{NAME}.json", to_dict(facts))
    return facts


def load_rows(folder: Path, *, base: str | None = None, abi: str | None = None) -> RowPackage:
    """Read a package. Raises InputError for damage, another base or another token space, with both
    values."""
    facts = _facts(folder)
    space = load_space(folder)
    refuse_other(space.abi, facts.abi, str(folder / f"{NAME}.json"))
    if abi is not None:
        refuse_other(abi, facts.abi, str(folder))
    if base is not None and base != facts.base:
        raise InputError(
            f"{folder} holds rows for base {facts.base[:12]}... ({facts.base_llm}), but this one "
            f"is {base[:12]}...; use the base that they were trained on"
        )
    if (facts.row_start, facts.row_end) != _range_of(space):
        first, last = _range_of(space)
        raise InputError(
            f"{folder} says rows {facts.row_start} to {facts.row_end - 1}, but its token space has "
            f"{first} to {last - 1}; it was put together from two packages"
        )
    config = RowsConfig(
        start=facts.row_start,
        count=facts.row_end - facts.row_start,
        width=facts.width,
        tied=not facts.has_lm_head,
        markers=facts.markers,
    )
    rows = Rows(config)
    for name, value in _tensors(folder, facts).items():
        target = rows.row_table if name == "embeddings" else rows.row_head
        assert target is not None
        target.data.copy_(value)
    maker = _read(folder / MAKER) if facts.has_maker else None
    return RowPackage(rows.eval(), facts, space, maker)


def apply_rows(base: Path, package: Path, dtype: torch.dtype = torch.float32) -> RowThinker:
    """The model of a base's folder and a package's rows; nothing is written.

    Raises InputError as `load_rows` does, and for a base of another shape.
    """
    found = load_rows(package, base=base_of(base))
    thinker = load_thinker(base, dtype)
    try:
        return found.on(thinker)
    except ValueError as error:
        raise InputError(f"{package}: {error}") from error


def merge_rows(base: Path, package: Path, out: Path) -> int:
    """Write a Hugging Face folder whose tables have the new rows behind the old ones.

    In the base's own type; returns how many ids it has. Raises InputError when `out` holds
    something, and as `apply_rows` does.
    """
    with whole_folder(out, "the merged model") as folder:
        grown = save_whole(apply_rows(base, package, dtype_of(base)), folder)
        for path in sorted({p for pattern in TEXT_FILES for p in base.glob(pattern)}):
            if path.is_file():
                shutil.copy2(path, folder / path.name)
        save_space(folder, load_space(package))
    return grown.config.vocab_size


def save_whole(model: RowThinker, folder: Path) -> Thinker:
    """Write a Thinker with its rows, and its maker, for `transformers`; what was written."""
    grown, maker = grow(model), model.maker
    making = None if maker is None else Making.of(maker, model.rows.config)
    save_thinker(grown, folder, making=making)
    return grown


@torch.no_grad()
def grow(model: RowThinker) -> Thinker:
    """One Thinker with the rows behind its tables; the body is shared, not copied."""
    thinker, size = model.thinker, model.size
    with torch.device("meta"):
        grown = Thinker(replace(thinker.config, vocab_size=size))
    for name, child in thinker.named_children():
        if name not in ("token_table", "head_table"):
            setattr(grown, name, child)
    table = thinker.token_table.weight
    grown.token_table.weight = _joined(table, model.rows.row_table)
    if thinker.head_table is not None:
        assert model.rows.row_head is not None
        grown.head_table = _joined(thinker.head_table, model.rows.row_head)
    return grown.eval()


def _joined(base: Tensor, rows: Tensor) -> torch.nn.Parameter:
    both = torch.cat([base.detach(), rows.detach().to(base.dtype)])
    return torch.nn.Parameter(both, requires_grad=False)


def _range_of(space: TokenSpace) -> tuple[int, int]:
    return space.new_rows.start, space.new_rows.stop


def dtype_of(base: Path) -> torch.dtype:
    """The type that a folder's config.json names."""
    data = read_config(base)
    name = data.get("dtype") or data.get("torch_dtype") or "float32"
    found = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype):
        raise InputError(f"{base / 'config.json'} names the type {name!r}, which torch has not")
    return found


def _facts(folder: Path) -> RowFacts:
    path = folder / f"{NAME}.json"
    try:
        data: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no package of rows ({error})") from error
    schema = data.get("schema", SCHEMA) if isinstance(data, dict) else SCHEMA
    if not isinstance(schema, int) or schema > SCHEMA:
        raise InputError(
            f"{path} is of schema {schema}, this lumoomni reads up to {SCHEMA}; install a newer one"
        )
    try:
        return from_dict(RowFacts, data, where=path.name)
    except ValueError as error:
        raise InputError(f"{folder} is no package of rows ({error})") from error


def _tensors(folder: Path, facts: RowFacts) -> dict[str, Tensor]:
    path = folder / f"{NAME}.safetensors"
    tensors = _read(path)
    names = {"embeddings", "lm_head"} if facts.has_lm_head else {"embeddings"}
    shape = (facts.row_end - facts.row_start, facts.width)
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != dict.fromkeys(names, shape):
        raise InputError(
            f"{path} holds {found}, but {NAME}.json says {sorted(names)} of {shape}; it was put "
            "together from two packages"
        )
    return tensors


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error
