"""One slice of a manifest to one shard: read media, check their hashes, encode, name what is bad.

Knows: a token space's codecs, the manifest's records, what makes codes the same every time.
Does not know: other slices, workers, or where the shard goes.
Costs: the codecs' own; the next files are fetched while these are encoded (ahead.py).

The shard depends on the records, the bytes of their media, the codecs and the policy: not on how
many work on others, nor on when or where.
"""

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumoomni.codecs.facts import CodecFacts, Kind
from lumoomni.config import canonical_json
from lumoomni.data.ahead import Found, in_turn
from lumoomni.data.engines import Tick
from lumoomni.data.manifest import FIELDS, Asset, Record, media_path
from lumoomni.data.shards import SCHEMA, Bad, ShardNote, shard_bytes
from lumoomni.data.storage import read_bytes
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio, load_audio
from lumoomni.media.image import load_image
from lumoomni.uti.interface import UTI, TokenSpan
from lumoomni.uti.space import unflatten

GROUP, BULK = 64, 16_000_000
"""Records whose media are encoded together, and bytes of decoded media above which fewer are: codec
by codec, so that weights stay in the cache."""
PACKAGES = (
    "av",
    "numpy",
    "pillow",
    "pyarrow",
    "soundfile",
    "soxr",
    "tokenizers",
    "torch",
    "transformers",
)
"""Any of these may change a code, or a byte of a shard."""
Media = Audio | np.ndarray


