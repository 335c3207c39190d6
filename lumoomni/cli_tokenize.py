"""The verb `lumo tokenize`: a manifest to shards of tokens.

Knows: options and how results are shown. Costs: torch is imported when the verb runs.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lumoomni.exits import print_json, verb
from lumoomni.runtime import MOST_WORKERS


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog="lumo tokenize data/manifest.jsonl --space runs/space --out runs/shards")(
        tokenize
    )


def tokenize(
    manifest: Annotated[Path, typer.Argument(help="Records with a split, from `lumo data`.")],
    space: Annotated[Path, typer.Option(help="A folder that `lumo tokens build` made.")],
    out: Annotated[str, typer.Option(help="A folder or a URL for the shards.")],
    workers: Annotated[
        int, typer.Option(min=0, help=f"Processes; 0 is one a core, at most {MOST_WORKERS}.")
    ] = 0,
    engine: Annotated[str, typer.Option(help="Who works: processes or ray.")] = "processes",
    address: Annotated[str, typer.Option(help="The Ray cluster; empty is this machine.")] = "",
    rows_per_shard: Annotated[int, typer.Option(help="Records that make one shard.")] = 1000,
    max_bad: Annotated[float, typer.Option(help="Share of bad records that is borne.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn a manifest's texts, pictures and sounds into shards of tokens, once and for all.

    Stopped or killed, the same command continues. The shards are the same to the byte for any
    number of workers. Exit code 1 when too many records cannot be used; errors.jsonl names them.
    """
    with verb():
        from lumoomni.data.tokenize_run import tokenize as run
        from lumoomni.runtime import Progress, worker_count

        found = run(
            manifest,
            space,
            out,
            workers=workers or worker_count(),
            engine=engine,
            address=address,
            max_bad=max_bad,
            rows_per_shard=rows_per_shard,
            progress=Progress(silent=as_json),
        )
        if as_json:
            counts = {name: asdict(one) for name, one in found.counts.items()}
            print_json({**vars(found), "counts": counts})
            return
        for split, one in found.counts.items():
            tokens = ", ".join(f"{count:,} {name}" for name, count in one.tokens.items() if count)
            tasks = ", ".join(f"{count:,} {name}" for name, count in one.tasks.items())
            print(f"{split}: {one.rows:,} rows ({tasks}), {one.bad:,} left out; tokens: {tokens}")
        print(f"{found.shards} shards in {found.folder}, {found.kept} of them were there")
