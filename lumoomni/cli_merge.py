"""The verb `lumo merge`.

Knows: options and how the result is shown. Costs: torch is imported when the verb runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from lumoomni.exits import print_json, verb


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog="lumo merge runs/qwen3-0.6b merged/qwen3-0.6b")(merge)


def merge(
    model: Annotated[Path, typer.Argument(help="A build directory or an artifact directory.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the merged model.")],
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Merge stages that failed their gate too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fold LoRA adapters into their Thinker and write it as a Hugging Face Qwen3 folder.

    The folder is a text model: towers, connectors and new rows stay in the build. `lumo export`
    takes rows along.
    """
    with verb():
        from lumoomni.infer.merge import merge_model

        made = merge_model(model, out, unproven=unproven)
        if as_json:
            facts = {"out": str(made.folder), "matrices": made.matrices, "dtype": made.dtype}
            print_json(facts)
        else:
            print(f"merged {made.matrices} matrices into {made.folder} ({made.dtype})")