@dataclass(frozen=True)
class Job:
    """A slice of a manifest's split, and the name of the shard that is made of it.

    `policy` is `policy()` of the process that asks, which the one that works must share.
    """

    name: str
    manifest: str
    records: tuple[Record, ...]
    abi: str
    policy: dict[str, Any]

    @cached_property
    def inputs(self) -> str:
        """SHA-256 of all that the shard's bytes depend on; media stand by their hashes."""
        said = {
            "schema": SCHEMA,
            "abi": self.abi,
            "policy": self.policy,
            "records": [_said(record) for record in self.records],
        }
        return hashlib.sha256(canonical_json(said).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Records."""
        return len(self.records)

    def make(self, uti: UTI, tick: Tick) -> bytes:
        """The shard (`tokenize_shard`)."""
        return tokenize_shard(uti, self, tick)


def _said(record: Record) -> dict[str, Any]:
    """`dataclasses.asdict`, in a fraction of its time."""
    fields = ((name, getattr(record, name)) for name in FIELDS)
    return {
        name: {"path": value.path, "sha256": value.sha256} if isinstance(value, Asset) else value
        for name, value in fields
    }


@dataclass
class _Row:
    """A record on its way: its media, or why it is bad, and then its tokens and the codes that
    they stand for. `lost` says why a medium that may be there could not be had."""

    record: Record
    media: dict[Kind, Media] = field(default_factory=dict)
    spans: dict[Kind, TokenSpan] = field(default_factory=dict)
    codes: dict[Kind, np.ndarray] = field(default_factory=dict)
    bad: Bad | None = None
    lost: str = ""

    @property
    def bytes(self) -> int:
        """Of its media, decoded."""
        return sum(_array(one).nbytes for one in self.media.values())


def _array(media: Media) -> np.ndarray:
    return media.samples if isinstance(media, Audio) else media


def policy() -> dict[str, Any]:
    """How this process encodes. Call it inside `exact_threads`."""
    return {
        "batch": "each as if alone",
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": "cpu",
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def tokenize_shard(uti: UTI, job: Job, tick: Tick) -> bytes:
    """The shard of a job. `tick` is told of records as they are done, and may raise to stop.

    Bad records are left out and named in the shard. Raises InputError for another space, or where
    this process would encode otherwise than the one that asked.
    """
    _refuse_other_place(uti, job)
    facts: dict[Kind, CodecFacts] = {codec.kind: codec for codec in uti.space.codecs}
    rows: list[dict[str, Any]] = []
    bad: list[Bad] = []
    for group in _read(job, facts):
        lost = [one.lost for one in group if one.lost]
        if lost:
            raise InputError(f"{lost[0]}; run the same command to continue")
        for kind in facts:
            _encode(uti, kind, group)
            _count_from_0(uti, kind, group)
        for one in group:
            if one.bad is None:
                rows.append(_finished(uti, one))
            else:
                bad.append(one.bad)
        tick(len(group))
    note = ShardNote(abi=job.abi, inputs=job.inputs, bad=tuple(bad))
    return shard_bytes(rows, note)


def still_bad(job: Job, bad: Sequence[Bad]) -> bool:
    """Whether the media of bad records are as they were, so that they would be bad again."""
    records = {record.id: record for record in job.records}
    for one in bad:
        record = records.get(one.id)
        asset = None if record is None else _named(record, one.path)
        if asset is None or _found(media_path(Path(job.manifest), asset)) != one.found:
            return False
    return True


def _read(job: Job, facts: dict[Kind, CodecFacts]) -> Iterator[list[_Row]]:
    """Groups of records with their media; the next records' files come while these are used."""
    folder = Path(job.manifest)
    assets: list[dict[Kind, Asset]] = [
        {kind: asset for kind in facts if (asset := getattr(record, kind)) is not None}
        for record in job.records
    ]
    paths = [[media_path(folder, asset) for asset in one.values()] for one in assets]
    group, size = [], 0
    for record, kinds, found in zip(job.records, assets, in_turn(paths), strict=True):
        group.append(_load(record, dict(zip(kinds, found, strict=True)), facts))
        size += group[-1].bytes
        if len(group) == GROUP or size > BULK:
            yield group
            group, size = [], 0
    if group:
        yield group


def _load(record: Record, files: dict[Kind, Found], facts: dict[Kind, CodecFacts]) -> _Row:
    """A record with its media, decoded and at the codec's rate; bad ones say why."""
    row = _Row(record)
    for kind, data in files.items():
        asset: Asset = getattr(record, kind)
        found = ""
        try:
            if isinstance(data, Exception):
                raise data
            found = hashlib.sha256(data).hexdigest()
            if found != asset.sha256:
                raise InputError(
                    f"the file changed: its SHA-256 is {found}, the manifest says {asset.sha256}; "
                    "restore it, or build the manifest again"
                )
            if kind == "image":
                row.media[kind] = load_image(data, asset.path)
            else:
                row.media[kind] = load_audio(data, facts[kind].sample_rate)
        except InputError as error:
            row.bad = _bad(record, asset, str(error), found)
            break
        except OSError as error:  # a network or a disk that fails says nothing about the medium
            row.lost = f"{record.id}: {asset.path} could not be read ({error})"
            break
    return row


def _encode(uti: UTI, kind: Kind, group: Sequence[_Row]) -> None:
    """Codes of all media of a kind; where one cannot be encoded, one by one, to find it."""
    rows = [row for row in group if row.bad is None and kind in row.media]
    try:
        spans = uti.encode_batch([row.media[kind] for row in rows])
        for row, span in zip(rows, spans, strict=True):
            row.spans[kind] = span
    except InputError:
        for row in rows:
            try:
                row.spans[kind] = uti.encode(row.media[kind])
            except InputError as error:
                asset: Asset = getattr(row.record, kind)
                row.bad = _bad(row.record, asset, str(error), asset.sha256)


def _count_from_0(uti: UTI, kind: Kind, group: Sequence[_Row]) -> None:
    """Ids to the codec's own codes, counted from 0 in each codebook; all media at once."""
    rows = [row for row in group if kind in row.spans]
    if not rows:
        return
    ids = [row.spans[kind].ids for row in rows]
    codes = unflatten(np.concatenate(ids), uti.space.books(kind)).reshape(-1).astype(np.int32)
    ends = np.cumsum([len(one) for one in ids])[:-1]
    for row, found in zip(rows, np.split(codes, ends), strict=True):
        row.codes[kind] = found


def _finished(uti: UTI, row: _Row) -> dict[str, Any]:
    """The shard's row."""
    record = row.record
    meta: dict[str, Any] = {"licence": record.licence} if record.licence else {}
    side: dict[str, Any] = {}
    for span in row.spans.values():
        side.update(span.meta.get("side", {}))
        meta.update({k: v for k, v in span.meta.items() if k not in ("side", "frames")})
    none = np.zeros(0, dtype=np.int32)
    return {
        **{name: getattr(record, name) for name in ("id", "source", "task", "split", "official")},
        "text": np.asarray(uti.text_codec.encode(record.text), dtype=np.int32),
        "prompt": np.asarray(uti.text_codec.encode(record.prompt), dtype=np.int32),
        "image": row.codes.get("image", none),
        "audio": row.codes.get("audio", none),
        "frames": row.spans["audio"].meta["frames"] if "audio" in row.spans else 0,
        "image_sha256": record.image.sha256 if record.image else "",
        "audio_sha256": record.audio.sha256 if record.audio else "",
        "meta": {**meta, "side": side} if side else meta,
    }


def _refuse_other_place(uti: UTI, job: Job) -> None:
    here = policy()
    if uti.space.abi != job.abi:
        raise InputError(
            f"{job.name} is to be made in token space {job.abi[:12]}..., but the one here is "
            f"{uti.space.abi[:12]}...; give all workers the same folder"
        )
    wrong = [name for name in here if here[name] != job.policy.get(name)]
    if wrong:
        said = "; ".join(f"{name} {here[name]} for {job.policy.get(name)}" for name in wrong)
        raise InputError(
            f"a worker on {platform.node()} would encode {job.name} otherwise than asked ({said}); "
            "use machines of one kind with the same packages"
        )


def _bad(record: Record, asset: Asset, reason: str, found: str) -> Bad:
    # A decoder that is given bytes does not know their name.
    said = reason.replace("the given bytes", asset.path, 1)
    return Bad(id=record.id, path=asset.path, reason=said, found=found)


def _named(record: Record, path: str) -> Asset | None:
    return next((a for a in (record.image, record.audio) if a and a.path == path), None)


def _found(path: str) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except InputError:
        return ""


@lru_cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
