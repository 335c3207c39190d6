"""New rows on their way: out of an artifact into a package, and onto a base that they fit.

Knows: which artifact holds the rows, and what rows, base and token space must agree on.
Does not know: how rows are trained, or the package's files (`infer/row_package.py`).
Costs: packing reads the rows alone; looking reads the base's bytes once, to name it; merging loads
it and writes it once more.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from lumoomni.errors import InputError
from lumoomni.infer.assemble import load_part
from lumoomni.infer.base_model import Base, copy_text_files, load_base, open_base
from lumoomni.infer.row_package import RowFacts, RowPackage, load_rows, save_rows, save_whole
from lumoomni.model.rows import Rows, RowsConfig, RowThinker, refuse_misfit
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.runtime import whole_folder
from lumoomni.uti.space_file import load_space, refuse_other, save_space

ROWS, MAKER = "rows", "maker"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What was seen to fit: the package's facts, the base's name, and how many ids there are."""

    facts: RowFacts
    base: str
    ids: int
    merged: Path | None = None


def rows_of(base: Base) -> Rows:
    """The latest rows of an artifact's line. Raises InputError when there are none, and when they
    do not fit the Thinker."""
    if base.line is None:
        raise InputError(
            f"{base.where} is a model's folder; rows are packed from an artifact that trained them"
        )
    owner = base.line.need(f"{ROWS}.json")
    rows = load_part(owner, ROWS)
    assert isinstance(rows, Rows)
    refuse_shape(base.config, rows.config, str(owner.path))
    return rows


def refuse_shape(shape: ThinkerConfig, rows: RowsConfig, where: str) -> None:
    """Raises InputError unless rows begin where a Thinker of this shape ends, and are as wide."""
    with torch.device("meta"):
        thinker = Thinker(shape)
    try:
        refuse_misfit(thinker, rows)
    except ValueError as error:
        raise InputError(f"{where}: {error}; use the base that they were trained on") from error


def maker_of(base: Base) -> Thinker | None:
    """The matrices that new ids have of their own (pretrain_tokens.routed), where they have any."""
    owner = None if base.line is None else base.line.owner(f"{MAKER}.json")
    if owner is None:
        return None
    maker = load_part(owner, MAKER)
    assert isinstance(maker, Thinker)
    return maker


def pack_rows(source: Path, out: Path, *, unproven: bool = False) -> RowFacts:
    """Write the rows of an artifact or a build as a package of their own at `out`, all or nothing.

    Raises InputError when there are no rows, no token space or no Thinker in its line.
    """
    with whole_folder(out, "the rows") as folder:
        base = open_base(source, unproven=unproven)
        rows, maker = rows_of(base), maker_of(base)
        if base.space is None:
            raise InputError(
                f"{base.where} has rows, but no token space among its ancestors to say what their "
                "ids mean; build them on build_token_space"
            )
        named = {"base": base.hash, "base_llm": base.name}
        return save_rows(folder, rows, base.space, maker=maker, **named)


def look(base: Base, package: Path, space: Path | None = None) -> RowPackage:
    """A package that fits a base: its hash, the range of ids, the tokenizer and the token space.

    `space` is another folder whose token space it must have. Raises InputError with both values
    for the first that differs.
    """
    found = load_rows(package, base=base.hash)
    refuse_shape(base.config, found.rows.config, str(package))
    if base.tokenizer is not None and base.tokenizer != found.space.tokenizer:
        raise InputError(
            f"{package} has ids of tokenizer {found.space.tokenizer[:12]}..., but {base.where} has "
            f"{base.tokenizer[:12]}...; use the base that they were trained on"
        )
    if base.space is not None:
        refuse_other(base.space.abi, found.facts.abi, str(package))
    if space is not None:
        refuse_other(load_space(space).abi, found.facts.abi, str(package))
    return found


def _on(thinker: Thinker, found: RowPackage, package: Path) -> RowThinker:
    try:
        return found.on(thinker)
    except ValueError as error:
        raise InputError(f"{package}: {error}; use the base that it was trained on") from error


def apply_package(
    source: Path,
    package: Path,
    *,
    merge: Path | None = None,
    space: Path | None = None,
    unproven: bool = False,
) -> Fit:
    """See whether a package fits the base at `source`; with `merge`, write both as one Hugging Face
    folder in the base's own type, all or nothing. Raises InputError as `look` does, for a Thinker
    that Qwen3 cannot express, and when something is at `merge`."""
    base = open_base(source, unproven=unproven)
    found = look(base, package, space)
    fit = Fit(facts=found.facts, base=base.name, ids=found.facts.row_end, merged=merge)
    if merge is None:
        return fit
    with whole_folder(merge, "the merged model") as folder:
        save_whole(_on(load_base(base), found, package), folder)
        copy_text_files(base, folder)
        save_space(folder, found.space)
    return fit
