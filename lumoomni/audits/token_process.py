"""Encoding in another process: what a codec gives there, opened anew from its folder.

Knows: how media go over and codes come back, as files. Does not know: what they are compared with.
Costs: a new interpreter and the codecs' weights, a few seconds.

    python -m lumoomni.audits.token_process FOLDER EXCHANGE
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lumoomni.codecs.facts import Coded, Kind
from lumoomni.codecs.stored import load_codecs
from lumoomni.codecs.text import TextCodec
from lumoomni.runtime import atomic_write_json
from lumoomni.uti.folder import TOKENIZER

ASKED, CODES, FACTS = "asked.npz", "codes.npz", "facts.json"


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Codes of each kind, ids of each text, and what each codec there says that it is.

    `problem` says why there are none.
    """

    coded: Mapping[Kind, list[Coded]]
    texts: list[list[int]]
    facts: Mapping[Kind, dict[str, Any]]
    problem: str = ""


def encode_elsewhere(
    folder: Path, media: Mapping[Kind, Sequence[np.ndarray]], texts: Sequence[str]
) -> Elsewhere:
    """Encode in a new process, which opens `folder` itself and has another hash seed."""
    with tempfile.TemporaryDirectory(prefix="lumo-audit-") as name:
        exchange = Path(name)
        arrays = {f"{kind}.{i}": one for kind, many in media.items() for i, one in enumerate(many)}
        np.savez(exchange / ASKED, **arrays)  # type: ignore[arg-type]
        counts = {kind: len(many) for kind, many in media.items()}
        atomic_write_json(exchange / FACTS, {"counts": counts, "texts": list(texts)})
        command = [sys.executable, "-m", "lumoomni.audits.token_process", str(folder), name]
        ended = subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": "7"},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            problem = f"the other process ended with {ended.returncode}: {last}"
            return Elsewhere(coded={}, texts=[], facts={}, problem=problem)
        said = json.loads((exchange / FACTS).read_text())
        with np.load(exchange / CODES, allow_pickle=False) as codes:
            coded: dict[Kind, list[Coded]] = {
                kind: [Coded(codes[f"{kind}.{i}"], side) for i, side in enumerate(sides)]
                for kind, sides in said["sides"].items()
            }
    return Elsewhere(coded=coded, texts=said["texts"], facts=said["facts"])


def answer(folder: Path, exchange: Path) -> None:
    """The other side: encode what was asked, one by one, and write what came out."""
    asked = json.loads((exchange / FACTS).read_text())
    codecs = load_codecs(folder)
    text = TextCodec.load(folder / TOKENIZER)
    sides: dict[str, list[dict[str, Any]]] = {}
    codes: dict[str, np.ndarray] = {}
    with np.load(exchange / ASKED, allow_pickle=False) as arrays:
        for kind, count in asked["counts"].items():
            made = [codecs[kind].encode(arrays[f"{kind}.{i}"]) for i in range(count)]
            sides[kind] = [one.side for one in made]
            codes |= {f"{kind}.{i}": one.codes for i, one in enumerate(made)}
    np.savez(exchange / CODES, **codes)  # type: ignore[arg-type]
    facts = {kind: codec.facts.meaning() for kind, codec in codecs.items()}
    texts = [text.encode(one) for one in asked["texts"]]
    atomic_write_json(exchange / FACTS, {"sides": sides, "facts": facts, "texts": texts})


if __name__ == "__main__":
    answer(Path(sys.argv[1]), Path(sys.argv[2]))
