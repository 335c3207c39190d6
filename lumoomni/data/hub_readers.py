"""A Hugging Face data set on disk to plain rows: `save_to_disk` folders and folders of Parquet.

Knows: dataset_dict.json, state.json and Arrow files; `train-00000-of-00002.parquet`; pictures as
{bytes, path}, bytes or paths, one or a list a row; captions, conversations and messages, also ones
without a picture.
Does not know: the hub; download first. Needs `lumoomni[data]`.
Costs: texts are read once; of a picture its ends are looked at and 100 bytes are held. Arrow
pictures stay on disk; Parquet is unpacked once as a whole to tell its pictures apart.
"""

import json
import re
from pathlib import Path
from typing import Any

from lumoomni.data.marks import Talk, talk
from lumoomni.data.rows import (
    Row,
    bad_row,
    file_asset,
    pictures_row,
    printable,
    read_text,
    text_row,
)
from lumoomni.data.stored import Stored, identity
from lumoomni.data.tables import Cell, Table, arrow, open_table, parts_of, stored_bytes
from lumoomni.data.watched import watched
from lumoomni.errors import InputError

PICTURES = ("image", "picture", "images", "pictures")
TALKS = ("conversations", "messages")
CAPTIONS = ("caption", "text")
SPLITS = {"train", "validation", "valid", "val", "dev", "test"}
SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-(?P<count>\d{5})\b")


def read_hub(path: Path, root: Path | None) -> list[Row]:
    """A row a record of the split `train`, or of the only one; `root` is where paths begin.

    Raises InputError for a folder of neither kind, for files that are missing or cut off, and where
    no column holds pictures or text.
    """
    folder = _split_folder(path)
    files = _saved(folder) if (folder / "state.json").is_file() else _parquet_files(folder)
    tables = [open_table(file) for file in files]
    groups = [(table, group) for table in tables for group in range(len(table.starts) - 1)]
    rows: list[Row] = []
    for table, group in watched(groups, "reading tables", "group"):
        try:
            rows += _rows(table, group, root or folder)
        except OSError as error:
            raise InputError(f"{printable(str(error))}; get a whole copy") from error
    return rows


def _split_folder(path: Path) -> Path:
    listing = path / "dataset_dict.json"
    if not listing.is_file():
        return path
    data = _json(listing)
    splits = data.get("splits") if isinstance(data, dict) else None
    if not isinstance(splits, list) or not splits:
        raise InputError(f"{listing} names no splits; give the folder of one of them")
    return path / _chosen([str(split) for split in splits], path)


def _chosen(splits: list[str], path: Path) -> str:
    """`train`, or the only split."""
    if "train" in splits:
        return "train"
    if len(set(splits)) == 1:
        return splits[0]
    raise InputError(
        f"{path} has the splits {', '.join(sorted(set(splits)))} and none of them is train; keep "
        "or give one of them alone"
    )


def _saved(folder: Path) -> list[Path]:
    """The Arrow files that state.json names, in its order."""
    state = _json(folder / "state.json")
    named = state.get("_data_files") if isinstance(state, dict) else None
    if not isinstance(named, list) or not all(
        isinstance(one, dict) and isinstance(one.get("filename"), str) for one in named
    ):
        raise InputError(f"{folder / 'state.json'} names no _data_files; save the data set again")
    if state.get("_indices_data_files"):
        # Older versions keep a selection of rows beside the data; all rows would be another set.
        raise InputError(
            f"{folder} holds a selection of rows in _indices_data_files; call flatten_indices() "
            "and save the data set again"
        )
    return [folder / one["filename"] for one in named]


