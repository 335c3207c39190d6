"""The command line `lumo`: verbs only; parse, call, print.

Knows: options, their help, and how results are shown. Does not know: how anything is done.
Costs: torch is imported by the verbs that need it, so `lumo --help` is quick.
"""

import importlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from lumoomni.exits import print_json, verb

VERB_MODULES = (
    "lumoomni.cli_talk",
    "lumoomni.cli_data",
    "lumoomni.cli_merge",
    "lumoomni.cli_tokens",
    "lumoomni.cli_tokenize",
    "lumoomni.cli_rows",
    "lumoomni.cli_export",
    "lumoomni.cli_draw",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Build = Annotated[Path, typer.Argument(help="A build directory, for example runs/nano.")]

app = typer.Typer(
    name="lumo",
    help="Turn a text-only language model into one that sees, hears and speaks, stage by stage.",
    epilog="Start with: lumo build nano, then: lumo chat runs/nano",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.command(epilog="lumo build nano pretrain_text.loop.steps=100 --until pretrain_text")
def build(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a saved recipe.json.")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Changes as stage.path=value.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to build; default runs/RECIPE.")] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    force: Annotated[
        list[str] | None, typer.Option(help="Build this stage again even if unchanged.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to train: auto, cpu, cuda or mps.")] = "auto",
    as_json: Json = False,
) -> None:
    """Build a recipe's stages in order.

    Finished stages that are unchanged are kept; a killed build continues where it stopped; a
    stage whose numbers fall short of its gate stops the build with exit code 1.
    """
    with verb():
        from lumoomni.pipeline import build as run_build
        from lumoomni.recipes import resolve
        from lumoomni.runtime import Progress, stop_on_interrupt

        chosen = resolve(recipe).override(settings or [])
        folder = out or Path("runs") / chosen.name
        progress = Progress(silent=as_json)
        with stop_on_interrupt() as stop:
            built = run_build(
                chosen,
                folder,
                until=until,
                force=force or (),
                progress=progress,
                stop=stop,
                device=device,
            )
        if as_json:
            print_json({"out": str(folder), "stages": {n: a.hash for n, a in built.items()}})
        else:
            print(f"built {len(built)} stages into {folder}; try: lumo chat {folder}")


@app.command(epilog="lumo status runs/nano")
def status(folder: Build, as_json: Json = False) -> None:
    """Show each stage's verdict, its key numbers and its time."""
    with verb():
        from lumoomni.inspection import stage_rows

        rows = stage_rows(folder)
        if as_json:
            print_json({"stages": rows})
        else:
            _table(
                f"{folder}",
                ("stage", "state", "seconds", "checks"),
                [(r["stage"], r["state"], r["seconds"], "\n".join(r["checks"])) for r in rows],
            )


@app.command(epilog="lumo verify runs/nano")
def verify(folder: Build, as_json: Json = False) -> None:
    """Hash every file again, judge every stored report again, and compare parents.

    Exit code 1 when anything is missing or changed, contradicts its report or did not pass its
    gate; each is named.
    """
    with verb():
        from lumoomni.inspection import verify_all

        checked, problems = verify_all(folder)
        if as_json:
            print_json({"artifacts": checked, "problems": problems})
        else:
            print("\n".join(problems) or f"{checked} artifacts are whole and their gates hold")
        if problems:
            raise typer.Exit(1)


@app.command(epilog="lumo report runs/nano")
def report(folder: Build, as_json: Json = False) -> None:
    """Write an HTML report: gates, curves, pictures, sounds and lineage; print its path."""
    with verb():
        from lumoomni.report.html import write_report

        path = write_report(folder)
        if as_json:
            print_json({"report": str(path)})
        else:
            print(path)


@app.command(epilog="lumo params muomni")
def params(
    recipe: Annotated[str, typer.Argument(help="A recipe's name.")], as_json: Json = False
) -> None:
    """Count each part's parameters, beside the original design's numbers."""
    with verb():
        from dataclasses import asdict

        from lumoomni.recipes.params import table

        rows = table(recipe)
        if as_json:
            print_json({"recipe": recipe, "rows": [asdict(row) for row in rows]})
        else:
            _table(
                f"parameters of {recipe}",
                ("part", "parameters", "original", "difference", "note"),
                [
                    (
                        r.part,
                        f"{r.parameters:,}",
                        f"{r.seed:,}" if r.seed else "",
                        f"{r.difference:+.1%}" if r.difference is not None else "",
                        r.note,
                    )
                    for r in rows
                ],
            )


@app.command(epilog="lumo plan nano --measure --epoch 1h --stage align_connector")
def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a saved recipe.json.")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Changes as stage.path=value.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Also hours and fit on one of these: h100, 4090, l4, ...")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also train noise for a few updates, here, and time.")
    ] = False,
    epoch: Annotated[
        str | None, typer.Option(help="How long a stage may take, as 1h or 90s: its loop.steps.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="This stage alone.")] = None,
    device: Annotated[str, typer.Option(help="To measure: auto, cpu, cuda or mps.")] = "auto",
    as_json: Json = False,
) -> None:
    """Say what training takes, before it is trained: parameters, peak memory, operations.

    Memory is that of one micro-batch at the longest inputs that the settings allow; shorter ones
    are asked for by settings, as pretrain_text.context_tokens=128. With --measure or --gpu, --epoch
    gives the setting that makes a stage so long.
    """
    with verb():
        from lumoomni.recipes import resolve
        from lumoomni.recipes.plan_report import Question, study
        from lumoomni.runtime import Progress

        found = study(
            resolve(recipe).override(settings or []),
            Question(gpu=gpu, measure=measure, epoch=epoch, stage=stage, device=device),
            Progress(silent=as_json),
        )
        if as_json:
            print_json(found.to_dict())
        else:
            for table in found.tables():
                _table(*table)
            print("\n".join(found.sentences()), end="\n" if found.sentences() else "")


@app.command("eval", epilog="lumo eval runs/nano --json")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A build directory or an artifact directory.")],
    suite: Annotated[
        str,
        typer.Option(help="`world`: all the micro-world asks; `pictures`: captions of --data."),
    ] = "world",
    data: Annotated[
        str,
        typer.Option(help="Pictures for that suite: `world`, or LAYOUT:PATH as in `lumo data`."),
    ] = "world",
    n: Annotated[int, typer.Option(help="Items for each measure.")] = 200,
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Measure stages that failed their gate too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure a model on held-out data: every number with its count and 95 % interval."""
    with verb():
        from lumoomni.audits.suite import evaluate as run_suite
        from lumoomni.runtime import Progress

        progress = Progress(silent=as_json)
        found = run_suite(
            model, suite=suite, count=n, progress=progress, unproven=unproven, data=data
        )
        if as_json:
            print_json(found.to_dict())
        else:
            rows = [(name, str(metric)) for name, metric in found.metrics.items()]
            _table(f"{suite} on {model}", ("measure", "value [95 % CI] (n)"), rows)
            for name, note in found.notes.items():
                print(f"{name}: {note}")


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


for _name in VERB_MODULES:
    importlib.import_module(_name).register(app)


def main() -> None:
    """Entry point."""
    # Large tensors on huge pages: a tenth of an update at laptop sizes (LOG.md). torch reads this
    # at its first allocation; who has said otherwise is heard.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # A stage meets a few thousand shapes, and oneDNN keeps kernels for 1,024 (`shapes.py`).
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    app()
