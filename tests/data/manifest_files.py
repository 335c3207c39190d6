"""Small files of published layouts, and a manifest built of them."""

import csv
from pathlib import Path

import numpy as np

from lumoomni.data.manifest import Record, read_manifest
from lumoomni.data.manifest_builders import (
    ManifestConfig,
    ManifestReport,
    build_manifest,
)
from lumoomni.media.audio import Audio, save_wav
from lumoomni.media.image import save_png

CLOTHO_COLUMNS = ["file_name", *(f"caption_{k}" for k in range(1, 6))]
AUDIOCAPS_COLUMNS = ["audiocap_id", "youtube_id", "start_time", "caption"]


def wav(path: Path, value: int) -> None:
    """A sound whose bytes tell its value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_wav(path, Audio(np.full(160, value / 1000, np.float32), 16000))


def png(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(path, np.full((4, 4, 3), value, np.uint8))


def table(path: Path, columns: list[str], lines: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *lines])


def built(
    layout: str, path: Path, root: Path | None = None, **settings
) -> tuple[list[Record], ManifestReport]:
    """The records of a manifest, and the report."""
    out = path.parent / "out" / "m.jsonl"
    out.unlink(missing_ok=True)
    report = build_manifest(layout, path, out, root=root, config=ManifestConfig(**settings))
    return list(read_manifest(out)), report


def captions(name: str) -> list[str]:
    return [name, *(f"{name}, said {k}" for k in range(1, 6))]
