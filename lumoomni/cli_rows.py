"""The verbs of new rows: `lumo rows pack | apply`.

Knows: options and how results are shown. Costs: torch is imported when a verb runs.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lumoomni.exits import print_json, verb

if TYPE_CHECKING:
    from lumoomni.infer.row_package import RowFacts

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Unproven = Annotated[
    bool, typer.Option("--unproven", help="Use stages that failed their gate too.")
]


def register(app: typer.Typer) -> None:
    """Add the sub-commands."""
    rows = typer.Typer(
        help="New symbols of a trained model, as a small folder of their own.",
        no_args_is_help=True,
    )
    rows.command(epilog="lumo rows pack runs/nano/train_rows runs/rows")(pack)
    rows.command(epilog="lumo rows apply /models/Qwen3-8B-Base runs/rows --merge runs/merged")(
        apply
    )
    app.add_typer(rows, name="rows")


def pack(
    checkpoint: Annotated[
        Path, typer.Argument(help="A build or artifact directory whose rows were trained.")
    ],
    out: Annotated[Path, typer.Argument(help="A new folder for the rows.")],
    unproven: Unproven = False,
    as_json: Json = False,
) -> None:
    """Write the trained rows without their base: .pt, .safetensors, .json and the token space; the
    maker's matrices too, where new ids have any.

    They name the base by its hash; `lumo rows apply` puts them on it.
    """
    with verb():
        from lumoomni.infer.row_use import pack_rows

        facts = pack_rows(checkpoint, out, unproven=unproven)
        if as_json:
            print_json({"out": str(out), **asdict(facts)})
        else:
            print(f"packed {_said(facts)} into {out}")


def apply(
    base: Annotated[
        Path, typer.Argument(help="A Hugging Face Qwen3 folder, or a build or artifact directory.")
    ],
    rows: Annotated[Path, typer.Argument(help="A folder that `lumo rows pack` made.")],
    merge: Annotated[
        Path | None, typer.Option(help="A new folder for base and rows as one model.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="A token space that the rows must have been trained in.")
    ] = None,
    unproven: Unproven = False,
    as_json: Json = False,
) -> None:
    """See whether rows fit a base: its hash, the range of their ids, and the token space.

    With --merge, write both as one Hugging Face folder. Exit code 2 for another base, range
    or token space, with both values.
    """
    with verb():
        from lumoomni.infer.row_use import apply_package

        fit = apply_package(base, rows, merge=merge, space=space, unproven=unproven)
        if as_json:
            out = None if fit.merged is None else str(fit.merged)
            print_json({"fits": fit.base, "ids": fit.ids, "merged": out, **asdict(fit.facts)})
            return
        print(f"{rows} fits {fit.base}: {_said(fit.facts)}")
        print(f"{fit.ids:,} ids in all, base {fit.facts.base}, ABI {fit.facts.abi}")
        if fit.merged is not None:
            print(f"merged into {fit.merged}")


def _said(facts: "RowFacts") -> str:
    """Ids with both ends, as the ranges of a space are shown."""
    ends = "embeddings and head" if facts.has_lm_head else "one table for both ends"
    ends += ", with matrices of their own" if facts.has_maker else ""
    return (
        f"rows {facts.row_start:,} .. {facts.row_end - 1:,} of width {facts.width} ({ends}) for "
        f"{facts.base_llm}"
    )