def _parquet_files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place in (folder, folder / "data"):
        visible = (one for one in place.glob("*.parquet") if not one.name.startswith("."))
        found = found or sorted(visible)
    if not found:
        raise InputError(
            f"{folder} holds no dataset_dict.json, no state.json and no .parquet (nor does its "
            "data/); give the folder that save_to_disk wrote, or one of Parquet files"
        )
    shards = {file: SHARD.match(file.name) for file in found}
    names = {file: match["split"] if match else file.stem for file, match in shards.items()}
    if not any(shards.values()) and not SPLITS & set(names.values()):
        return found
    split = _chosen(list(names.values()), folder)
    files = [file for file in found if names[file] == split]
    match = shards[files[0]]
    if match and len(files) != int(match["count"]):
        raise InputError(
            f"{folder} holds {len(files)} of the {int(match['count'])} Parquet files of {split}; "
            "get the others"
        )
    return files


def _rows(table: Table, group: int, base: Path) -> list[Row]:
    """All rows of a group. Raises OSError for a damaged file."""
    pictures = _picture_column(table)
    said = next((name for name in (*TALKS, *CAPTIONS) if name in table.types), None)
    if said is None:
        raise InputError(
            f"{table.path} has the columns {', '.join(table.types)}; it needs one of "
            f"{', '.join((*TALKS, *CAPTIONS))}"
        )
    shown = table.column(group, pictures)
    rows = []
    for row, value in enumerate(table.column(group, said)):
        where = f"{table.path}[{table.starts[group] + row}]"
        try:
            place = (table, pictures, group, row)
            rows.append(_row(shown[row], value.as_py(), place, base, where))
        except ValueError as error:
            rows.append(bad_row(where, str(error)))
    return rows


def _picture_column(table: Table) -> str:
    named = [name for name in PICTURES if name in table.types]
    structs = [name for name, kind in table.types.items() if _is_picture(kind)]
    best = [name for name in named if name in structs] or structs or named
    if best and (len(best) == 1 or best[0] in PICTURES):
        return best[0]
    raise InputError(
        f"{table.path} has the columns {', '.join(table.types)}; name the one with the pictures "
        f"{' or '.join(PICTURES[:2])}"
    )


def _is_picture(kind: Any) -> bool:
    """{bytes, path}, or a list of them."""
    inner = getattr(kind, "value_type", kind)
    names = [inner.field(i).name for i in range(inner.num_fields)]
    return arrow().types.is_struct(inner) and {"bytes", "path"} <= set(names)


def _row(shown: Any, said: Any, place: tuple[Table, str, int, int], base: Path, where: str) -> Row:
    """Raises ValueError for each defect."""
    listed = parts_of(shown)
    if isinstance(said, (list, dict)) and (listed == [] or not shown.is_valid):
        *before, (_, answer) = _told(said, 0).turns
        return text_row(answer, tuple(before), where)
    media: list[Path | Stored] = []
    assets: list[str] = []
    for part, value in enumerate([shown] if listed is None else listed):
        data = stored_bytes(value)
        if data is not None:
            table, column, group, row = place
            cell = Cell(table, column, group, row, None if listed is None else part, data.size)
            media.append(cell)
            assets.append(identity(cell))
            continue
        name = value.as_py()
        name = name.get("path") if isinstance(name, dict) else name
        if not isinstance(name, str) or not name.strip():
            raise ValueError("no picture: neither bytes nor a path")
        media.append(base / name.strip())
        assets.append(file_asset(name.strip()))
    if not media:
        raise ValueError("no picture: an empty list")
    told = _told(said, len(media))
    *before, (_, answer) = told.turns
    return pictures_row(answer, media, assets, where, before=tuple(before), places=told.places)


def _told(said: Any, pictures: int) -> Talk:
    """A caption or a conversation. Raises ValueError where it is neither."""
    if isinstance(said, dict):
        # A sequence of records may be kept as a record of sequences.
        lists = list(said.values())
        if not all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists):
            raise ValueError(f"no conversation: {str(said)[:80]}")
        said = [dict(zip(said, parts, strict=True)) for parts in zip(*lists, strict=True)]
    if isinstance(said, list):
        return talk(said, pictures)
    if not isinstance(said, str):
        raise ValueError(f"the caption must be text: {str(said)[:80]}")
    if pictures > 1:
        raise ValueError(f"{pictures} pictures and no conversation that says where they stand")
    return Talk((("assistant", said),))


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
