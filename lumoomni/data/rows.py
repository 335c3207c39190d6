"""A row of a data set, and what all layouts share: names, places, turns, and reading a listing.

Knows: what makes a row unusable before its media are looked at.
Does not know: layouts. Costs: nothing but the listing's own bytes.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumoomni.config import nearest
from lumoomni.errors import InputError

ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
EMPTY = "empty text"


@dataclass(frozen=True)
class Row:
    """One sample: the text that is learned, the turns before it, its media file if any.

    `where` is the place in the listing. `asset` is what must not stand on both sides of a split:
    the media file relative to the data set, or the words that open the conversation.
    `problem` says why the row cannot be used; it is empty for a good one.
    """

    text: str
    where: str
    asset: str
    media: Path | None = None
    before: tuple[tuple[str, str], ...] = ()
    problem: str = ""


def printable(text: str) -> str:
    """Text that can be printed and hashed: bytes of a name that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def media_row(
    text: str,
    base: Path,
    name: str,
    where: str,
    problem: str = "",
    before: tuple[tuple[str, str], ...] = (),
) -> Row:
    """Two spellings of one path ("a.wav", "./a.wav") are one asset, wherever the data lies."""
    name = name.strip()
    if not name:
        problem = problem or "no file is named"
        row = Row(text.strip(), where, printable(where), before=before, problem=problem)
    else:
        asset = printable(Path(os.path.normpath(name)).as_posix())
        row = Row(text.strip(), where, asset, base / name, before, problem)
    return judged(row)


def judged(row: Row) -> Row:
    """The row with what is wrong with its text, and a place that can be printed."""
    problem = row.problem or ("" if row.text else EMPTY)
    spoken = (row.text, *(said for _, said in row.before))
    if not problem and any(said != printable(said) for said in spoken):
        problem = "half a surrogate pair in the text"
    return Row(row.text, printable(row.where), row.asset, row.media, row.before, printable(problem))


def turn_of(part: Any) -> tuple[str, Any]:
    """{"role", "content"} or {"from", "value"}."""
    if not isinstance(part, dict):
        raise ValueError(f"a turn must be an object, found {str(part)[:80]}")
    role = part.get("role", part.get("from"))
    known = {**ROLES, "system": "system"}
    if not isinstance(role, str) or role not in known:
        raise ValueError(f"unknown role {role!r}; {nearest(str(role), known)}")
    return known[role], part.get("content", part.get("value"))


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{printable(str(path))} is not UTF-8 (byte {error.start:,}: {error.reason}); "
            "convert it"
        ) from error
    except OSError as error:
        raise InputError(
            f"{printable(str(path))} cannot be read ({error.strerror}); check its permissions"
        ) from error
