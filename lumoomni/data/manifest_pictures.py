"""Data sets of pictures with captions, and plain folders of pictures and sounds, to drafts.

Knows: LLaVA-Pretrain's JSON, COCO captions and their splits, and a.png or a.wav beside a.txt.
Does not know: whether files can be read. Costs: the listings; a folder's texts are read.
"""

from pathlib import Path

from lumoomni.data.manifest_drafts import PICTURES, SOUNDS, Draft, from_row, walk
from lumoomni.data.readers import read
from lumoomni.data.rows import read_text
from lumoomni.errors import InputError

COCO = {
    "captions_train2014.json": "train2014",
    "captions_val2014.json": "val2014",
    "captions_train2017.json": "train2017",
    "captions_val2017.json": "val2017",
}


def llava_pretrain(path: Path, root: Path | None) -> list[Draft]:
    """blip_laion_cc_sbu_558k.json; ids are places in the listing, since its own may repeat."""
    rows = read("llava", path, root)
    return [
        from_row(row, f"llava_pretrain:{number:07}", "picture") for number, row in enumerate(rows)
    ]


def coco(path: Path, root: Path | None) -> list[Draft]:
    """COCO's own folder (annotations/captions_train2017.json, train2017/), or one of its files.

    Pictures lie in the root, or in {split}/ beside the annotations' folder, or beside the file.
    """
    folder = path / "annotations" if path.is_dir() else path.parent
    names = COCO if path.is_dir() else {path.name: COCO[path.name]} if path.name in COCO else {}
    found = [(folder / name, split) for name, split in names.items() if (folder / name).is_file()]
    if not found:
        raise InputError(
            f"{path} is none of, and holds no annotations/ with, {', '.join(COCO)}; the name tells "
            "the split, so keep it as published"
        )
    drafts = []
    for listing, split in found:
        beside = listing.parent.parent / split
        base = root or (beside if beside.is_dir() else listing.parent)
        for number, row in enumerate(read("coco", listing, base)):
            drafts.append(from_row(row, f"coco:{split}:{number:07}", "picture", split))
    return drafts


def plain_folder(path: Path, root: Path | None) -> list[Draft]:
    """Each picture and sound with the text of its name beside it, in all folders below."""
    if root is not None:
        raise InputError(f"a plain folder has its files in itself; leave {root} away")
    files = walk(path)
    texts = {file.with_suffix("") for file in files if file.suffix == ".txt"}
    drafts, told = [], set()
    for file in files:
        stem, ending = file.with_suffix(""), file.suffix
        if ending.lower() not in (*PICTURES, *SOUNDS):
            continue
        told.add(stem)
        text, problem, detail = _beside(stem, texts)
        drafts.append(
            Draft(
                id=f"folder:{file.relative_to(path).as_posix()}",
                where=str(file),
                kind="picture" if ending.lower() in PICTURES else "sound",
                text=text,
                media=file,
                problem=problem,
                detail=detail,
            )
        )
    for stem in sorted(texts - told):
        name = f"{stem.relative_to(path).as_posix()}.txt"
        problem = "no picture or sound beside it"
        where = f"{stem}.txt"
        drafts.append(Draft(id=f"folder:{name}", where=where, kind="picture", problem=problem))
    return drafts


def _beside(stem: Path, texts: set[Path]) -> tuple[str, str, str]:
    """(text, problem, detail) of a medium without its ending."""
    if stem not in texts:
        return "", "no text file beside it", ""
    try:
        return read_text(Path(f"{stem}.txt")).strip(), "", ""
    except InputError as error:
        return "", "the text cannot be read", str(error)
