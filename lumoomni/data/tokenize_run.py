"""A manifest to a folder of shards: what is there already is kept, the rest is made, then sealed.

Knows: slices, which shards are still right, the bound on bad records, the order of writing.
Does not know: codecs or how engines work. Costs: what is there is read once more on each run.

`shards.json` comes last and in one piece: a folder without it is unfinished and never opens. All
writing is done here, by one process; what a kill leaves behind is swept by the next run. Nothing
written depends on dates, paths, engines or the number of workers.
"""

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from lumoomni.codecs.facts import Kind
from lumoomni.config import canonical_json, nearest
from lumoomni.data import storage
from lumoomni.data.engines import ENGINES, Crew, exact_threads
from lumoomni.data.manifest import Record, read_manifest
from lumoomni.data.shard_set import ERRORS, INDEX
from lumoomni.data.shards import SCHEMA, Bad, Counts, Shard, intact, listed, pyarrow
from lumoomni.data.tokenizing import Job, policy, still_bad
from lumoomni.errors import GateFailure, InputError
from lumoomni.runtime import Progress, stop_on_interrupt
from lumoomni.uti.space import TokenSpace
from lumoomni.uti.space_file import load_space

SHARD = "{}/shard-{:05d}.arrow"
OURS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*/shard-\d{5,}\.arrow")
DRAFT = re.compile(r"(.+/)?\.(shard-\d{5,}\.arrow|shards\.json|errors\.jsonl)\.[A-Za-z0-9_]+")
KINDS: tuple[Kind, ...] = ("image", "audio")


@dataclass(frozen=True)
class Finished:
    """Where the shards are, what is in them by split, how many shards were there already, and the
    hash of `shards.json`, which stands for all of it."""

    folder: str
    counts: dict[str, Counts]
    shards: int
    kept: int
    hash: str


@dataclass(frozen=True)
class _Plan:
    jobs: tuple[Job, ...]
    space: TokenSpace
    index: dict[str, Any]
    """What `shards.json` says before anything is made."""

    @property
    def records(self) -> int:
        return sum(len(job.records) for job in self.jobs)


@dataclass(frozen=True)
class _Shard:
    """What `shards.json` says of a shard, and its bad records."""

    entry: dict[str, Any]
    counts: Counts
    bad: tuple[Bad, ...]


def tokenize(
    manifest: str | Path,
    uti_folder: str | Path,
    out: str | Path,
    *,
    workers: int = 1,
    engine: str = "processes",
    address: str = "",
    max_bad: float = 0.05,
    rows_per_shard: int = 1000,
    progress: Progress | None = None,
) -> Finished:
    """Make what is missing of the shards of a manifest in `out`, a folder or a URL.

    Raises InputError for what cannot be used; GateFailure when more than `max_bad` of the records
    are bad, or when no row is left; Interrupted when asked to stop. In each case nothing that was
    made is lost, and nothing opens as finished.
    """
    _check(workers, engine, max_bad, rows_per_shard)
    pyarrow()
    progress, out = progress or Progress(silent=True), str(out)
    plan = _plan(Path(manifest), Path(uti_folder), rows_per_shard)
    _refuse_others(out, plan)
    done = {job.name: kept for job in plan.jobs if (kept := _kept(out, job)) is not None}
    missing = [job for job in plan.jobs if job.name not in done]
    count = len(done)
    if missing:
        _sweep(out, {*done})
        start = plan.records - sum(len(job.records) for job in missing)
        with (
            stop_on_interrupt() as stop,
            progress.task("tokenize", total=plan.records, unit="sample", start=start) as bar,
        ):
            crew = Crew(
                space=str(Path(uti_folder).absolute()),
                stop=stop,
                tick=lambda n: bar.update(n, shards=len(done)),
                workers=workers,
                address=address,
            )
            with contextlib.closing(ENGINES[engine](missing, crew)) as shards:
                for made in shards:
                    storage.write_bytes(storage.join(out, made.job.name), made.data)
                    done[made.job.name] = _facts(made.data, made.job)
                    _bound(out, plan, done, max_bad)
    _bound(out, plan, done, max_bad)
    return _seal(out, plan, done, count)


def _check(workers: int, engine: str, max_bad: float, rows_per_shard: int) -> None:
    if engine not in ENGINES:
        raise InputError(f"there is no engine {engine!r}; {nearest(engine, ENGINES)}")
    if min(workers, rows_per_shard) < 1:
        raise InputError(
            f"{workers} workers and {rows_per_shard} rows a shard; both must be at least 1"
        )
    if not 0 <= max_bad <= 1:
        raise InputError(f"max_bad is {max_bad}; it is a share, from 0 to 1")


def _plan(manifest: Path, uti_folder: Path, rows_per_shard: int) -> _Plan:
    """Slices of each split in the order of ids. Raises InputError for records without a split, or
    with media that the space has no codec for."""
    space = load_space(uti_folder)
    with exact_threads():
        how = policy()
    splits: dict[str, list[Record]] = {}
    for record in read_manifest(manifest):
        if not record.split:
            raise InputError(f"{manifest}: {record.id} has no split; give each record one")
        for kind in KINDS:
            if getattr(record, kind) is not None:
                space.codec(kind)
        splits.setdefault(record.split, []).append(record)
    if not splits:
        raise InputError(f"{manifest} holds no record; there is nothing to tokenize")
    jobs = [
        Job(SHARD.format(split, number), str(manifest.absolute()), tuple(part), space.abi, how)
        for split, records in sorted(splits.items())
        for number, part in enumerate(_slices(sorted(records, key=_id), rows_per_shard))
    ]
    index = {
        "schema": SCHEMA,
        "abi": space.abi,
        "space": space.meaning(),
        "manifest": storage.sha256(manifest),
        "codec": how,
        "rows_per_shard": rows_per_shard,
    }
    return _Plan(tuple(jobs), space, index)


