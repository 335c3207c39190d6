"""A small token space and a manifest of sounds and texts, for the tests of shards."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from lumoomni.data.manifest import Asset, Record, write_manifest
from lumoomni.data.tokenize_run import Finished, tokenize
from lumoomni.infer.tokens import build_tokens
from lumoomni.media.audio import Audio, save_wav
from tests.tiny import write_model

ROWS = 8


def write_space(root: Path) -> Path:
    """Text and the speech codec, untrained."""
    build_tokens(write_model(root / "model"), root / "space")
    return root / "space"


def sound(folder: Path, number: int) -> Asset:
    """A tenth to half a second of noise."""
    stream = np.random.default_rng(number)
    count = int(16000 * stream.uniform(0.1, 0.5))
    samples = (0.1 * stream.standard_normal(count)).astype(np.float32)
    save_wav(folder / f"{number}.wav", Audio(samples, 16000))
    return asset(folder / f"{number}.wav")


def asset(path: Path) -> Asset:
    """By its name in the manifest's folder, and its hash."""
    return Asset(path=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def records(folder: Path, count: int = 40) -> list[Record]:
    """Every fifth is text alone; every tenth is of the split eval."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for i in range(count):
        heard = None if i % 5 == 4 else sound(folder, i)
        found.append(
            Record(
                id=f"r{i:03d}",
                source="noise",
                task="text" if heard is None else ("a2t", "t2a")[i % 2],
                text=f"a red circle, number {i} é",
                prompt="what is said?" if i % 3 == 0 else "",
                audio=heard,
                split="eval" if i % 10 == 0 else "train",
                official="dev" if i % 10 == 0 else "",
                licence="CC0-1.0",
            )
        )
    return found


def write_records(folder: Path, count: int = 40) -> Path:
    """Their manifest."""
    path = folder / "manifest.jsonl"
    write_manifest(path, records(folder, count), source="noise")
    return path


def write_world(root: Path) -> Path:
    """A space, 40 records, and their shards in `whole`, made without disturbance."""
    write_space(root)
    write_records(root / "data")
    run(root, root / "whole")
    return root


def run(world: Path, out: Path | str, **options: Any) -> Finished:
    """Tokenize the records of a world, or of another `manifest`."""
    manifest = options.pop("manifest", world / "data/manifest.jsonl")
    options = {"rows_per_shard": ROWS, **options}
    return tokenize(manifest, world / "space", out, **options)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, drafts too."""
    return {
        one.relative_to(folder).as_posix(): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in sorted(folder.rglob("*"))
        if one.is_file()
    }
