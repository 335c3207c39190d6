"""Published picture-and-text listings to plain rows: LLaVA conversations, COCO captions.

Knows: LLaVA-Pretrain (558 K) and LLaVA-Instruct (150 K) JSON, where `<image>` marks the picture's
place, its mix of 665 K with conversations that name no picture, M4-Instruct with several pictures a
conversation, and COCO's images beside annotations; and their known defects.
A row that cannot be used keeps its place and says why in `problem`; nothing is left out here.
Does not know: whether the files are there. Costs: the listing is read once; no picture is opened.
"""

import json
from pathlib import Path
from typing import Any

from lumoomni.data.marks import talk
from lumoomni.data.rows import Row, bad_row, media_row, read_text, text_row
from lumoomni.errors import InputError


def read_llava(path: Path, root: Path | None) -> list[Row]:
    """[{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}, ...]}, ...].

    Ids may be numbers or text. `image` is a name, or a list of names with one `<image>` for each in
    the human's turns. The marks are taken out of the text: one picture stands at the head of the
    conversation, of several each stands where its mark stood. A conversation that names no image
    and has no mark is text alone: a row without media.
    """
    rows = []
    items = _list(path)
    for number in range(len(items)):
        # A listing of a million records is let go of while its rows are made.
        item, items[number] = items[number], None
        where = f"{path}[{number}]"
        if isinstance(item, dict) and "id" in item:
            where += f" id {item['id']}"
        try:
            rows.append(_llava_row(item, root or path.parent, where))
        except ValueError as error:
            rows.append(bad_row(where, str(error)))
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
            rows.append(bad_row(where, f"no caption: {str(note)[:80]}"))
            continue
        name = names.get(str(note.get("image_id")), "")
        problem = "" if name else f"no image has the id {note.get('image_id')}"
        rows.append(media_row(note["caption"], root or path.parent, name, where, problem))
    return rows


def _llava_row(item: Any, base: Path, where: str) -> Row:
    """Raises ValueError for each defect."""
    if not isinstance(item, dict) or not isinstance(item.get("conversations"), list):
        raise ValueError(f"no conversation: {str(item)[:80]}")
    image = item.get("image")
    if image is None:
        *before, (_, answer) = talk(item["conversations"], 0).turns
        return text_row(answer, tuple(before), where)
    names = image if isinstance(image, list) else [image]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"image is {image!r}")
    said = talk(item["conversations"], len(names))
    *before, (_, answer) = said.turns
    return media_row(
        answer, base, names[0], where, "", tuple(before), tuple(names[1:]), said.places
    )


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
