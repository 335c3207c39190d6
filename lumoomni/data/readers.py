"""Published file layouts to plain rows: text lines, JSONL, CSV, captions, LJSpeech, LibriSpeech;
and, by files of their own, LLaVA, COCO, WebDataset and Hugging Face folders.

Knows: the layouts and their usual defects (BOM, CRLF, quoted commas, swapped columns, bad lines).
A row that cannot be used keeps its place and says why in `problem`; nothing is left out here.
Does not know: whether the media can be decoded; `data/headers.py` and `data/check.py` look.
Costs: the listing files are read once; media are not opened.
"""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lumoomni.config import nearest
from lumoomni.data.hub_readers import read_hub
from lumoomni.data.picture_readers import read_coco, read_llava
from lumoomni.data.picture_shards import read_webdataset
from lumoomni.data.rows import Row, bad_row, media_row, read_text, text_row, turn_of
from lumoomni.errors import InputError

FOLDERS = ("ljspeech", "librispeech", "hf")
PATTERNS = ("webdataset",)
"""Layouts that take a file, a folder or a pattern, and say themselves what is not there."""
PICTURE_LAYOUTS = ("json", "llava", "coco", "webdataset", "hf")
QUESTIONS, ANSWERS = ("question", "prompt", "instruction"), ("answer", "response", "output")


def read(layout: str, path: Path, root: Path | None = None) -> list[Row]:
    """All rows of a data set. Raises InputError for an unknown layout or an unreadable listing."""
    if layout not in LAYOUTS:
        raise InputError(f"there is no format {layout!r}; {nearest(layout, LAYOUTS)}")
    path = Path(path).expanduser()
    if layout not in PATTERNS:
        _check_kind(layout, path)
    if root is not None and not root.expanduser().is_dir():
        raise InputError(f"there is no folder {root}; give the folder that the files lie in")
    rows = LAYOUTS[layout](path, root.expanduser() if root else None)
    if not rows:
        raise InputError(f"{path} holds 0 samples in the format {layout}; check path and format")
    return rows


def _check_kind(layout: str, path: Path) -> None:
    """Raises InputError for a file in the place of a folder, or the other way round."""
    wants_folder = layout in FOLDERS
    if not path.exists():
        raise InputError(f"there is no {path}; give the {'folder' if wants_folder else 'file'}")
    if path.is_dir() != wants_folder:
        kinds = ("a file", "a folder")
        raise InputError(
            f"{path} is {kinds[path.is_dir()]}, but the format {layout} is {kinds[wants_folder]}"
        )


def read_lines(path: Path, root: Path | None) -> list[Row]:
    """One sample a line; a tab parts a question from its answer."""
    rows = []
    for number, line in _lines(path):
        parts = [part.strip() for part in line.split("\t")]
        before = (("user", parts[0]),) if len(parts) > 1 else ()
        problem = f"{len(parts)} fields, needs 1 or 2" if len(parts) > 2 else ""
        rows.append(text_row(parts[-1], before, f"{path}:{number}", problem))
    return rows


def read_jsonl(path: Path, root: Path | None) -> list[Row]:
    """One object a line: {"text"}, {"question", "answer"}, {"messages"} or {"conversations"}."""
    rows = []
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            turns = _turns(json.loads(line))
        except (ValueError, RecursionError) as error:
            rows.append(text_row("", (), where, str(error)))
            continue
        rows.append(text_row(turns[-1][1], turns[:-1], where))
    return rows


def read_csv(path: Path, root: Path | None) -> list[Row]:
    """Columns `wav` and `text` in either order; paths are relative to the file."""
    file = io.StringIO(read_text(path), newline="")
    reader = csv.reader(file, strict=True, skipinitialspace=True)
    rows: list[Row] = []
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        if not {"wav", "text"} <= set(columns):
            raise InputError(
                f"{path} has the columns {columns}; it needs a header with wav and text"
            )
        last = reader.line_num
        for fields in reader:
            where, last = f"{path}:{last + 1}", reader.line_num
            if not fields:
                continue
            if len(fields) != len(columns):
                # A comma in an unquoted text would otherwise cut the text without a word.
                problem = (
                    f"{len(fields)} fields where the header has {len(columns)}; "
                    "put quotes around texts that hold commas"
                )
                rows.append(bad_row(where, problem))
                continue
            cells = dict(zip(columns, fields, strict=True))
            rows.append(media_row(cells["text"], root or path.parent, cells["wav"], where))
    except csv.Error as error:
        raise InputError(
            f"{path}:{reader.line_num} is not valid CSV ({error}); look for a quote that is "
            "never closed, or that stands inside a quoted text"
        ) from error
    return rows


