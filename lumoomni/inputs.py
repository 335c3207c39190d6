"""What a stage reads besides its parents: files that its settings name, and whether they changed.

Knows: settings that hold a path, alone or as `FORM:PATH?OPTIONS`. Does not know: any form.
Costs: files up to SMALL bytes are read once and hashed; of larger ones, and of whatever lies in a
folder, names and sizes count, so that a folder of a million pictures takes seconds.

Media beside a listing are the listing's affair: their names stand in it.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lumoomni.config import to_dict

SMALL = 256_000_000
SPEC = re.compile(r"(?:[a-z0-9_-]+[:=])*(?P<path>[^?]+)(?:\?.*)?", re.IGNORECASE)


def fingerprints(config: Any) -> dict[str, str]:
    """Each path that a config names and that is there, with a hash of what it holds."""
    return {str(path): fingerprint(path) for path in sorted(set(_paths(to_dict(config))))}


def fingerprint(path: Path) -> str:
    """SHA-256 of a small file; of a large one its size, of a folder all names and sizes."""
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        lines = (f"{p.relative_to(path).as_posix()}\t{p.stat().st_size}\n" for p in inside)
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    size = path.stat().st_size
    if size > SMALL:
        return f"{size} bytes"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _paths(one)
    elif isinstance(value, list):
        for one in value:
            yield from _paths(one)
    elif isinstance(value, str) and "/" in value and "://" not in value:
        match = SPEC.fullmatch(value)
        path = Path(match["path"]) if match else None
        if path is not None and path.exists():
            yield path
