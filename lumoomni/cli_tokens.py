"""The verbs of tokens: `lumo tokens build | show | encode | decode`.

Knows: options and how results are shown. Costs: torch is imported when a verb runs.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lumoomni.errors import InputError
from lumoomni.exits import print_json, verb

Space = Annotated[Path, typer.Argument(help="A folder that `lumo tokens build` made.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".m4a")


def register(app: typer.Typer) -> None:
    """Add the sub-commands."""
    tokens = typer.Typer(help="Text and sound as ids of one space.", no_args_is_help=True)
    tokens.command(epilog="lumo tokens build runs/nano runs/space")(build)
    tokens.command(epilog="lumo tokens show runs/space")(show)
    tokens.command(epilog='lumo tokens encode runs/space "a red circle" speech.wav')(encode)
    tokens.command(epilog="lumo tokens decode runs/space ids.json out")(decode)
    app.add_typer(tokens, name="tokens")


def build(
    model: Annotated[Path, typer.Argument(help="A build directory or an artifact directory.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the space and its codecs.")],
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Use stages that failed their gate too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a token space of a model's tokenizer and speech codec, and audit it."""
    with verb():
        from lumoomni.infer.tokens import build_tokens, load_tokens

        build_tokens(model, out, unproven=unproven)
        _shown(load_tokens(out).space, as_json)


def show(space: Space, as_json: Json = False) -> None:
    """The ranges, special symbols, codecs and the ABI hash of a space."""
    with verb():
        from lumoomni.infer.tokens import load_tokens

        _shown(load_tokens(space).space, as_json)


def encode(
    space: Space,
    parts: Annotated[list[str], typer.Argument(help="Texts, and sound files by their name.")],
    out: Annotated[Path | None, typer.Option(help="Write the ids here instead.")] = None,
) -> None:
    """Any mixture to ids: each part between its markers, as one JSON object."""
    with verb():
        from lumoomni.infer.tokens import load_tokens
        from lumoomni.media.audio import load_audio
        from lumoomni.runtime import atomic_write_json

        uti = load_tokens(space)
        given = [load_audio(p) if Path(p).suffix.lower() in SOUNDS else p for p in parts]
        made = {"abi": uti.space.abi, "ids": uti.pack(given).tolist()}
        if out is None:
            print_json(made)
        else:
            atomic_write_json(out, made)


def decode(
    space: Space,
    ids: Annotated[Path, typer.Argument(help="What `lumo tokens encode` wrote.")],
    out: Annotated[Path, typer.Argument(help="A folder for the parts: 0.txt, 1.wav, ...")],
) -> None:
    """Ids back to text and sound files. Another space's ids are refused."""
    with verb():
        from lumoomni.infer.tokens import load_tokens
        from lumoomni.media.audio import Audio, save_wav
        from lumoomni.runtime import atomic_write_text
        from lumoomni.uti.space_file import refuse_other

        uti = load_tokens(space)
        try:
            data = json.loads(ids.read_text())
            abi, numbers = str(data["abi"]), [int(i) for i in data["ids"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{ids} holds no ids ({error!r}); see `lumo tokens encode`") from error
        refuse_other(uti.space.abi, abi, str(ids))
        spans = uti.unpack(numbers)
        out.mkdir(parents=True, exist_ok=True)
        for place, span in enumerate(spans):
            found = uti.decode(span)
            if isinstance(found, Audio):
                save_wav(out / f"{place}.wav", found)
            else:
                atomic_write_text(out / f"{place}.txt", str(found))
        print(f"{len(spans)} parts in {out}")


def _shown(space: Any, as_json: bool) -> None:
    if as_json:
        print_json({"abi": space.abi, **space.meaning()})
        return
    for one in space.ranges:
        print(f"{one.name:<12} {one.start:>8} .. {one.end:>8}  {one.size:>7} ids")
    for codec in space.codecs:
        rate = f"{codec.frame_rate:g} frames a second of {codec.codebooks} codes"
        what = rate if codec.kind == "audio" else f"{codec.tokens} codes a picture"
        print(f"{codec.kind}: {codec.name}, {what}, weights {codec.weights[:12]}...")
    print(f"{space.size:,} ids in all, ABI {space.abi}")
