"""Data sets of sounds with captions or transcripts, as they are published, to drafts.

Knows: Clotho 2.1, AudioCaps, WavCaps, LJSpeech and LibriSpeech; their own splits; how their files
are named. A file is found by its whole name, never by how it begins: id 91 is not 91918.
Does not know: whether files can be read. Costs: the listings, and one walk of the sounds' folder.
"""

import re
from pathlib import Path
from typing import Any

from lumoomni.data.asset_split import OFFICIAL
from lumoomni.data.manifest_drafts import (
    SOUNDS,
    Cells,
    Draft,
    Files,
    from_row,
    read_cells,
    read_json,
)
from lumoomni.data.readers import read
from lumoomni.errors import InputError

SPLIT = re.compile(r"(train|dev|test)-[a-z0-9-]+")
CAPTIONS = tuple(f"caption_{k}" for k in range(1, 6))
CLOTHO = {
    f"clotho_captions_{split}.csv": split for split in ("development", "validation", "evaluation")
}
AUDIOCAPS = {"train.csv": "train", "val.csv": "val", "test.csv": "test"}
AUDIOCAPS_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
AUDIOCAPS_SECONDS = 10


def clotho(path: Path, root: Path | None) -> list[Draft]:
    """Five captions a clip: a folder with `clotho_captions_{split}.csv`, or one of these files.

    Sounds lie in {root}/{split}/ as the archives unpack, or in {root}/; the root is the listing's
    folder if none is given.
    """
    drafts = []
    for listing, split in _listings(path, CLOTHO):
        base = root or listing.parent
        for line in read_cells(listing, ("file_name", *CAPTIONS)):
            if line.problem:
                drafts.append(_bad(line, f"clotho:{split}"))
                continue
            name = line.cells["file_name"]
            if not name.strip():
                drafts.append(_bad(line, f"clotho:{split}", "no file is named"))
                continue
            folder = base / split
            media = folder / name if (folder / name).is_file() else base / name
            for k, column in enumerate(CAPTIONS, 1):
                drafts.append(
                    Draft(
                        id=f"clotho:{split}:{name}:{k}",
                        where=f"{line.where} {column}",
                        kind="sound",
                        text=line.cells[column].strip(),
                        media=media,
                        official=split,
                    )
                )
    return drafts


def audiocaps(path: Path, root: Path | None) -> list[Draft]:
    """One caption a line: a folder with train.csv, val.csv and test.csv, or one of these files.

    A sound is named by its audiocap_id, by its youtube_id (or Y and this, as AudioSet has it), or
    by youtube_id_start or youtube_id_start_end in seconds, and lies under {root}/{split} if that is
    there, or under {root}.
    """
    drafts = []
    walked: dict[Path, Files] = {}
    for listing, split in _listings(path, AUDIOCAPS):
        base = root or listing.parent
        folder = base / split if (base / split).is_dir() else base
        if folder not in walked:
            walked[folder] = Files(folder, SOUNDS)
        for line in read_cells(listing, AUDIOCAPS_COLUMNS):
            if line.problem:
                drafts.append(_bad(line, "audiocaps"))
                continue
            cells = {name: line.cells[name].strip() for name in AUDIOCAPS_COLUMNS}
            media, problem, detail = walked[folder].one(_audiocaps_names(cells))
            drafts.append(
                Draft(
                    id=f"audiocaps:{cells['audiocap_id'] or line.where}",
                    where=line.where,
                    kind="sound",
                    text=cells["caption"],
                    media=media,
                    official=split,
                    problem=problem if cells["audiocap_id"] else "no audiocap_id",
                    detail=detail,
                )
            )
    return drafts


def wavcaps(path: Path, root: Path | None) -> list[Draft]:
    """One JSON file of WavCaps: {"data": [{"id", "caption", "duration"}, ...]}.

    Ids of AudioSet_SL end in .wav though its archives hold FLAC, so the ending does not count.
    """
    data = read_json(path)
    items = data.get("data") if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise InputError(f'{path} has no list "data"; give a JSON file of WavCaps')
    files = Files(root or path.parent, SOUNDS)
    return [
        _wavcaps(item, files, path.stem, f"{path}[{number}]") for number, item in enumerate(items)
    ]


def ljspeech(path: Path, root: Path | None) -> list[Draft]:
    """metadata.csv beside wavs/; it has no split of its own."""
    rows = read("ljspeech", path, root)
    return [from_row(row, f"ljspeech:{_stem(row.media, row.where)}", "sound") for row in rows]


def librispeech(path: Path, root: Path | None) -> list[Draft]:
    """Chapters of {split}/speaker/chapter/, or of a split's folder or anything in it; the split is
    that folder's name, the innermost where there are several. A name that only looks like one is
    refused later, by `held_out`."""
    drafts = []
    above = path.resolve().parts[::-1]
    # A speaker's and a chapter's folder are numbers; beyond, any folder may be called test-data.
    first = next((i for i, part in enumerate(above) if not part.isdecimal()), 0)
    for row in read("librispeech", path, root):
        inside = Path(row.asset).parts[::-1]
        known = (part for part in (*inside, *above) if part in OFFICIAL and "-" in part)
        like = (part for part in (*inside, above[first]) if SPLIT.fullmatch(part))
        split = next(known, next(like, ""))
        name = f"librispeech:{_stem(row.media, row.where)}"
        drafts.append(from_row(row, name, "sound", split))
    return drafts


def _listings(path: Path, names: dict[str, str]) -> list[tuple[Path, str]]:
    """(file, official split) of each listing there is. Raises InputError when there is none."""
    if path.is_dir():
        found = [(path / name, split) for name, split in names.items() if (path / name).is_file()]
    else:
        found = [(path, names[path.name])] if path.name in names and path.is_file() else []
    if not found:
        raise InputError(
            f"{path} is none of, and holds none of, {', '.join(names)}; the name tells the split, "
            "so keep it as published"
        )
    return found


def _audiocaps_names(cells: dict[str, str]) -> list[str]:
    number, video, start = (cells[name] for name in AUDIOCAPS_COLUMNS[:3])
    names = [number]
    if video:
        names += [video, f"Y{video}", f"{video}_{start}"]
        if start.isdecimal():
            names.append(f"{video}_{start}_{int(start) + AUDIOCAPS_SECONDS}")
    return names


def _wavcaps(item: Any, files: Files, subset: str, where: str) -> Draft:
    name = item.get("id") if isinstance(item, dict) else None
    if not isinstance(name, (str, int)) or isinstance(name, bool) or not str(name).strip():
        shown = str(item)[:80]
        return Draft(
            id=f"wavcaps:{subset}:{where}",
            where=where,
            kind="sound",
            problem="no id",
            detail=shown,
        )
    stem, dot, ending = str(name).rpartition(".")
    media, problem, detail = files.one([stem if f".{ending}" in SOUNDS and dot else str(name)])
    caption = item.get("caption")
    if not isinstance(caption, str):
        problem, detail = "the caption is no text", str(caption)[:80]
    return Draft(
        id=f"wavcaps:{subset}:{name}",
        where=where,
        kind="sound",
        text=caption.strip() if isinstance(caption, str) else "",
        media=media,
        problem=problem,
        detail=detail,
    )


def _bad(line: Cells, name: str, problem: str = "") -> Draft:
    reason, detail = (problem, "") if problem else ("another number of fields", line.problem)
    return Draft(
        id=f"{name}:{line.where}", where=line.where, kind="sound", problem=reason, detail=detail
    )


def _stem(media: object, where: str) -> str:
    return media.stem if isinstance(media, Path) else where
