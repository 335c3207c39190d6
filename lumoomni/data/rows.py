"""A row of a data set, and what all layouts share: names, places, turns, and reading a listing.

Knows: what makes a row unusable before its media are looked at.
Does not know: layouts. Costs: nothing but the listing's own bytes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lumoomni.config import nearest
from lumoomni.data.stored import Stored
from lumoomni.data.world.language import normalise
from lumoomni.errors import InputError

ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
EMPTY = "empty text"


@dataclass(frozen=True, slots=True)
class Row:
    """One sample: the text that is learned, the turns before it, its media if any.

    `where` is the place in the listing. `asset` is what must not stand on both sides of a split:
    the media file relative to the data set, the identity of a picture inside another file, or the
    words that open the conversation. `others` are the pictures after the first with the assets
    `shared`, and `places` tell where pictures stand, as in `PictureItem`.
    `problem` says why the row cannot be used; it is empty for a good one.
    """

    text: str
    where: str
    asset: str
    media: Path | Stored | None = None
    before: tuple[tuple[str, str], ...] = ()
    problem: str = ""
    others: tuple[Path | Stored, ...] = ()
    shared: tuple[str, ...] = ()
    places: tuple[tuple[int, int], ...] = ()

    @property
    def files(self) -> tuple[Path | Stored, ...]:
        """All media in their order."""
        return () if self.media is None else (self.media, *self.others)

    @property
    def text_only(self) -> bool:
        """Whether this is a good row without media."""
        return not self.problem and self.media is None

    @property
    def assets(self) -> tuple[str, ...]:
        """All that must not stand on both sides of a split."""
        return (self.asset, *self.shared)


def printable(text: str) -> str:
    """Text that can be printed and hashed: bytes of a name that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def bad_row(where: str, problem: str) -> Row:
    """A row that keeps its place and says why it cannot be used."""
    return Row("", printable(where), printable(where), problem=printable(problem))


def media_row(
    text: str,
    base: Path,
    name: str,
    where: str,
    problem: str = "",
    before: tuple[tuple[str, str], ...] = (),
    more: tuple[str, ...] = (),
    places: tuple[tuple[int, int], ...] = (),
) -> Row:
    """Two spellings of one path ("a.wav", "./a.wav") are one asset, wherever the data lies.

    `more` are the names of the pictures after the first.
    """
    names = [one.strip() for one in (name, *more)]
    if not all(names):
        problem = problem or "no file is named"
        row = Row(text.strip(), where, printable(where), before=before, problem=problem)
        return judged(row)
    media = [base / one for one in names]
    assets = [file_asset(one) for one in names]
    return pictures_row(text, media, assets, where, problem, before, places)


def pictures_row(
    text: str,
    media: Sequence[Path | Stored],
    assets: list[str],
    where: str,
    problem: str = "",
    before: tuple[tuple[str, str], ...] = (),
    places: tuple[tuple[int, int], ...] = (),
) -> Row:
    """A row of at least one medium, with the asset of each."""
    row = Row(text.strip(), where, assets[0], media[0], before, problem)
    others, shared = tuple(media[1:]), tuple(assets[1:])
    return judged(replace(row, others=others, shared=shared, places=places))


def text_row(text: str, before: tuple[tuple[str, str], ...], where: str, problem: str = "") -> Row:
    """A row without media: the opening words, however spaced or capitalised, keep a conversation on
    one side."""
    # A system turn is often the same everywhere and would make one asset of a whole data set.
    opening = next((said for role, said in before if role != "system"), text)
    asset = printable(" ".join(opening.split()).casefold()) or where
    if not problem and not all(said for _, said in before):
        problem = "empty question"
    return judged(Row(text.strip(), where, asset, before=before, problem=problem))


def file_asset(name: str) -> str:
    """The asset of a file with this name."""
    return printable(Path(os.path.normpath(name)).as_posix())


def judged(row: Row) -> Row:
    """The row with what is wrong with its text, and a place that can be printed."""
    problem = row.problem or ("" if row.text else EMPTY)
    spoken = (row.text, *(said for _, said in row.before))
    if not problem and any(said != printable(said) for said in spoken):
        problem = "half a surrogate pair in the text"
    return replace(row, where=printable(row.where), problem=printable(problem))


def wordless(text: str) -> str:
    """Why a transcript cannot be heard, or an empty string: the recogniser spells these alone."""
    if normalise(text):
        return ""
    return f"no word with a letter a to z or a digit in {text[:80]!r}"


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
