"""The verbs over finished shards: `lumo data verify | stats | peek`.

Knows: options and how findings are shown. Costs: torch is imported when a verb runs; `verify` reads
every byte, and encodes a sample of the originals again.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumoomni.errors import GateFailure, InputError
from lumoomni.exits import print_json, verb

if TYPE_CHECKING:
    from lumoomni.data.shards import Tokenized
    from lumoomni.uti.interface import UTI
    from lumoomni.uti.space import TokenSpace

Folder = Annotated[
    str, typer.Argument(help="A folder of shards, from `lumo tokenize`, or the URL of one.")
]
Space = Annotated[Path | None, typer.Option(help="A folder that `lumo tokens build` made.")]
Context = Annotated[int, typer.Option(min=1, help="Ids that training reads at once.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SHOWN = 12


def register(data: typer.Typer) -> None:
    """Add the sub-commands to `lumo data`."""
    data.command(
        epilog="lumo data verify runs/shards --space runs/space --manifest data/manifest.jsonl"
    )(verify)
    data.command(epilog="lumo data stats runs/shards")(stats)
    data.command(epilog="lumo data peek runs/shards 3 --space runs/space --out looked")(peek)


def verify(
    folder: Folder,
    space: Space = None,
    manifest: Annotated[
        Path | None, typer.Option(help="What the shards were made from, with its media.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Media of each kind to encode again.")] = 256,
    context: Context = 1024,
    min_psnr: Annotated[float, typer.Option(help="Decibels of decoded pictures.")] = 25.0,
    min_ssim: Annotated[float, typer.Option(help="SSIM of decoded pictures.")] = 0.8,
    max_log_mel: Annotated[float, typer.Option(help="Log-mel distance of decoded sound.")] = 2.2,
    as_json: Json = False,
) -> None:
    """Hold every gate over shards: files, ABI, ranges, shapes, splits, doubles, loading.

    With --space and --manifest the originals are encoded again and decoded too; without both the
    gates of the codes are named as not held. Exit code 1 when a gate does not hold.
    """
    with verb():
        from lumoomni.audits.dataset import DatasetAuditConfig, measure
        from lumoomni.gates import judge
        from lumoomni.stages.tokenize import DatasetLimits, code_checks, row_checks
        from lumoomni.uti.interface import UTI

        if (space is None) != (manifest is None):
            raise InputError(
                "the codes are compared with the originals by --space and --manifest together; "
                f"--{'space' if space is None else 'manifest'} is missing"
            )
        uti = None if space is None else UTI.load(space)
        audit = DatasetAuditConfig(context=context, sample=sample)
        report = measure(folder, audit, uti=uti, manifest=manifest)
        limits = DatasetLimits(
            kinds=_kinds(folder), min_psnr=min_psnr, min_ssim=min_ssim, max_log_mel=max_log_mel
        )
        checks, left = row_checks(limits), code_checks(limits)
        if uti is not None:
            checks, left = (*checks, *left), ()
        verdict = judge(report, checks)
        names = [check.metric for check in left]
        if as_json:
            found = {"report": report.to_dict(), "verdict": verdict.to_dict()}
            print_json({**found, "not_held": names})
        else:
            for result in verdict.results:
                print(f"{'ok    ' if result.passed else 'FAILED'} {result.explain()}")
            for name, note in report.notes.items():
                print(f"{name}: {note}")
            if names:
                print(f"not held without --space and --manifest: {', '.join(names)}")
        if not verdict.passed:
            raise GateFailure("; ".join(verdict.failures()))


def stats(folder: Folder, context: Context = 1024, as_json: Json = False) -> None:
    """Rows by split, task and source, ids, lengths, what is cut at a context, and the use of each
    codebook."""
    with verb():
        from lumoomni.audits.dataset_stats import dataset_stats

        found = dataset_stats(folder, context)
        if as_json:
            print_json(found.to_dict())
            return
        for name, count in found.rows.items():
            print(f"{name}: {count:,} rows")
        print("ids: " + ", ".join(f"{count:,} {name}" for name, count in found.tokens.items()))
        print("lengths: " + ", ".join(f"{name} {n:.0f}" for name, n in found.lengths.items()))
        print(
            f"at {context} ids {found.cut:.2%} are cut, {found.too_long:.2%} do not fit; "
            f"{found.left_out:,} records were left out"
        )
        for name, use in found.books.items():
            print(
                f"{name}: {use.entropy:.2f} of {use.most:.2f} bits, {use.dead:,} of {use.size:,} "
                f"codes never used, {use.codes:,} codes"
            )


def peek(
    folder: Folder,
    number: Annotated[int, typer.Argument(help="A row's number in its split, from 0.")],
    space: Space = None,
    split: Annotated[str, typer.Option(help="train or eval.")] = "train",
    out: Annotated[Path | None, typer.Option(help="Decode the sample's media to here.")] = None,
    as_json: Json = False,
) -> None:
    """Show a sample: its ids with the ranges they are of, and with --space its words; with --out
    its picture or sound as files."""
    with verb():
        from lumoomni.data.shard_set import ShardSet
        from lumoomni.uti.interface import UTI
        from lumoomni.uti.tasks import sequence

        if out is not None and space is None:
            raise InputError("decoding to files needs the codecs; give --space too")
        shards = ShardSet.open(folder, verify=False)
        count = shards.len(split)
        if not 0 <= number < count:
            raise InputError(f"there is no row {number} in {split}, which has {count}")
        sample = shards.sample(split, number)
        uti = None if space is None else UTI.load(space)
        if uti is not None:
            from lumoomni.uti.space_file import refuse_other

            refuse_other(uti.space.abi, shards.abi, folder)
        made = sequence(sample.task, sample, shards.space)
        runs = _runs(made.ids.tolist(), made.labels.tolist(), shards.space)
        words = {} if uti is None else _words(sample, uti)
        files = [] if uti is None or out is None else _decoded(sample, uti, out)
        about = {name: getattr(sample, name) for name in ("id", "source", "task", "official")}
        if as_json:
            said = {**about, "split": split, "meta": sample.meta, **words}
            print_json({**said, "ids": made.ids.tolist(), "runs": runs, "files": files})
            return
        print(", ".join(f"{name} {value}" for name, value in about.items() if value))
        for name, text in words.items():
            print(f"{name}: {text}")
        for one in runs:
            ids = " ".join(map(str, one["ids"][:SHOWN]))
            more = f" ... {len(one['ids'])} in all" if len(one["ids"]) > SHOWN else ""
            print(f"{'learned' if one['learned'] else '':>8} {one['range']:<16} {ids}{more}")
        print("\n".join(files), end="\n" if files else "")


def _kinds(folder: str) -> tuple[str, ...]:
    """The kinds of media that shards hold, by their listing."""
    from lumoomni.audits.dataset import read_index

    counts = read_index(folder)["counts"].values()
    return tuple(k for k in ("image", "audio") if any(one["tokens"].get(k) for one in counts))


def _runs(ids: list[int], labels: list[int], space: "TokenSpace") -> list[dict[str, Any]]:
    """Neighbouring ids of one range, or of one sound; a special symbol by its own name."""
    from lumoomni.ids import IGNORE

    specials = {number: name for name, number in space.specials}
    runs: list[dict[str, Any]] = []
    for token, label in zip(ids, labels, strict=True):
        where = next(one.name for one in space.ranges if token in one)
        where = specials.get(token, "AUDIO" if where.startswith("AUDIO") else where)
        learned = label != IGNORE
        if not runs or (runs[-1]["range"], runs[-1]["learned"]) != (where, learned):
            runs.append({"range": where, "learned": learned, "ids": []})
        runs[-1]["ids"].append(token)
    return runs


def _words(sample: "Tokenized", uti: "UTI") -> dict[str, str]:
    found = {"text": sample.text, "prompt": sample.prompt}
    return {name: uti.text_codec.decode(ids.tolist()) for name, ids in found.items() if len(ids)}


def _decoded(sample: "Tokenized", uti: "UTI", out: Path) -> list[str]:
    """Files of a sample's text and media, by what they are."""
    from lumoomni.media.audio import Audio, save_wav
    from lumoomni.media.image import save_png
    from lumoomni.runtime import atomic_write_text
    from lumoomni.uti.interface import TokenSpan
    from lumoomni.uti.space import flatten

    out.mkdir(parents=True, exist_ok=True)
    files = [out / "text.txt"]
    atomic_write_text(files[0], uti.text_codec.decode(sample.text.tolist()))
    for codec in uti.space.codecs:
        codes = getattr(sample, codec.kind)
        if not len(codes):
            continue
        books = uti.space.books(codec.kind)
        ids = flatten(codes.reshape(-1, len(books)), books)
        found = uti.decode(TokenSpan(codec.kind, ids, sample.meta))
        if isinstance(found, Audio):
            files.append(out / "audio.wav")
            save_wav(files[-1], found)
        elif not isinstance(found, str):
            files.append(out / "image.png")
            save_png(files[-1], found)
    return [str(path) for path in files]
