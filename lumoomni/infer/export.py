"""A model as a Hugging Face folder that `transformers` opens: weights, tokenizer, and its card.

Knows: what such a folder needs, and that adapters and new rows become part of the weights.
Does not know: pictures or sound: towers, connectors and the Talker stay in the build.
Costs: the Thinker once, its tables twice where there are rows, and its bytes on the disk.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from lumoomni.codecs.text import TextCodec
from lumoomni.errors import InputError
from lumoomni.infer.assemble import PARTS, SETTINGS, TOKENIZER, load_settings
from lumoomni.infer.base_model import Base, copy_text_files, load_base, open_base
from lumoomni.infer.model_card import CardFacts, model_card
from lumoomni.infer.row_package import save_whole
from lumoomni.infer.row_use import MAKER, ROWS, maker_of, rows_of
from lumoomni.model.hf_config import config_to_hf
from lumoomni.model.hf_weights import save_thinker
from lumoomni.model.rows import RowThinker
from lumoomni.model.thinker import Thinker
from lumoomni.runtime import atomic_write_json, atomic_write_text, whole_folder
from lumoomni.uti.sequence import end_id
from lumoomni.uti.space_file import save_space

CARD = "README.md"
GENERATION = "generation_config.json"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The folder, its type, how many ids it has, and how many of them are new rows."""

    folder: Path
    dtype: str
    ids: int
    rows: int
    adapted: str
    """The stage whose adapters were folded in, or nothing."""


def export_hf(model: Path, out: Path, *, unproven: bool = False) -> Exported:
    """Write the Thinker of a build or an artifact, with its adapters and new rows, all or nothing.

    What is more than Qwen3 goes with the code that it needs, for `trust_remote_code=True`. Raises
    InputError for a Thinker that neither can express, which names the setting and its value, and
    when something is at `out`.
    """
    with whole_folder(out, "the exported model") as folder:
        base = open_base(model, unproven=unproven)
        if base.line is None:
            raise InputError(f"{model} is a Hugging Face folder already; give a build or artifact")
        rows = rows_of(base) if base.line.owner(f"{ROWS}.json") is not None else None
        if rows is not None and base.space is None:
            raise InputError(
                f"{base.where} has rows, but no token space among its ancestors to say what their "
                "ids mean; build them on build_token_space"
            )
        config_to_hf(base.config, torch.float32)  # what cannot be said is refused before loading
        thinker = load_base(base)
        maker = maker_of(base)
        whole = thinker
        if rows is None:
            save_thinker(thinker, folder)
        else:
            whole = save_whole(RowThinker(thinker, rows, maker), folder)
        write_text(base, folder)
        if rows is not None and base.space is not None:
            save_space(folder, base.space)
        facts = _facts(base, whole, rows is not None, maker is not None, out.absolute().name)
        atomic_write_text(folder / CARD, model_card(facts))
    return Exported(
        folder=out,
        dtype=facts.dtype,
        ids=facts.ids,
        rows=0 if rows is None else rows.config.count,
        adapted=facts.adapted,
    )


def write_text(base: Base, folder: Path) -> None:
    """The tokenizer's files, and where an answer ends; files that were adopted are kept."""
    copy_text_files(base, folder)
    if not (folder / GENERATION).is_file():
        stop = end_id(TextCodec.load(folder / TOKENIZER), _template(base))
        atomic_write_json(folder / GENERATION, {"eos_token_id": stop, "pad_token_id": stop})


def _template(base: Base) -> str:
    assert base.line is not None
    return load_settings(base.line.need(SETTINGS)).template


def _facts(base: Base, whole: Thinker, has_rows: bool, has_maker: bool, name: str) -> CardFacts:
    assert base.line is not None
    adapter = base.line.adapter
    left = [part for part in PARTS if part not in ("thinker", ROWS, MAKER)]
    return CardFacts(
        name=name,
        line=base.line.artifacts,
        base=base.hash,
        shape=base.config,
        dtype=str(whole.token_table.weight.dtype).removeprefix("torch."),
        ids=whole.config.vocab_size,
        adapted="" if adapter is None else adapter.kind,
        space=base.space if has_rows else None,
        maker=has_maker,
        template=_template(base),
        parts=tuple(part for part in left if base.line.owner(f"{part}.json") is not None),
    )
