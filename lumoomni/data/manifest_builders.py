"""A published data set to a manifest: every pair looked at, put on its side of the split, written.

Defects are counted and named, never replaced by another pair; above a share nothing is written.
Knows: the order of the work, and what a report says. Does not know: any listing's format; those are
in `manifest_audio.py`, `manifest_pictures.py` and `manifest_world.py`.
Costs: each media file is read once to hash it, in threads; about 1 KB of memory a pair.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lumoomni import __version__
from lumoomni.config import nearest, to_dict
from lumoomni.data.asset_hash import AssetHashes, Seen
from lumoomni.data.asset_split import EVAL_SHARE, Leak, eval_parts, sides
from lumoomni.data.headers import Kind
from lumoomni.data.manifest import Asset, Record, write_manifest
from lumoomni.data.manifest_audio import audiocaps, clotho, librispeech, ljspeech, wavcaps
from lumoomni.data.manifest_drafts import Draft
from lumoomni.data.manifest_pictures import coco, llava_pretrain, plain_folder
from lumoomni.data.manifest_world import WorldConfig, world
from lumoomni.data.rows import printable
from lumoomni.errors import InputError
from lumoomni.runtime import atomic_write_text

NAMED = 20
DEFECTS = ".defects.txt"
TASKS: dict[Kind, tuple[str, str]] = {"sound": ("a2t", "t2a"), "picture": ("i2t", "t2i")}
LAYOUTS: dict[str, Callable[[Path, Path | None], list[Draft]]] = {
    "clotho": clotho,
    "audiocaps": audiocaps,
    "wavcaps": wavcaps,
    "ljspeech": ljspeech,
    "librispeech": librispeech,
    "llava_pretrain": llava_pretrain,
    "coco": coco,
    "folder": plain_folder,
}
WORLD = "world"
KINDS: dict[str, Kind] = {
    "clotho": "sound",
    "audiocaps": "sound",
    "wavcaps": "sound",
    "llava_pretrain": "picture",
    "coco": "picture",
}
"""Layouts whose media lie in a root of their own, and what they are."""


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A pair that cannot be used: where it stands, why, and of what."""

    id: str
    where: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, kw_only=True)
class ManifestReport:
    """What was found. Pairs are what the listing has (`listed`, of which `limit` may leave out
    some), records what was written. Lists name at most NAMED items; the counts are complete."""

    layout: str
    listed: int
    pairs: int
    records: int
    assets: int
    splits: dict[str, int]
    officials: dict[str, int]
    tasks: dict[str, int]
    defects: int
    reasons: dict[str, int]
    defects_named: tuple[str, ...]
    leaks: int
    leaks_named: tuple[str, ...]
    most_defects: float

    @property
    def usable(self) -> bool:
        """Whether few enough pairs are broken; nothing is written where not."""
        return self.defects <= self.most_defects * self.pairs

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {**asdict(self), "usable": self.usable}


@dataclass(frozen=True, kw_only=True)
class ManifestConfig:
    """How a manifest is built.

    `both_ways` writes each pair twice, once for each direction, on one side. `limit` keeps the
    first pairs in the order of ids; 0 keeps all; the world is made as its own settings say.
    Raises InputError for shares and counts out of range.
    """

    eval_share: float = EVAL_SHARE
    both_ways: bool = False
    limit: int = 0
    most_defects: float = 0.05
    licence: str = ""
    world: WorldConfig = field(default_factory=WorldConfig)

    def __post_init__(self) -> None:
        eval_parts(self.eval_share)
        if self.limit < 0:
            raise InputError(f"limit is {self.limit}; it must be 0 for all pairs, or more")
        if not 0 <= self.most_defects <= 1:
            raise InputError(f"most_defects is {self.most_defects}; it must be from 0 to 1")


def build_manifest(
    layout: str,
    path: Path,
    out: Path,
    *,
    root: Path | None = None,
    config: ManifestConfig = ManifestConfig(),
    hashes: AssetHashes | None = None,
) -> ManifestReport:
    """Read a listing, look at its files, and write the manifest if few enough are broken.

    `path` is the listing's file or folder; for the world it is the folder to write media to. All
    defects are written beside `out`, if there are any. Raises InputError for an unknown layout, for
    a listing that cannot be read, and where no pair is left.
    """
    path, out = _whole(path), _whole(out)
    drafts = _read(layout, path, _whole(root) if root else None, config)
    listed = len(drafts)
    if not listed:
        raise InputError(f"{path} holds 0 pairs in the layout {layout}; check path and layout")
    if config.limit and layout != WORLD:
        drafts = drafts[: config.limit]
    drafts, repeated = _unique(drafts)
    seen = (hashes or AssetHashes()).look(
        (draft.media, draft.kind) for draft in drafts if draft.media and not draft.problem
    )
    judged = [_judged(draft, seen, out.parent) for draft in drafts]
    defects = [*repeated, *(one for one in judged if isinstance(one, Defect))]
    pairs = [one for one in judged if isinstance(one, _Pair)]
    of = sides(((p.draft.id, p.asset.sha256, p.draft.official) for p in pairs), config.eval_share)
    records = [
        record for pair in pairs for record in _records(pair, of.of[pair.asset.sha256], config)
    ]
    report = _report(layout, listed, defects, records, of.leaks, config)
    _note(out, defects)
    if report.usable:
        if not records:
            raise InputError(f"{path}: none of {listed} pairs can be used; see {out}{DEFECTS}")
        write_manifest(out, records, source=layout, made_with=_made_with(layout, config))
    return report


