"""The audit of a tokenized data set: everything that can be measured of a folder of shards.

Knows: what is measured, in which order, and what each measure needs (rows alone; codecs and the
manifest; a Thinker). Does not know: what is good enough (`stages/tokenize.py`).
Costs: every byte twice, `sample` encodings and decodings a kind, and one batch.

What could not be measured is not in the report, so that no gate passes by accident; a note says
why.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumoomni.audits.dataset_codes import code_metrics
from lumoomni.audits.dataset_rows import (
    Opened,
    file_metrics,
    length_metrics,
    near_metric,
    open_rows,
    row_metrics,
    split_metrics,
)
from lumoomni.audits.dataset_smoke import smoke_metrics
from lumoomni.data.shard_set import INDEX, ShardSet
from lumoomni.data.storage import join, read_bytes, sha256
from lumoomni.errors import InputError
from lumoomni.gates import Metric, Report, exact, wilson
from lumoomni.model.thinker import Thinker
from lumoomni.uti.interface import UTI
from lumoomni.uti.space import TokenSpace
from lumoomni.uti.space_file import space_of


@dataclass(frozen=True, kw_only=True)
class DatasetAuditConfig:
    """`context` is the longest sequence that training will read; `sample` media of each kind are
    encoded again, `decode` of them decoded; a near duplicate shares `near` of its runs of `run`
    codes."""

    context: int = 1024
    sample: int = 256
    decode: int = 32
    batch: int = 8
    near: float = 0.8
    run: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.context, self.sample, self.decode, self.batch, self.run) < 1:
            raise InputError(
                f"context {self.context}, sample {self.sample}, decode {self.decode}, batch "
                f"{self.batch} and run {self.run} must all be at least 1"
            )


def measure(
    folder: str | Path,
    config: DatasetAuditConfig,
    *,
    uti: UTI | None = None,
    manifest: Path | None = None,
    thinker: Thinker | None = None,
) -> Report:
    """All numbers of a folder of shards, `dataset.*`.

    Without `uti` or `manifest` nothing is said of the codes themselves. Raises InputError for a
    folder that is unfinished, or whose `shards.json` cannot be read.
    """
    index = read_index(folder)
    own = space_of(index["space"], f"{folder}/{INDEX}")
    space = own if uti is None else uti.space
    opened = open_rows(str(folder), _arrows(index))
    notes = dict(list({**opened.changed, **opened.unreadable}.items())[:5])
    metrics = {
        **file_metrics(opened, space.abi),
        "dataset.space": exact(float(own.abi == index["abi"] == space.abi)),
        **row_metrics(opened, space),
        **_losses(index, opened),
    }
    found, said = split_metrics(opened)
    metrics |= found | length_metrics(opened, config.context)
    metrics["dataset.near_duplicates"], near = near_metric(
        opened, n=config.run, at_least=config.near
    )
    notes |= {f"row {i}": one for i, one in enumerate([*said, *near])}
    if uti is not None and manifest is not None:
        metrics |= _codes(opened, uti, manifest, index, config, notes)
    else:
        notes["codes"] = "not compared: that needs the token space and the manifest"
    metrics |= _smoke(folder, space, config, thinker, notes)
    return Report(metrics=metrics, notes=notes)


def read_index(folder: str | Path) -> dict[str, Any]:
    """`shards.json`. Raises InputError for a folder without one, or one that is damaged."""
    where = join(folder, INDEX)
    try:
        index = json.loads(read_bytes(where))
        for name in ("abi", "space", "manifest", "counts", "files"):
            index[name]
        _tables(index)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise InputError(
                f"{folder} has no {INDEX}: it is no folder of shards, or tokenizing is unfinished"
            ) from error
        raise InputError(f"{where} is damaged ({error!r}); tokenize again") from error
    return index


def _tables(index: dict[str, Any]) -> None:
    """Raises TypeError where files or counts are no tables of tables, or rows no number."""
    for name in ("files", "counts"):
        said = index[name]
        if not isinstance(said, dict) or not all(isinstance(one, dict) for one in said.values()):
            raise TypeError(f"{name} is no table of tables")
    for split, one in index["counts"].items():
        if not isinstance(one.get("rows"), int):
            raise TypeError(f"counts.{split}.rows is {one.get('rows')!r}, no number")


def _arrows(index: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: said for name, said in index["files"].items() if name.endswith(".arrow")}


def _losses(index: dict[str, Any], opened: Opened) -> dict[str, Metric]:
    """Records that were left out when the shards were made, of all."""
    bad = sum(len(rows.shard.note.bad) for rows in opened)
    listed = sum(int(one["rows"]) for one in index["counts"].values())
    return {
        "dataset.left_out": wilson(bad, bad + len(opened)),
        "dataset.rows_listed": exact(float(listed == len(opened)), len(opened)),
    }


def _codes(
    opened: Opened,
    uti: UTI,
    manifest: Path,
    index: dict[str, Any],
    config: DatasetAuditConfig,
    notes: dict[str, str],
) -> dict[str, Metric]:
    same = sha256(manifest) == _manifest_hash(index)
    found: dict[str, Metric] = {"dataset.manifest": exact(float(same))}
    try:
        codes, said = code_metrics(
            opened, uti, manifest, count=config.sample, decode=config.decode, seed=config.seed
        )
    except (InputError, ValueError) as error:
        notes["codes"] = f"could not be compared: {error}"
        return found
    notes |= {f"original {i}": one for i, one in enumerate(said)}
    return found | codes


def _manifest_hash(index: dict[str, Any]) -> str:
    said = index["manifest"]
    return str(said.get("sha256", "")) if isinstance(said, dict) else str(said)


def _smoke(
    folder: str | Path,
    space: TokenSpace,
    config: DatasetAuditConfig,
    thinker: Thinker | None,
    notes: dict[str, str],
) -> dict[str, Metric]:
    """The loader refuses what is damaged; that is a number that is missing, not the end."""
    try:
        shards = ShardSet.open(folder, abi=space.abi)
        return smoke_metrics(
            shards,
            split="train",
            context=config.context,
            size=config.batch,
            seed=config.seed,
            thinker=thinker,
        )
    except (InputError, ValueError) as error:
        notes["loader"] = f"gave no batch: {error}"
        return {}
