"""The verb `lumo data manifest`: a published data set, or the micro-world, to one JSONL file.

Knows: options and how a report is shown. Costs: nothing is imported until the verb runs.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lumoomni.exits import print_json, verb

LAYOUT = (
    "clotho, audiocaps, wavcaps, ljspeech, librispeech, llava_pretrain, coco, folder (a.png or "
    "a.wav beside a.txt), or world."
)


def register(data: typer.Typer) -> None:
    """Add the verb."""
    data.command(
        epilog="lumo data manifest clotho /data/clotho clotho.jsonl --audio-root /data/clotho"
    )(manifest)


def manifest(
    layout: Annotated[str, typer.Argument(metavar="LAYOUT", help=LAYOUT)],
    path: Annotated[
        Path, typer.Argument(help="The listing or folder; for the world, where its files go.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The manifest to write.")],
    audio_root: Annotated[Path | None, typer.Option(help="Where sounds are.")] = None,
    image_root: Annotated[Path | None, typer.Option(help="Where pictures are.")] = None,
    limit: Annotated[
        int, typer.Option(help="Keep so many pairs by id; of the world, of each task. 0: all.")
    ] = 0,
    eval_share: Annotated[float, typer.Option(help="Share of files to hold out.")] = 0.01,
    both_ways: Annotated[
        bool, typer.Option("--both-ways", help="A record for each direction of a pair.")
    ] = False,
    most_defects: Annotated[float, typer.Option(help="Fail above this share.")] = 0.05,
    licence: Annotated[str, typer.Option(help="Noted in each record.")] = "",
    seed: Annotated[int, typer.Option(help="Of the world.")] = 0,
    held: Annotated[int, typer.Option(help="World: pairs of each held-out split.")] = 100,
    pixels: Annotated[int, typer.Option(help="World: pictures' sides.")] = 64,
    voices: Annotated[
        bool, typer.Option("--voices", help="World: many voices, not the narrator's alone.")
    ] = False,
    sketches: Annotated[
        bool, typer.Option("--sketches", help="World: pictures to be drawn are sketches.")
    ] = False,
    cues: Annotated[
        bool, typer.Option("--cues", help="World: sounds to be made are cues.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Pair texts with their files, hash each file, and split by the hash; held-out data of the data
    set itself is never trained on.

    Exit code 1 when more than 5 % of the pairs cannot be used; nothing is written then but the list
    of what is wrong, OUT.defects.txt.
    """
    with verb():
        from lumoomni.data.manifest_builders import ManifestConfig, build_manifest
        from lumoomni.data.manifest_world import WorldConfig

        world = WorldConfig(
            seed=seed, held=held, pixels=pixels, voices=voices, sketches=sketches, cues=cues
        )
        config = ManifestConfig(
            eval_share=eval_share,
            both_ways=both_ways,
            limit=limit,
            most_defects=most_defects,
            licence=licence,
            world=replace(world, count=limit) if limit else world,
        )
        root = _root(layout, audio_root, image_root)
        found = build_manifest(layout, path, out, root=root, config=config)
        _tell(out, found.to_dict(), as_json)
        if not found.usable:
            raise typer.Exit(1)


def _tell(out: Path, found: dict[str, Any], as_json: bool) -> None:
    """Print a report of a manifest."""
    if as_json:
        print_json({"manifest": str(out), **found})
        return
    for name, value in found.items():
        print(f"{name}: {_shown(value)}")


def _root(layout: str, audio_root: Path | None, image_root: Path | None) -> Path | None:
    """The root of the layout's kind. Raises InputError for one that it has no use for."""
    from lumoomni.data.manifest_builders import KINDS
    from lumoomni.errors import InputError

    roots = {"sound": ("--audio-root", audio_root), "picture": ("--image-root", image_root)}
    for kind, (name, given) in roots.items():
        if given is not None and KINDS.get(layout) != kind:
            raise InputError(f"the layout {layout} has no use for {name}; leave it away")
    return roots[KINDS[layout]][1] if layout in KINDS else None


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name or 'none'} {count}" for name, count in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return "".join(f"\n  {line}" for line in value) or "none"
    return str(value)
