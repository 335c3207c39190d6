"""The data verbs: `lumo data check`, and those of other files.

Knows: options and how findings are shown. Costs: torch is imported when a verb runs.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from lumoomni import cli_manifest, cli_shards
from lumoomni.exits import print_json, verb

FORMATS = "txt, jsonl, csv, json, llava, coco, webdataset, hf, ljspeech or librispeech."


def register(app: typer.Typer) -> None:
    """Add the sub-commands."""
    data = typer.Typer(help="Look at data before training on it.", no_args_is_help=True)
    data.command(epilog="lumo data check ljspeech /data/LJSpeech-1.1")(check)
    cli_manifest.register(data)
    cli_shards.register(data)
    app.add_typer(data, name="data")


def check(
    layout: Annotated[str, typer.Argument(metavar="FORMAT", help=FORMATS)],
    path: Annotated[
        Path, typer.Argument(help="The file or folder, or shards as a-{000..012}.tar.")
    ],
    image_root: Annotated[Path | None, typer.Option(help="Where pictures are.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, for exact counts.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Count texts longer than this.")] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count, measure and name: unreadable files, empty and duplicate texts, lengths, truncation,
    and how many utterances CTC could not learn.

    Exit code 1 when more than 5 % of the samples cannot be used.
    """
    with verb():
        from lumoomni.data.check import check as look
        from lumoomni.runtime import Progress

        found = look(
            layout,
            path,
            root=image_root,
            tokenizer=tokenizer,
            max_tokens=max_tokens,
            progress=Progress(silent=as_json),
        )
        if as_json:
            print_json(found.to_dict())
        else:
            for name, value in found.to_dict().items():
                print(f"{name}: {_shown(value)}")
        if not found.usable:
            raise typer.Exit(1)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], str):
        return "".join(f"\n  {line}" for line in value)
    if isinstance(value, (list, tuple)):
        return " x ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
