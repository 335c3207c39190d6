"""Whether stored codes are those of their originals: encode them again, decode them, and compare.

Knows: a token space's codecs, the manifest that shards were made from, and how near is measured.
Does not know: thresholds, or how rows were chosen. Costs: one encoding and one decoding of each
chosen medium.

Originals that are gone or changed are counted: what cannot be compared has not passed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lumoomni.audits.dataset_rows import KINDS, Opened, Rows
from lumoomni.audits.signal import log_mel_l1, matched, psnr, snr_db, ssim
from lumoomni.codecs.facts import Kind
from lumoomni.data.engines import exact_threads
from lumoomni.data.manifest import Record, media_path, read_manifest
from lumoomni.data.storage import read_bytes
from lumoomni.errors import InputError
from lumoomni.gates import Metric, bootstrap_mean, exact, wilson
from lumoomni.media.audio import Audio, load_audio
from lumoomni.media.image import load_image, resize
from lumoomni.uti.interface import UTI, TokenSpan
from lumoomni.uti.space import flatten, unflatten

TEXTS = 32
"""Texts that are encoded again for each medium: they cost next to nothing."""
FLAT = 4
"""Levels of 255 by which the pixels of a picture of one colour may differ."""


@dataclass(frozen=True)
class Chosen:
    """A row that is looked at, and its record in the manifest, if there is one."""

    rows: Rows
    row: int
    record: Record | None

    @property
    def id(self) -> str:
        return self.rows.strings["id"][self.row]


@dataclass
class Compared:
    """What is added up over media: wrong codes and all, by codebook; scores by name."""

    wrong: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    looked: int = 0
    scores: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """One more score."""
        self.scores.setdefault(name, []).append(value)


def choose(opened: Opened, kind: Kind, count: int, seed: int) -> list[tuple[Rows, int]]:
    """At most `count` rows with a medium of a kind, each medium once, drawn by a seed."""
    first: dict[str, tuple[Rows, int]] = {}
    for rows in opened:
        for row, name in enumerate(rows.strings[f"{kind}_sha256"]):
            if len(rows.codes(kind, row)):
                first.setdefault(name, (rows, row))
    every = [first[name] for name in sorted(first)]
    picked = np.random.default_rng(seed).permutation(len(every))[:count]
    return [every[i] for i in sorted(picked)]


def records_of(manifest: Path, ids: set[str]) -> dict[str, Record]:
    """The records of some ids. Raises InputError for a manifest that is none."""
    return {record.id: record for record in read_manifest(manifest) if record.id in ids}


def code_metrics(
    opened: Opened, uti: UTI, manifest: Path, *, count: int, decode: int, seed: int
) -> tuple[dict[str, Metric], list[str]]:
    """Wrong codes by codebook, texts that differ, originals that are gone or changed, how near
    decoded media are, and the shares of silent sounds and of pictures of one colour.

    Raises InputError for a manifest that cannot be read.
    """
    kinds: tuple[Kind, ...] = tuple(uti.codecs)
    places = {kind: choose(opened, kind, count, seed) for kind in kinds}
    ids = {rows.strings["id"][row] for found in places.values() for rows, row in found}
    records = records_of(manifest, ids)
    compared = Compared()
    with exact_threads():
        for kind in kinds:
            chosen = [Chosen(r, i, records.get(r.strings["id"][i])) for r, i in places[kind]]
            media = _originals(chosen, kind, uti, manifest, compared)
            _retokenize(media, kind, uti, compared)
            if uti.codecs[kind].facts.decodes:
                _decode(media[:decode], kind, uti, compared)
    found = _shares(compared)
    texts = text_metric(opened, uti, manifest, TEXTS * count, seed)
    said = [f"the original of {name} is gone" for name in compared.lost[:3]]
    said += [f"the original of {name} was changed" for name in compared.changed[:3]]
    return {**found, "dataset.retokenize_text": texts}, said


def text_metric(opened: Opened, uti: UTI, manifest: Path, count: int, seed: int) -> Metric:
    """Share of records whose stored text or prompt ids are not those of their words now."""
    every = [(rows, row) for rows in opened for row in range(len(rows))]
    picked = np.random.default_rng([seed, 1]).permutation(len(every))[:count]
    chosen = [every[i] for i in picked]
    records = records_of(manifest, {rows.strings["id"][row] for rows, row in chosen})
    wrong = 0
    for rows, row in chosen:
        record = records.get(rows.strings["id"][row])
        same = record is not None and all(
            rows.codes(name, row).tolist() == uti.text_codec.encode(getattr(record, name))
            for name in ("text", "prompt")
        )
        wrong += not same
    return wilson(wrong, len(chosen))


def _originals(
    chosen: Sequence[Chosen], kind: Kind, uti: UTI, manifest: Path, compared: Compared
) -> list[tuple[Chosen, Any]]:
    """Chosen rows with their media; what is gone or changed is counted, changed ones are kept."""
    found = []
    for one in chosen:
        compared.looked += 1
        asset = None if one.record is None else getattr(one.record, kind)
        try:
            if asset is None:
                raise InputError(f"the manifest has no {kind} for {one.id}")
            data = read_bytes(media_path(manifest, asset))
            digest = hashlib.sha256(data).hexdigest()
            if digest != one.rows.strings[f"{kind}_sha256"][one.row]:
                compared.changed.append(one.id)
            if kind == "image":
                medium = load_image(data, asset.path)
                compared.add("solid", float(np.ptp(medium.reshape(-1, 3), 0).max() <= FLAT))
            else:
                medium = load_audio(data, uti.codecs[kind].facts.sample_rate)
                compared.add("silent", float(medium.silent))
            found.append((one, medium))
        except InputError:
            compared.lost.append(one.id)
    return found


def _retokenize(
    media: Sequence[tuple[Chosen, Any]], kind: Kind, uti: UTI, compared: Compared
) -> None:
    """Codes that are not the stored ones; frames that only one side has are wrong."""
    books = uti.space.books(kind)
    spans = uti.encode_batch([medium for _, medium in media])
    for (one, _), span in zip(media, spans, strict=True):
        new = unflatten(span.ids, books)
        old = one.rows.codes(kind, one.row)
        old = old[: len(old) // len(books) * len(books)].reshape(-1, len(books))
        common, most = min(len(new), len(old)), max(len(new), len(old))
        for q, book in enumerate(books):
            wrong = int((new[:common, q] != old[:common, q]).sum()) + most - common
            compared.wrong[book.name] = compared.wrong.get(book.name, 0) + wrong
            compared.total[book.name] = compared.total.get(book.name, 0) + most


def _decode(media: Sequence[tuple[Chosen, Any]], kind: Kind, uti: UTI, compared: Compared) -> None:
    """How near each decoded medium is to its original, and whether nearer than to another's."""
    books = uti.space.books(kind)
    for number, (one, medium) in enumerate(media):
        sample = one.rows.shard.sample(one.row)
        try:
            ids = flatten(np.asarray(getattr(sample, kind)).reshape(-1, len(books)), books)
            back: Any = uti.decode(TokenSpan(kind, ids, sample.meta))
            other = media[(number + 1) % len(media)][1]
            if kind == "image":
                _near_picture(medium, other, back, uti, compared)
            else:
                _near_sound(medium, other, back, uti, compared)
        except (InputError, ValueError):
            compared.add(f"decode_{kind}", 0.0)


