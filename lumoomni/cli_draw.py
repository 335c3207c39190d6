"""The verbs of a model that makes media of words: draw, sound.

Knows: options and files. Does not know: how pictures and sounds are made.
Costs: torch is imported when a verb runs.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumoomni.errors import InputError
from lumoomni.exits import print_json, verb
from lumoomni.runtime import refuse_output

if TYPE_CHECKING:
    from lumoomni.infer.draw import Made

Model = Annotated[
    Path, typer.Argument(help="A build directory, or the artifact of pretrain_tokens.")
]
Count = Annotated[int, typer.Option("--n", "-n", min=1, help="How many to make.")]
Seed = Annotated[int, typer.Option(help="Makes the choice repeatable.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy.")]
Guidance = Annotated[float, typer.Option("--cfg", min=0.0, help="1 is none, more is stricter.")]
TopK = Annotated[int, typer.Option(min=0, help="Choose among the k likeliest; 0 is all.")]
Tries = Annotated[
    int, typer.Option(min=1, help="Make so many of each, keep the one that fits its words best.")
]
Unproven = Annotated[
    bool, typer.Option("--unproven", help="Use stages that failed their gate; says so each time.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(epilog='lumo draw runs/nano "a large red circle" out.png --n 4')(draw)
    app.command(epilog='lumo sound runs/nano "a beep, then a drum" out.wav')(sound)


def draw(
    model: Model,
    text: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[Path, typer.Argument(help="The PNG file to write.")],
    n: Count = 1,
    seed: Seed = 0,
    temperature: Temperature = 0.5,
    cfg: Guidance = 1.5,
    top_k: TopK = 0,
    tries: Tries = 8,
    unproven: Unproven = False,
    as_json: Json = False,
) -> None:
    """Draw what a text says; several pictures stand side by side in one file."""
    with verb():
        import numpy as np

        from lumoomni.media.image import save_png

        _refuse_ending(out, ".png")
        refuse_output(out)
        how = {"seed": seed, "temperature": temperature, "guidance": cfg, "top_k": top_k}
        made, seconds = _make("image", model, text, n, {**how, "tries": tries}, unproven)
        save_png(out, np.concatenate([np.asarray(one.made) for one in made], axis=1))
        _say(made, [out], seconds, as_json)


def sound(
    model: Model,
    text: Annotated[
        str,
        typer.Argument(help="Sounds in order: beep, chirp, siren, drum, noise, bell, buzz, click."),
    ],
    out: Annotated[Path, typer.Argument(help="The WAV file to write; of several, its beginning.")],
    n: Count = 1,
    seed: Seed = 0,
    temperature: Temperature = 1.0,
    cfg: Guidance = 1.0,
    top_k: TopK = 0,
    tries: Tries = 8,
    most: Annotated[int, typer.Option(min=1, help="Most ids of a sound; then it is cut.")] = 480,
    unproven: Unproven = False,
    as_json: Json = False,
) -> None:
    """Make a sound that a text describes, as "a beep, then a drum". For speech use `lumo speak`.

    Several go to numbered files.
    """
    with verb():
        from lumoomni.media.audio import Audio, save_wav

        _refuse_ending(out, ".wav")
        refuse_output(out)
        how = {"seed": seed, "temperature": temperature, "guidance": cfg, "top_k": top_k}
        how |= {"tries": tries, "most": most}
        made, seconds = _make("audio", model, text, n, how, unproven)
        files = [out] if n == 1 else [out.with_stem(f"{out.stem}_{i}") for i in range(n)]
        for one, path in zip(made, files, strict=True):
            assert isinstance(one.made, Audio)
            save_wav(path, one.made)
        _say(made, files, seconds, as_json)


def _refuse_ending(out: Path, ending: str) -> None:
    if out.suffix.lower() != ending:
        raise InputError(
            f"{out} ends in {out.suffix or 'nothing'}; give a file that ends in {ending}"
        )


def _make(
    kind: str,
    model: Path,
    text: str,
    n: int,
    chosen: dict[str, Any],
    unproven: bool,
) -> "tuple[list[Made], float]":
    """What was made, and the seconds that it took once the model was open."""
    from lumoomni.infer.draw import Artist, DrawConfig

    artist = Artist.open(model, unproven=unproven)
    for line in artist.unproven:
        print(f"warning: {line}", file=sys.stderr)
    how = DrawConfig(**chosen)
    began = time.perf_counter()
    return artist.make(kind, [text] * n, how), time.perf_counter() - began


def _say(made: "list[Made]", files: list[Path], seconds: float, as_json: bool) -> None:
    cut = sum(one.cut for one in made)
    if cut:
        most = max(len(one.ids) for one in made)
        print(
            f"note: {cut} of {len(made)} did not come to an end within {most} ids and were cut",
            file=sys.stderr,
        )
    facts: dict[str, Any] = {
        "files": [str(path) for path in files],
        "made": len(made),
        "cut": cut,
        "ids": [len(one.ids) for one in made],
        "seconds": round(seconds, 3),
    }
    if as_json:
        print_json(facts)
        return
    each = seconds / len(made)
    print(f"{', '.join(facts['files'])}: {len(made)} made in {seconds:.2f} s ({each:.2f} s each)")
