"""WebDataset tar shards to plain rows: samples are members that share a name up to its first dot.

Knows: a picture beside `.txt`, or beside `.json` with a caption, a text or LLaVA's conversations;
shards as one tar, a folder of them, or `train-{000000..000012}.tar`; their usual defects.
Does not know: compressed tars, which cannot be read by seek. Needs no extraction: pictures are read
where they lie.
Costs: one pass over the headers of each shard and its texts, about 0.2 ms a sample; a picture costs
one seek, and no more of it is held than 100 bytes.
"""

import io
import itertools
import json
import math
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lumoomni.data.marks import Talk, talk
from lumoomni.data.rows import Row, bad_row, pictures_row, printable
from lumoomni.data.stored import Window, identity
from lumoomni.data.watched import watched
from lumoomni.errors import InputError

PICTURES = ("jpg", "jpeg", "png", "webp")
MOST_SHARDS = 100_000
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True, slots=True)
class Member:
    """Bytes `start` to `start + size` of a shard."""

    shard: Path
    name: str
    start: int
    size: int

    @property
    def container(self) -> Path:
        return self.shard

    def open(self) -> BinaryIO:
        file = self.shard.open("rb", buffering=0)

        def fetch(start: int, count: int) -> bytes:
            file.seek(self.start + start)
            return file.read(count)

        return io.BufferedReader(Window(self.size, fetch, file))

    def __str__(self) -> str:
        return printable(f"{self.shard}:{self.name}")


def read_webdataset(path: Path, root: Path | None) -> list[Row]:
    """A row a sample, shard by shard; several pictures of one sample come in the shard's order.

    Raises InputError for shards that are missing, cut off or compressed: how many samples are lost
    there is not known.
    """
    if root is not None:
        raise InputError(f"the pictures of {path} lie in its shards; leave image_root out")
    shards = shards_of(path)
    rows: list[Row] = []
    damaged: list[str] = []
    for shard in watched(shards, "reading shards", "shard"):
        samples: dict[str, list[Member]] = {}
        damage = _index(shard, samples)
        if damage:
            damaged.append(printable(f"{shard} {damage}"))
        else:
            rows += [_row(shard, key, members) for key, members in samples.items()]
    if damaged:
        raise InputError(
            f"{len(damaged)} of {len(shards)} shards cannot be read to their end: "
            f"{'; '.join(damaged[:3])}; get whole copies, as plain tar"
        )
    return rows


def shards_of(path: Path) -> list[Path]:
    """The shards of a tar, a folder or a pattern with number ranges. Raises InputError for none."""
    if path.is_dir():
        shards = sorted(one for one in path.glob("*.tar") if not one.name.startswith("."))
        if not shards:
            raise InputError(f"{path} holds no .tar; give the folder of the shards, or a pattern")
        return shards
    ranges = [(first, last) for first, last in RANGE.findall(str(path))]
    if path.is_file() or not ranges:
        shards = [path]
    else:
        counts = [max(0, int(last) - int(first) + 1) for first, last in ranges]
        if not 0 < math.prod(counts) <= MOST_SHARDS:
            raise InputError(
                f"{path} names {math.prod(counts):,} shards; it must be 1 to {MOST_SHARDS:,}, as "
                "in train-{000000..000012}.tar"
            )
        numbers = [
            [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
            for first, last in ranges
        ]
        between = RANGE.sub("\0", str(path)).split("\0")
        shards = [
            Path("".join(itertools.chain(*zip(between, (*chosen, ""), strict=True))))
            for chosen in itertools.product(*numbers)
        ]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(shards)} shards are not there, the first is "
            f"{printable(str(missing[0]))}; check the path"
        )
    return shards


def _index(shard: Path, samples: dict[str, list[Member]]) -> str:
    """Fill in the members by key; say what is wrong with the shard, or nothing."""
    offset = 0
    try:
        with tarfile.open(shard, "r:", encoding="utf-8") as tar:
            while (info := tar.next()) is not None:
                offset = info.offset
                key = _key(info.name)
                if key and info.isreg() and not info.issparse():
                    member = Member(shard, info.name, info.offset_data, info.size)
                    samples.setdefault(key, []).append(member)
            offset = tar.offset
        with shard.open("rb") as file:
            # `tarfile` takes a damaged or missing header for the end: the true end is zeros.
            file.seek(offset)
            if file.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE:
                return ""
            return f"has no end mark (its last header, at byte {offset:,}, is damaged or cut off)"
    except (tarfile.TarError, OSError) as error:
        return f"is damaged, cut off or compressed at byte {offset:,} ({error})"


def _key(name: str) -> str:
    """The folder and the name up to its first dot; empty for a hidden member, or without a dot."""
    folder, _, base = name.rpartition("/")
    stem, dot, _ = base.partition(".")
    return f"{folder}/{stem}".removeprefix("/") if stem and dot else ""


def _row(shard: Path, key: str, members: list[Member]) -> Row:
    where = f"{shard}:{key}"
    names = [member.name.lower() for member in members]
    twice = next((name for name in names if names.count(name) > 1), "")
    pictures = [one for one in members if _ending(one).rpartition(".")[2] in PICTURES]
    try:
        if twice:
            raise ValueError(f"{names.count(twice)} members have the name {twice}")
        if not pictures:
            kinds = ", ".join(f".{kind}" for kind in PICTURES)
            raise ValueError(f"no picture ({kinds}) among {', '.join(names)}")
        said = _said({_ending(one): one for one in members}, len(pictures))
        *before, (_, answer) = said.turns
        assets = [identity(picture) for picture in pictures]
        return pictures_row(
            answer, pictures, assets, where, before=tuple(before), places=said.places
        )
    except (ValueError, RecursionError, OSError) as error:
        return bad_row(where, str(error))


def _ending(member: Member) -> str:
    return member.name.rpartition("/")[2].partition(".")[2].lower()


def _said(members: dict[str, Member], pictures: int) -> Talk:
    """What is said about the pictures. Raises ValueError where nothing is."""
    data = json.loads(_text(members["json"])) if "json" in members else {}
    if not isinstance(data, dict):
        raise ValueError(f"the .json holds no object: {str(data)[:80]}")
    if "conversations" in data:
        return talk(data["conversations"], pictures)
    if pictures > 1:
        raise ValueError(f"{pictures} pictures and no conversation that says where they stand")
    if "txt" in members:
        return Talk((("assistant", _text(members["txt"])),))
    text = data.get("caption", data.get("text"))
    if text is None:
        raise ValueError("no text: neither .txt, nor .json with caption, text or conversations")
    if not isinstance(text, str):
        raise ValueError(f"the caption must be text: {str(text)[:80]}")
    return Talk((("assistant", text),))


def _text(member: Member) -> str:
    with member.open() as file:
        try:
            return file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{Path(member.name).name} is not UTF-8 (byte {error.start:,})"
            ) from error
