"""Codecs that need no training, exact and decodable, and a small tokenized set of toy media."""

from pathlib import Path
from typing import Any

import numpy as np

from lumoomni.codecs.facts import CodecFacts, Coded
from lumoomni.data.engines import exact_threads
from lumoomni.data.manifest import Asset, Record, write_manifest
from lumoomni.data.shards import Shard, pyarrow
from lumoomni.data.storage import sha256
from lumoomni.data.tokenizing import Job, policy, tokenize_shard
from lumoomni.media.audio import Audio, save_wav
from lumoomni.media.image import resize, save_png
from lumoomni.uti.interface import UTI
from lumoomni.uti.space import new_space
from tests.shard_folder import write_shards
from tests.tiny import text_codec

SIZE, GRID, RATE, HOP = 16, 4, 16000, 640
LEVELS = 6


class Blocks:
    """A picture is 4 x 4 blocks, each of 6 x 6 x 6 colours."""

    def __init__(
        self, weights: str = "a" * 64, *, barcode: bool = False, larger: bool = False
    ) -> None:
        self.facts = CodecFacts(
            kind="image",
            name="blocks",
            weights=weights,
            codebooks=1,
            codebook_size=LEVELS**3,
            tokens=GRID * GRID,
            image_size=SIZE,
        )
        self._barcode, self._larger = barcode, larger

    def encode(self, media: np.ndarray, /) -> Coded:
        cells = resize(media, SIZE).reshape(GRID, SIZE // GRID, GRID, SIZE // GRID, 3)
        levels = np.rint(cells.mean((1, 3)) / 255 * (LEVELS - 1)).astype(np.int64)
        return Coded((levels @ np.array([LEVELS**2, LEVELS, 1])).reshape(-1, 1))

    def encode_batch(self, media: Any, /) -> list[Coded]:
        return [self.encode(one) for one in media]

    def decode(self, coded: Coded, /) -> np.ndarray:
        self.facts.check(coded)
        codes = np.zeros_like(coded.codes) if self._barcode else coded.codes
        levels = np.stack([codes // LEVELS**2, codes // LEVELS % LEVELS, codes % LEVELS], -1)
        cells = (levels.reshape(GRID, GRID, 3) * 255 // (LEVELS - 1)).astype(np.uint8)
        side = SIZE // GRID * (2 if self._larger else 1)
        return cells.repeat(side, 0).repeat(side, 1)


class Loudness:
    """Each frame of 40 ms is how loud it is and how often it crosses zero."""

    def __init__(self, weights: str = "b" * 64, *, gain: float = 1.0) -> None:
        self.facts = CodecFacts(
            kind="audio",
            name="loudness",
            weights=weights,
            codebooks=2,
            codebook_size=64,
            frame_rate=RATE / HOP,
            sample_rate=RATE,
        )
        self._gain = gain

    def encode(self, media: np.ndarray, /) -> Coded:
        frames = media[: len(media) // HOP * HOP].reshape(-1, HOP).astype(np.float64) * self._gain
        loud = 63 + 8 * np.log2(np.sqrt((frames**2).mean(1)) + 2.0**-8)
        crossings = (np.diff(np.signbit(frames), axis=1)).sum(1)
        codes = np.stack([np.rint(loud), crossings], 1)
        return Coded(codes.clip(0, 63).astype(np.int64))

    def encode_batch(self, media: Any, /) -> list[Coded]:
        return [self.encode(one) for one in media]

    def decode(self, coded: Coded, /) -> Audio:
        self.facts.check(coded)
        loud = 2.0 ** ((coded.codes[:, 0] - 63) / 8)
        hertz = coded.codes[:, 1] * RATE / HOP / 2
        phase = 2 * np.pi * np.cumsum(hertz.repeat(HOP)) / RATE
        samples = np.sin(phase) * np.sqrt(2) * loud.repeat(HOP)
        return Audio(samples.clip(-1, 1).astype(np.float32), RATE)


def toy_uti(image: Blocks | None = None, audio: Loudness | None = None) -> UTI:
    """Text, pictures and sound in one space."""
    text, codecs = text_codec(), {"image": image or Blocks(), "audio": audio or Loudness()}
    facts = tuple(codec.facts for codec in codecs.values())
    return UTI(new_space(text.vocab_size, text.hash, facts), text, codecs)  # type: ignore[arg-type]


def toy_set(root: Path, uti: UTI, *, blank: int = 0) -> tuple[Path, Path]:
    """(shards, manifest): 20 pictures and 20 sounds to train on and 4 held out of each, both ways;
    the first `blank` of each show and say nothing."""
    media, source = root / "media", np.random.default_rng(0)
    media.mkdir(parents=True, exist_ok=True)
    records, codec = [], Loudness()
    for number in range(24):
        picture = source.integers(0, 256, (GRID, GRID, 3)).repeat(4, 0).repeat(4, 1)
        # What the codec itself can say, held for a few frames each.
        said = np.stack([source.integers(36, 60, 4), source.integers(8, 60, 4)], 1)
        tone = codec.decode(Coded(said.repeat(source.integers(2, 5, 4), 0))).samples
        if number < blank:
            picture, tone = picture * 0 + number, tone * 0
        save_png(media / f"{number}.png", picture.astype(np.uint8))
        save_wav(media / f"{number}.wav", Audio(tone[number:].copy(), RATE))
        split = "train" if number < 20 else "eval"
        for kind, name, tasks in (("image", "png", "i2t t2i"), ("audio", "wav", "a2t t2a")):
            path = f"{number}.{name}"
            asset = Asset(path=path, sha256=sha256(media / path))
            for task in tasks.split():
                text = f"a {'large' if number % 2 else 'small'} red circle {number}"
                records.append(
                    Record(
                        id=f"{task}:{number:02d}",
                        source="toy",
                        task=task,
                        text=text,
                        split=split,
                        **{kind: asset},
                    )
                )
    manifest = media / "manifest.jsonl"
    write_manifest(manifest, records, source="toy")
    rows = []
    with exact_threads():
        for split in ("train", "eval"):
            own = tuple(one for one in records if one.split == split)
            job = Job(f"{split}/0", str(manifest), own, uti.space.abi, policy())
            made = tokenize_shard(uti, job, lambda done: None)
            shard = Shard(pyarrow().py_buffer(made), split)
            rows += [dict(vars(shard.sample(i))) for i in range(shard.rows)]
    folder = write_shards(root / "shards", uti.space, rows, each=17, manifest=sha256(manifest))
    return folder, manifest
