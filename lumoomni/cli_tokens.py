"""The verbs of tokens: `lumo tokens build | show | encode | decode | audit`.

Knows: options and how results are shown. Costs: torch is imported when a verb runs.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lumoomni import cli_audit
from lumoomni.errors import InputError
from lumoomni.exits import print_json, verb

Space = Annotated[Path, typer.Argument(help="A folder that `lumo tokens build` made.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".m4a")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def register(app: typer.Typer) -> None:
    """Add the sub-commands."""
    tokens = typer.Typer(help="Text, pictures and sound as ids of one space.", no_args_is_help=True)
    tokens.command(epilog="lumo tokens build runs/nano runs/space")(build)
    tokens.command(epilog="lumo tokens show runs/space")(show)
    tokens.command(epilog='lumo tokens encode runs/space "a red circle" speech.wav cat.png')(encode)
    tokens.command(epilog="lumo tokens decode runs/space ids.json out")(decode)
    tokens.command(epilog=cli_audit.EPILOG)(cli_audit.audit)
    app.add_typer(tokens, name="tokens")


def build(
    places: Annotated[
        list[Path],
        typer.Argument(help="MODEL OUT: a build or artifact directory, and a new folder; or OUT."),
    ],
    text: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, or a base model's folder: no MODEL then.")
    ] = None,
    text_size: Annotated[
        int, typer.Option(min=0, help="Rows of the base's text table (0: by its config.json).")
    ] = 0,
    image: Annotated[str, typer.Option(help="A picture codec's folder or hub id.")] = "",
    audio: Annotated[str, typer.Option(help="A sound codec's folder or hub id.")] = "",
    books: Annotated[int, typer.Option(min=0, help="Codebooks of sound (0: its usual).")] = 0,
    image_size: Annotated[int, typer.Option(min=0, help="Pixels a side (0: its usual).")] = 0,
    fit: Annotated[str, typer.Option(help="Make pictures square: crop, pad or stretch.")] = "crop",
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Use stages that failed their gate too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a token space of a model and its codecs, or of a tokenizer and published codecs.

    Either way it is audited, and its folder needs nothing else: the codecs are copied into it.
    """
    with verb():
        from lumoomni.codecs.pretrained import CodecOptions
        from lumoomni.infer.tokens import Pieces, build_from, build_tokens

        if len(places) != (2 if text is None else 1):
            wanted = "MODEL and OUT" if text is None else "OUT alone, since --text is there"
            raise InputError(f"give {wanted}, not {len(places)} places")
        if text is None:
            if image or audio or text_size or books or image_size:
                raise InputError("a model brings its own codecs; give --text to choose others")
            build_tokens(*places, unproven=unproven)
        else:
            pieces = Pieces(
                text=text,
                text_size=text_size,
                image=image,
                audio=audio,
                audio_options=CodecOptions(books=books),
                image_options=CodecOptions(image_size=image_size, fit=fit),  # type: ignore[arg-type]
            )
            build_from(pieces, places[-1])
        _opened(places[-1], as_json)


def show(space: Space, as_json: Json = False) -> None:
    """The ranges, special symbols, codecs and the ABI hash of a space."""
    with verb():
        _opened(space, as_json)


def encode(
    space: Space,
    parts: Annotated[list[str], typer.Argument(help="Texts, sound files and picture files.")],
    out: Annotated[Path | None, typer.Option(help="Write the ids here instead.")] = None,
) -> None:
    """Any mixture to ids: each part between its markers, as one JSON object."""
    with verb():
        from lumoomni.media.audio import load_audio
        from lumoomni.media.image import load_image
        from lumoomni.runtime import atomic_write_json
        from lumoomni.uti.interface import UTI

        uti = UTI.load(space)
        given: list[Any] = []
        for part in parts:
            ending = Path(part).suffix.lower()
            if ending in SOUNDS:
                rate = uti.space.codec("audio").sample_rate
                given.append(load_audio(part, rate))
            else:
                given.append(load_image(part) if ending in PICTURES else part)
        spans = uti.encode_batch(given)
        made = {
            "abi": uti.space.abi,
            "ids": uti.join(spans).tolist(),
            "meta": [span.meta for span in spans],
        }
        if out is None:
            print_json(made)
        else:
            atomic_write_json(out, made)


def decode(
    space: Space,
    ids: Annotated[Path, typer.Argument(help="What `lumo tokens encode` wrote.")],
    out: Annotated[Path, typer.Argument(help="A folder for the parts: 0.txt, 1.wav, 2.png, ...")],
) -> None:
    """Ids back to text, sound and picture files. Another space's ids are refused.

    Ids of a model, without "meta", are decoded too, unless a codec needs side data.
    """
    with verb():
        from lumoomni.media.audio import Audio, save_wav
        from lumoomni.media.image import save_png
        from lumoomni.runtime import atomic_write_text
        from lumoomni.uti.interface import UTI
        from lumoomni.uti.space_file import refuse_other

        uti = UTI.load(space)
        try:
            data = json.loads(ids.read_text())
            abi, numbers = str(data["abi"]), [int(i) for i in data["ids"]]
            meta = [dict(one) for one in data["meta"]] if "meta" in data else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{ids} holds no ids ({error!r}); see `lumo tokens encode`") from error
        refuse_other(uti.space.abi, abi, str(ids))
        spans = uti.unpack(numbers, meta)
        out.mkdir(parents=True, exist_ok=True)
        for place, span in enumerate(spans):
            found = uti.decode(span)
            if isinstance(found, Audio):
                save_wav(out / f"{place}.wav", found)
            elif isinstance(found, str):
                atomic_write_text(out / f"{place}.txt", found)
            else:
                save_png(out / f"{place}.png", found)
        print(f"{len(spans)} parts in {out}")


def _opened(folder: Path, as_json: bool) -> None:
    """Show a space that is opened as its users open it: with its codecs, and every hash checked."""
    from lumoomni.uti.interface import UTI

    space = UTI.load(folder).space
    if as_json:
        print_json({"abi": space.abi, **space.meaning()})
        return
    for one in space.ranges:
        print(f"{one.name:<12} {one.start:>8} .. {one.end:>8}  {one.size:>7} ids")
    for codec in space.codecs:
        rate = f"{codec.frame_rate:g} frames a second of {codec.codebooks} codes"
        size = f"{codec.tokens} codes a picture of {codec.image_size} pixels a side"
        more = f", decodes with {', '.join(codec.side)}" if codec.side else ""
        more = more if codec.decodes else ", only encodes"
        print(
            f"{codec.kind}: {codec.name}, {rate if codec.kind == 'audio' else size}{more}, weights "
            f"{codec.weights[:12]}..."
        )
    print(f"{space.size:,} ids in all, ABI {space.abi}")