def _near_picture(
    own: np.ndarray, other: np.ndarray, back: np.ndarray, uti: UTI, compared: Compared
) -> None:
    size = uti.codecs["image"].facts.image_size or len(back)
    compared.add("decode_image", float(back.shape == (size, size, 3)))
    mine, wrong = resize(own, len(back)), resize(other, len(back))
    compared.add("psnr", psnr(mine, back))
    compared.add("ssim", ssim(mine, back))
    compared.add("decode_image_right", float(psnr(mine, back) > psnr(wrong, back)))


def _near_sound(own: Audio, other: Audio, back: Audio, uti: UTI, compared: Compared) -> None:
    mine, wrong = matched(own, back.rate), matched(other, back.rate)
    facts = uti.codecs["audio"].facts
    frame = 1 / facts.frame_rate
    whole = abs(back.seconds - mine.seconds) <= frame + 0.05
    compared.add("decode_audio", float(whole))
    near = log_mel_l1(mine, back)
    compared.add("log_mel", near)
    compared.add("snr", snr_db(mine, back))
    compared.add("decode_audio_right", float(near < log_mel_l1(wrong, back)))


def _shares(compared: Compared) -> dict[str, Metric]:
    """Metrics of what was added up; of codebooks the worst stands for its kind."""
    found = {
        "dataset.assets_lost": exact(len(compared.lost), compared.looked),
        "dataset.assets_changed": exact(len(compared.changed), compared.looked),
    }
    for name, total in compared.total.items():
        found[f"dataset.retokenize_{name.lower()}"] = wilson(compared.wrong[name], total)
    for kind in KINDS:
        books = [m for n, m in found.items() if n.startswith(f"dataset.retokenize_{kind}")]
        if books:
            found[f"dataset.retokenize_{kind}"] = max(books, key=lambda m: m.value)
    for name, scores in compared.scores.items():
        shares = name.startswith("decode") or name in ("silent", "solid")
        metric = wilson(int(sum(scores)), len(scores)) if shares else bootstrap_mean(scores)
        found[f"dataset.{name}"] = metric
    return found