def _id(record: Record) -> str:
    return record.id


def _slices(records: list[Record], size: int) -> Iterator[list[Record]]:
    return (records[i : i + size] for i in range(0, len(records), size))


def _refuse_others(out: str, plan: _Plan) -> None:
    """Raises InputError for a folder with files that are not ours, or finished shards of another
    plan: neither may be overwritten."""
    if not storage.is_url(out) and storage.local(out).is_file():
        raise InputError(f"{out} is a file; give a folder for the shards")
    files = storage.listing(out)
    strange = [name for name in files if not _is_ours(name)]
    if strange:
        raise InputError(
            f"{out} holds {strange[0]}, which tokenizing did not make; give a new folder"
        )
    if INDEX not in files:
        return
    try:
        there = json.loads(storage.read_bytes(storage.join(out, INDEX)))
        other = [name for name, value in plan.index.items() if there.get(name) != value]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{out}/{INDEX} is damaged ({error}); remove it to continue") from error
    if other:
        raise InputError(
            f"{out} holds finished shards with another {', '.join(other)}; give a new folder, or "
            "remove this one"
        )


def _is_ours(name: str) -> bool:
    return name in (INDEX, ERRORS) or bool(OURS.fullmatch(name) or DRAFT.fullmatch(name))


def _kept(out: str, job: Job) -> _Shard | None:
    """A shard that is there and is, to the byte, what the job makes; None where it must be made."""
    path = storage.join(out, job.name)
    if not storage.exists(path):
        return None
    data = storage.read_bytes(path)
    if not intact(data):
        return None
    shard = Shard(pyarrow().py_buffer(data), path)
    if shard.note.inputs != job.inputs:
        return None
    return _facts(data, job) if still_bad(job, shard.note.bad) else None


def _facts(data: bytes, job: Job) -> _Shard:
    shard = Shard(pyarrow().py_buffer(data), job.name)
    return _Shard(listed(data, shard), shard.counts, shard.note.bad)


def _sweep(out: str, keep: set[str]) -> None:
    """Take away the seal first, then all that is not kept."""
    storage.remove(storage.join(out, INDEX))
    for name in storage.listing(out):
        if name not in keep:
            storage.remove(storage.join(out, name))


def _bound(out: str, plan: _Plan, done: dict[str, _Shard], max_bad: float) -> None:
    """Raises GateFailure, with the bad records written down, once there are too many.

    Only shards before which none is missing count, so that the same are named in any order of work.
    """
    if sum(len(shard.bad) for shard in done.values()) <= max_bad * plan.records:
        return
    first = itertools.takewhile(lambda job: job.name in done, plan.jobs)
    bad: list[Bad] = []
    for job in first:
        bad += done[job.name].bad
        if len(bad) > max_bad * plan.records:
            break
    else:
        return
    storage.remove(storage.join(out, INDEX))
    storage.write_bytes(storage.join(out, ERRORS), _errors(bad))
    raise GateFailure(
        f"{len(bad)} of {plan.records} records cannot be used, at most {max_bad:.1%} may; the "
        f"first is {bad[0].id} ({bad[0].path}): {bad[0].reason}; all are in {out}/{ERRORS}, repair "
        "them or raise --max-bad, and run the same command to continue"
    )


def _errors(bad: list[Bad]) -> bytes:
    rows = sorted(bad, key=lambda one: (one.id, one.path))
    lines = [canonical_json({"id": b.id, "path": b.path, "reason": b.reason}) for b in rows]
    return "".join(line + "\n" for line in lines).encode()


def _seal(out: str, plan: _Plan, done: dict[str, _Shard], kept: int) -> Finished:
    """Errors, then `shards.json`; left alone where they say the same already."""
    shards = [done[job.name] for job in plan.jobs]
    counts: dict[str, Counts] = {}
    for job, shard in zip(plan.jobs, shards, strict=True):
        split = job.records[0].split
        counts[split] = counts.get(split, Counts()) + shard.counts
    total = reduce(lambda a, b: a + b, counts.values())
    errors = _errors([bad for shard in shards for bad in shard.bad])
    if not total.rows:
        storage.write_bytes(storage.join(out, ERRORS), errors)
        raise GateFailure(f"none of {plan.records} records can be used; see {out}/{ERRORS}")
    files = {job.name: done[job.name].entry for job in plan.jobs}
    files[ERRORS] = {
        "sha256": hashlib.sha256(errors).hexdigest(),
        "bytes": len(errors),
        "rows": total.bad,
        "tokens": 0,
    }
    said = {name: asdict(one) for name, one in counts.items()}
    index = {**plan.index, "counts": said, "files": dict(sorted(files.items()))}
    data = (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
    for name, wanted in ((ERRORS, errors), (INDEX, data)):
        path = storage.join(out, name)
        if not storage.exists(path) or storage.read_bytes(path) != wanted:
            storage.write_bytes(path, wanted)
    _sweep_drafts(out, files)
    return Finished(out, counts, len(shards), kept, hashlib.sha256(data).hexdigest())


def _sweep_drafts(out: str, files: dict[str, Any]) -> None:
    """What a kill left behind after the last shard, and shards of fewer rows."""
    for name in storage.listing(out):
        if name not in files and name != INDEX:
            storage.remove(storage.join(out, name))