@dataclass(frozen=True, slots=True)
class _Pair:
    """A draft whose file was found good."""

    draft: Draft
    asset: Asset


def _read(layout: str, path: Path, root: Path | None, config: ManifestConfig) -> list[Draft]:
    if layout not in (*LAYOUTS, WORLD):
        raise InputError(f"there is no layout {layout!r}; {nearest(layout, [*LAYOUTS, WORLD])}")
    if layout == WORLD:
        drafts = world(path, config.world)
    else:
        if not path.exists():
            raise InputError(f"there is no {path}; give the data set's listing or folder")
        if root is not None and not root.is_dir():
            raise InputError(f"there is no folder {root}; give the folder that the files lie in")
        drafts = LAYOUTS[layout](path, root)
    return sorted(drafts, key=lambda draft: (draft.id, draft.where))


def _unique(drafts: Sequence[Draft]) -> tuple[list[Draft], list[Defect]]:
    """Drafts with an id of their own, and those whose id another one had first."""
    first: dict[str, Draft] = {}
    repeated = []
    for draft in drafts:
        known = first.setdefault(draft.id, draft)
        if known is not draft:
            reason, detail = "the id stands twice", f"{draft.id}, first at {known.where}"
            repeated.append(Defect(id=draft.id, where=draft.where, reason=reason, detail=detail))
    return list(first.values()), repeated


def _judged(draft: Draft, seen: dict[Path, Seen], folder: Path) -> _Pair | Defect:
    problem, detail = draft.problem, draft.detail
    if not problem and not draft.text:
        problem = "empty caption"
    if not problem and any(text != printable(text) for text in (draft.text, draft.prompt)):
        problem = "half a surrogate pair in the text"
    if not problem and draft.media is None:
        problem = "no file is named"
    if not problem and draft.media is not None:
        found = seen[draft.media]
        if not found.problem:
            path = _relative(draft.media, folder)
            if path == printable(path):
                return _Pair(draft, Asset(path=path, sha256=found.sha256))
            problem, detail = "the file's name is not UTF-8", path
        else:
            # What stands in brackets belongs to the one file.
            problem, _, said = found.problem.partition(" (")
            detail = f"{draft.media}: {said.removesuffix(')')}" if said else str(draft.media)
    return Defect(
        id=printable(draft.id),
        where=printable(draft.where),
        reason=printable(problem),
        detail=printable(detail),
    )


def _records(pair: _Pair, side: str, config: ManifestConfig) -> list[Record]:
    """The pair as it is read, and the other way round if wanted; a prompt asks for text."""
    draft, (reading, making) = pair.draft, TASKS[pair.draft.kind]
    first = Record(
        id=f"{draft.id}:{reading}",
        source=draft.id.partition(":")[0],
        task=reading,
        text=draft.text,
        prompt=draft.prompt,
        image=pair.asset if draft.kind == "picture" else None,
        audio=pair.asset if draft.kind == "sound" else None,
        split=side,
        official=draft.official,
        licence=config.licence,
    )
    other = replace(first, id=f"{draft.id}:{making}", task=making, prompt="")
    if draft.way:
        return [one for one in (first, other) if one.task == draft.way]
    return [first, other] if config.both_ways else [first]


def _report(
    layout: str,
    listed: int,
    defects: list[Defect],
    records: list[Record],
    leaks: Sequence[Leak],
    config: ManifestConfig,
) -> ManifestReport:
    splits = Counter(record.split for record in records)
    pairs = len({record.id.rpartition(":")[0] for record in records}) + len(defects)
    return ManifestReport(
        layout=layout,
        listed=listed,
        pairs=pairs,
        records=len(records),
        assets=len({record.asset for record in records}),
        splits={"train": splits["train"], "eval": splits["eval"]},
        officials=dict(sorted(Counter(record.official for record in records).items())),
        tasks=dict(sorted(Counter(record.task for record in records).items())),
        defects=len(defects),
        reasons=dict(Counter(defect.reason for defect in defects).most_common()),
        defects_named=tuple(str(defect) for defect in defects[:NAMED]),
        leaks=len(leaks),
        leaks_named=tuple(str(leak) for leak in leaks[:NAMED]),
        most_defects=config.most_defects,
    )


def _note(out: Path, defects: list[Defect]) -> None:
    """All defects beside the manifest, a line each; a list of an earlier run does not stay."""
    place = out.with_name(out.name + DEFECTS)
    if defects:
        atomic_write_text(place, "".join(f"{defect}\n" for defect in defects))
    else:
        place.unlink(missing_ok=True)


def _made_with(layout: str, config: ManifestConfig) -> dict[str, Any]:
    """What decides the records besides the data: no dates, so that equal data give equal bytes."""
    settings = to_dict(config)
    world_settings = settings.pop("world")
    if layout == WORLD:
        settings["world"] = world_settings
    return {"lumoomni": __version__, "layout": layout, **settings}


def _whole(path: Path) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - links stay as they are


def _relative(media: Path, folder: Path) -> str:
    """From the manifest's folder if the file lies below it: both can then be moved together."""
    return media.relative_to(folder).as_posix() if media.is_relative_to(folder) else str(media)
