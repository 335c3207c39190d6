"""Published picture-and-text listings to plain rows: LLaVA conversations, COCO captions.

Knows: LLaVA-Pretrain (558 K) and LLaVA-Instruct (150 K) JSON, where `<image>` marks the picture's
place, and COCO's images beside annotations; and their known defects.
A row that cannot be used keeps its place and says why in `problem`; nothing is left out here.
Does not know: whether the files are there. Costs: the listing is read once; no picture is opened.
"""

import json
from pathlib import Path
from typing import Any

from lumoomni.data.rows import Row, media_row, printable, read_text, turn_of
from lumoomni.errors import InputError

MARK = "<image>"


def read_llava(path: Path, root: Path | None) -> list[Row]:
    """[{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}, ...]}, ...].

    Ids may be numbers or text. A picture needs one `<image>` in one of the human's turns; it is
    taken out of the text, and the picture stands at the head of the conversation.
    """
    rows = []
    for number, item in enumerate(_list(path)):
        where = f"{path}[{number}]"
        if isinstance(item, dict) and "id" in item:
            where += f" id {item['id']}"
        try:
            name, turns = _conversation(item)
        except ValueError as error:
            rows.append(Row("", printable(where), printable(where), problem=printable(str(error))))
            continue
        rows.append(media_row(turns[-1][1], root or path.parent, name, where, before=turns[:-1]))
    return rows


def read_coco(path: Path, root: Path | None) -> list[Row]:
    """{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}: a row a caption.

    Raises InputError for another file, for example instances or key points.
    """
    data = _json(path)
    if not isinstance(data, dict) or not {"images", "annotations"} <= data.keys():
        raise InputError(f"{path} has no images and annotations; give COCO's captions_*.json")
    names = {
        str(image["id"]): str(image["file_name"])
        for image in data["images"]
        if isinstance(image, dict) and {"id", "file_name"} <= image.keys()
    }
    rows = []
    for number, note in enumerate(data["annotations"]):
        where = f"{path} annotation {number}"
        if not isinstance(note, dict) or not isinstance(note.get("caption"), str):
            problem = printable(f"no caption: {str(note)[:80]}")
            rows.append(Row("", printable(where), printable(where), problem=problem))
            continue
        name = names.get(str(note.get("image_id")), "")
        problem = "" if name else f"no image has the id {note.get('image_id')}"
        rows.append(media_row(note["caption"], root or path.parent, name, where, problem))
    return rows


def _conversation(item: Any) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The picture's name and the turns without its mark. Raises ValueError for each defect."""
    if not isinstance(item, dict) or not isinstance(item.get("conversations"), list):
        raise ValueError(f"no conversation: {str(item)[:80]}")
    name = item.get("image")
    if not isinstance(name, str) or not name:
        raise ValueError("text alone: no image is named" if name is None else f"image is {name!r}")
    turns = [turn_of(part) for part in item["conversations"]]
    if not turns or not all(isinstance(text, str) for _, text in turns):
        raise ValueError("an empty conversation, or a turn without text")
    marks = sum(text.count(MARK) for role, text in turns if role == "user")
    if marks != 1:
        raise ValueError(f"{marks} {MARK} marks for 1 image")
    if any(MARK in text for role, text in turns if role != "user"):
        raise ValueError(f"an answer says {MARK}")
    spoken = [turn for turn in turns if turn[0] != "system"]
    if [role for role, _ in spoken] != ["user", "assistant"] * (len(spoken) // 2):
        raise ValueError(f"turns of {', '.join(role for role, _ in turns)}: not by turns")
    kept = tuple((role, text.replace(MARK, "").strip()) for role, text in turns)
    if not all(text for role, text in kept if role == "assistant"):
        raise ValueError("empty answer")
    return name, kept


def _list(path: Path) -> list[Any]:
    data = _json(path)
    if not isinstance(data, list):
        raise InputError(f"{path} is no JSON list; give LLaVA's own JSON file")
    return data


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
