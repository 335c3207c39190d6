"""`token_space.json`: a token space on disk, and the older form `uti_v1`.

Knows: our schema, and `uti_v1`, whose ends are inclusive too. Does not know: codecs.
Costs: one small file, and a line beside it with its ABI hash.
"""

import datetime
import hashlib
import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from lumoomni.codecs.facts import CodecFacts
from lumoomni.config import from_dict
from lumoomni.errors import InputError
from lumoomni.runtime import atomic_write_json, atomic_write_text
from lumoomni.uti.space import VERSION, Range, TokenSpace, check_ranges

FILE = "token_space.json"
SIDECAR = "token_space.sha256"
LEGACY = "uti_v1"


def save_space(folder: Path, space: TokenSpace, made: dict[str, Any] | None = None) -> None:
    """Write the meaning, its hash, and `made`: paths, devices and the date, outside the hash."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    data = {
        "abi": space.abi,
        "meaning": space.meaning(),
        "encode_only": [codec.kind for codec in space.codecs if not codec.decodes],
        "made": {"at": now, **(made or {})},
    }
    atomic_write_json(folder / FILE, data)
    atomic_write_text(folder / SIDECAR, space.abi + "\n")


def load_space(folder: Path) -> TokenSpace:
    """Read it. Raises InputError when it is damaged, or means another thing than its hash says."""
    path = folder / FILE if folder.is_dir() else folder
    data = _read(path)
    if data.get("version") == LEGACY:
        raise InputError(
            f"{path} is a {LEGACY} space, which names no weights; read it with load_legacy, or "
            "build one anew"
        )
    space = space_of(data.get("meaning"), str(path), data.get("encode_only", ()))
    if space.abi != data.get("abi"):
        raise InputError(
            f"{path} says that its ABI hash is {str(data.get('abi'))[:12]}..., but what it means "
            f"hashes to {space.abi[:12]}...; it was changed by hand, so build it anew"
        )
    return space


def space_of(meaning: Any, where: str, encode_only: Collection[str] = ()) -> TokenSpace:
    """A space from its meaning, which `where` carries. Raises InputError when it is damaged."""
    if not isinstance(meaning, dict) or meaning.get("version") != VERSION:
        found = meaning.get("version") if isinstance(meaning, dict) else None
        raise InputError(f"{where} is of version {found!r}; this program reads {VERSION}")
    try:
        return TokenSpace(
            tokenizer=str(meaning["tokenizer"]),
            ranges=tuple(Range(name=n, start=a, end=b) for n, a, b in meaning["ranges"]),
            specials=tuple((str(name), int(i)) for name, i in meaning["specials"]),
            codecs=tuple(
                replace(
                    from_dict(CodecFacts, one, where="codecs"),
                    decodes=one["kind"] not in encode_only,
                )
                for one in meaning["codecs"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} is damaged: {error!r}") from error


def refuse_other(mine: str, theirs: str, where: str) -> None:
    """Raises InputError unless two ABI hashes are equal; `where` says what carries the second."""
    if mine != theirs:
        raise InputError(
            f"{where} was made in token space {theirs[:12]}..., but this one is {mine[:12]}...; "
            "ids would mean other things, so use the same space or tokenize again"
        )


def load_legacy(path: Path) -> tuple[tuple[Range, ...], dict[str, int], str]:
    """(ranges, specials, file hash) of a `uti_v1` file.

    The hash is that project's: SHA-256 over the whole object with sorted keys and Python's default
    separators, dates included. Raises InputError for ranges that break the rules.
    """
    data = _read(path)
    if data.get("version") != LEGACY:
        raise InputError(f"{path} is of version {data.get('version')!r}, not {LEGACY}")
    try:
        found = [
            (Range(name=name, start=int(one["start"]), end=int(one["end"])), int(one["size"]))
            for name, one in data["ranges"].items()
        ]
        specials = {str(name): int(i) for name, i in data["special_tokens"].items()}
        total, text = int(data["vocab_size_total"]), int(data["text_vocab_size"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error
    found.sort(key=lambda pair: pair[0].start)
    ranges = tuple(one for one, _ in found)
    for one, size in found:
        if one.size != size:
            raise InputError(
                f"{path}: {one.name} runs from {one.start} to {one.end}, ends included, which is "
                f"{one.size} ids, but its size is {size}"
            )
    check_ranges(ranges, specials)
    if (ranges[0].size, ranges[-1].end + 1) != (text, total):
        raise InputError(
            f"{path}: TEXT holds {ranges[0].size} ids and all {ranges[-1].end + 1}, but the file "
            f"says {text} and {total}"
        )
    return ranges, specials, hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}; give the folder of a token space") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no token space but a {type(data).__name__}")
    return data
