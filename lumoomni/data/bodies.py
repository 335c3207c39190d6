"""Is each media file whole, to its end? Looked at before training, not in the middle of it.

Knows: decoding, threads, and a note of what was found, so that one data set is read once.
Does not know: layouts, splits or how many may be damaged.
Costs: 3 ms for six seconds of sound, 6 ms for a photo, on as many cores as there are; nothing for
files that were looked at before and have not changed (`$XDG_CACHE_HOME/lumoomni`).
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lumoomni.config import canonical_json
from lumoomni.data.cut_off import cut_off
from lumoomni.data.headers import Kind
from lumoomni.data.rows import Row, printable
from lumoomni.data.stored import Stored, load_picture
from lumoomni.data.watched import watched
from lumoomni.errors import InputError
from lumoomni.media.audio import load_audio
from lumoomni.runtime import atomic_write_text

GROUP = 256
"""Files that are handed out at once."""


def whole(rows: list[Row], kind: Kind) -> tuple[list[Row], list[str]]:
    """(rows whose files can be decoded to their ends, why the others cannot be used)."""
    bad = damaged((file for row in rows for file in row.files), kind)
    good: list[Row] = []
    problems: list[str] = []
    for row in rows:
        reason = next((bad[name] for name in map(str, row.files) if name in bad), "")
        if reason:
            problems.append(printable(f"{row.where}: {reason}"))
        else:
            good.append(row)
    return good, problems


def damaged(files: Iterable[Path | Stored], kind: Kind) -> dict[str, str]:
    """Why a file cannot be decoded, by its name, of all that cannot."""
    every = list({str(one): one for one in files}.values())
    note = _place(every, kind)
    noted = _noted(note)
    if noted is not None:
        # What was bad is looked at again: a disk may have answered since, and decoders learn.
        every = [one for one in every if str(one) in noted]
    look = {"picture": load_picture, "sound": whole_sound}[kind]
    groups = [every[start : start + GROUP] for start in range(0, len(every), GROUP)]
    bad: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="looking") as pool:
        for group in watched(groups, f"reading every {kind}", f"{GROUP} files"):
            bad |= _bad(group, pool, look)
    if bad != noted:
        with contextlib.suppress(OSError):  # a home that cannot be written to costs another look
            note.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_text(note, json.dumps(bad))
    return bad


def whole_sound(media: Path) -> None:
    """Decode a sound. Raises InputError where that fails, or ends before its header says."""
    heard = load_audio(media)
    reason = cut_off(media, len(heard.samples) / heard.rate)
    if reason:
        raise InputError(f"{media} {reason}; get a whole copy")


def _noted(note: Path) -> dict[str, str] | None:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(note.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return None


def _bad(
    group: Sequence[Path | Stored], pool: ThreadPoolExecutor, look: Callable[..., Any]
) -> dict[str, str]:
    def problem(media: Path | Stored) -> str:
        try:
            look(media)
        except InputError as error:
            return str(error)
        except OSError as error:
            return f"{media} cannot be read ({error})"
        return ""

    found = zip(group, pool.map(problem, group), strict=True)
    return {str(media): reason for media, reason in found if reason}


def _place(files: Sequence[Path | Stored], kind: Kind) -> Path:
    """Where it is noted what was found of these files, as they are now."""
    known = hashlib.sha256(kind.encode())
    for one in sorted(map(_state, files)):
        known.update(canonical_json(one).encode())
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "lumoomni" / "bodies" / f"{known.hexdigest()}.json"


def _state(media: Path | Stored) -> list[str]:
    """Name, size and time of a file, or of the one that it lies in."""
    name = str(media).encode("utf-8", "backslashreplace").decode()
    own = media if isinstance(media, Path) else media.container
    try:
        found = own.stat()
        times = [str(found.st_size), str(found.st_mtime_ns)]
    except OSError:
        times = ["absent"]
    return [name, *times] if isinstance(media, Path) else [name, str(media.size), *times]
