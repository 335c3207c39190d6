"""The verb `lumo export`.

Knows: options, the formats, and how the result is shown. Costs: torch is imported when it runs.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lumoomni.exits import print_json, verb


class Format(StrEnum):
    """What can be written: a Hugging Face folder."""

    hf = "hf"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog="lumo export runs/qwen3-0.6b exported/qwen3-0.6b --format hf")(export)


def export(
    model: Annotated[Path, typer.Argument(help="A build directory or an artifact directory.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the exported model.")],
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.hf,
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Export stages that failed their gate too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a model's Thinker for `transformers`, with a card of its lineage and gates.

    Adapters are folded in, new rows stand behind the tables. A Thinker that is more than Qwen3,
    such as nano's with its short convolution and its maker, goes with the code that it needs: open
    its folder with trust_remote_code=True.
    """
    with verb():
        from lumoomni.infer.export import export_hf

        made = export_hf(model, out, unproven=unproven)
        if as_json:
            facts = {"rows": made.rows, "adapters": made.adapted or None, "dtype": made.dtype}
            print_json({"out": str(made.folder), "format": format.value, "ids": made.ids, **facts})
            return
        parts = [f"adapters of {made.adapted}"] if made.adapted else []
        parts += [f"{made.rows:,} new rows"] if made.rows else []
        said = f" with {' and '.join(parts)}" if parts else ""
        print(f"exported {made.ids:,} ids{said} into {made.folder} ({made.dtype})")