def read_captions(path: Path, root: Path | None) -> list[Row]:
    """[{"image": ..., "caption": ...}, ...] as one JSON list or one object a line."""
    text = read_text(path)
    base, rows = root or path.parent, []
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not valid JSON: {error}") from error
        return [_caption(item, base, f"{path}[{number}]") for number, item in enumerate(items)]
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            rows.append(_caption(json.loads(line), base, where))
        except (ValueError, RecursionError) as error:
            rows.append(bad_row(where, f"not valid JSON: {error}"))
    return rows


def read_ljspeech(path: Path, root: Path | None) -> list[Row]:
    """metadata.csv with id|text|normalised text, sounds in wavs/."""
    listing = path / "metadata.csv"
    if not listing.is_file():
        raise InputError(f"{path} has no metadata.csv; give the LJSpeech folder itself")
    rows = []
    for number, line in _lines(listing):
        name, *texts = line.split("|")
        where = f"{listing}:{number}"
        problem = "" if len(texts) in (1, 2) else f"{1 + len(texts)} fields, needs 2 or 3"
        # Some rows of the published set leave the normalised text out.
        text = next((text for text in reversed(texts) if text.strip()), "")
        media = f"wavs/{name.strip()}.wav" if name.strip() else ""
        rows.append(media_row(text, path, media, where, problem))
    return rows


def read_librispeech(path: Path, root: Path | None) -> list[Row]:
    """speaker/chapter/*.trans.txt, each line an id and its text, beside id.flac."""
    rows = []
    for listing in sorted(path.rglob("*.trans.txt")):
        folder = listing.parent.relative_to(path)
        for number, line in _lines(listing):
            name, _, text = line.strip().partition(" ")
            rows.append(media_row(text, path, f"{folder}/{name}.flac", f"{listing}:{number}"))
    return rows


LAYOUTS: dict[str, Callable[[Path, Path | None], list[Row]]] = {
    "txt": read_lines,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "json": read_captions,
    "llava": read_llava,
    "coco": read_coco,
    "ljspeech": read_ljspeech,
    "librispeech": read_librispeech,
    "webdataset": read_webdataset,
    "hf": read_hub,
}


def _caption(item: Any, base: Path, where: str) -> Row:
    if not isinstance(item, dict) or not {"image", "caption"} <= item.keys():
        return bad_row(where, f"no image and caption: {str(item)[:80]}")
    image, caption = item["image"], item["caption"]
    if not isinstance(image, str) or not isinstance(caption, str):
        return bad_row(where, f"image and caption must be text: {str(item)[:80]}")
    return media_row(caption, base, image, where)


def _turns(item: Any) -> tuple[tuple[str, str], ...]:
    """The turns of one JSON object. Raises ValueError, also where the assistant is not last."""
    if isinstance(item, str):
        return (("assistant", item.strip()),)
    if not isinstance(item, dict):
        raise ValueError(f"needs an object, found {str(item)[:80]}")
    if "messages" in item or "conversations" in item:
        listed = item.get("messages", item.get("conversations"))
        if not isinstance(listed, list) or not listed:
            raise ValueError("an empty conversation")
        turns = tuple(turn_of(part) for part in listed)
    elif "text" in item:
        turns = (("assistant", item["text"]),)
    else:
        asked = next((item[key] for key in QUESTIONS if key in item), None)
        answered = next((item[key] for key in ANSWERS if key in item), None)
        turns = (("user", asked), ("assistant", answered))
    if not all(isinstance(said, str) for _, said in turns):
        raise ValueError(
            "needs text, or question and answer, or messages, each of them text; "
            f"found {', '.join(map(str, item))}"
        )
    if turns[-1][0] != "assistant":
        raise ValueError(f"the last turn is the {turns[-1][0]}'s, not the assistant's")
    return tuple((role, str(said).strip()) for role, said in turns)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines that are not blank. Only line feeds part them, unlike `str.splitlines`, which
    also cuts at characters that belong to a text (U+2028, U+0085)."""
    lines = enumerate(read_text(path).split("\n"), 1)
    return [(number, line) for number, line in lines if line.strip()]
