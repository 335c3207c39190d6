"""The micro-world straight into shards of tokens: training items without files of their own.

Knows: which generator makes which item, and rows of shards. Does not know: splits or held-out
items; all are of the world's training split. Costs: making and encoding each item once, some 5 ms a
picture and 20 ms a sentence, where files, manifest and their audit cost twenty times that.

Learning to draw takes tens of thousands of pictures; `tokenize` proves on a few hundred of them
that shards are right. Items are counted from `first` on, so that they need not be those.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from lumoomni.config import canonical_json, to_dict
from lumoomni.data.engines import exact_threads
from lumoomni.data.shard_set import INDEX, ShardSet
from lumoomni.data.shards import (
    LISTS,
    SCHEMA,
    Counts,
    Shard,
    ShardNote,
    listed,
    pyarrow,
    shard_bytes,
)
from lumoomni.data.tokenizing import policy
from lumoomni.data.world.language import caption, shapeless, uncoloured
from lumoomni.data.world.nameless import bend, dye
from lumoomni.data.world.scene import Scene, draw, make_scene
from lumoomni.data.world.sentences import sentence
from lumoomni.data.world.sketch import sketch
from lumoomni.data.world.sounds import make_sound
from lumoomni.data.world.speech import NARRATOR, RATE, synthesize
from lumoomni.data.world.split import rng
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio
from lumoomni.runtime import Interrupted, Progress, atomic_write_bytes, atomic_write_text
from lumoomni.uti.interface import UTI, Segment
from lumoomni.uti.space import unflatten

GROUP = 64
ASK_SHAPES, ASK_COLOURS = "which shapes are there?", "which colours are there?"


@dataclass(frozen=True, kw_only=True)
class FreshConfig:
    """How many items of each kind; pictures of `pixels` along each side, sentences of the narrator.

    Pictures and sounds serve both ways; where there are `sketches` or `cues`, these are made, and
    pictures or sounds only read.
    Of the share `half_told` of sketches the words leave out colours or shapes, and these are then
    such as have no name: so nobody learns that a shape goes with some colours alone. Of the share
    `asked` of pictures that are only read, an instruction asks for shapes or for colours alone
    (`asked_of`): who is not asked then still tells all.
    `first` is the index of the first one: those before it belong to a manifest.
    """

    pictures: int = 0
    sketches: int = 0
    half_told: float = 0.0
    asked: float = 0.0
    sounds: int = 0
    cues: int = 0
    sentences: int = 0
    first: int = 0
    pixels: int = 64
    rows_per_shard: int = 2048

    def __post_init__(self) -> None:
        for name in ("half_told", "asked"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; use a share from 0 to 1")
        counts = {one.name: getattr(self, one.name) for one in fields(self)}
        if min(counts.values()) < 0:
            said = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise InputError(f"none of {said} may be negative")
        if self.asked and not self.sketches:
            raise InputError(
                f"asked is {self.asked}, but without sketches pictures are drawn too, and a "
                "question is nothing to draw; set sketches, or leave asked out"
            )
        if self.rows_per_shard < 1:
            raise InputError(f"rows_per_shard is {self.rows_per_shard}; use at least 1")

    @property
    def items(self) -> int:
        """In all."""
        return self.pictures + self.sketches + self.sounds + self.cues + self.sentences


@dataclass(frozen=True)
class _Item:
    """One medium with its text, and the task that it serves first."""

    id: str
    task: str
    text: str
    medium: Segment
    prompt: str = ""


def fresh_shards(
    cache: Path,
    uti: UTI,
    config: FreshConfig,
    *,
    seed: int,
    progress: Progress,
    stop: threading.Event,
) -> ShardSet:
    """The shards in a folder of `cache` that is named by all that makes them; kept if whole.

    Raises InputError when nothing is to be made, Interrupted when asked to stop.
    """
    if not config.items:
        raise InputError("fresh shards of no items teach nothing; leave them out")
    with exact_threads():
        how = policy()
    what = {"abi": uti.space.abi, "config": to_dict(config), "seed": seed, "policy": how}
    inputs = hashlib.sha256(canonical_json(what).encode()).hexdigest()
    folder = cache / f"fresh-{inputs[:16]}"
    if not (folder / INDEX).is_file():
        with exact_threads():
            _write(folder, uti, config, seed, (inputs, how), progress, stop)
    return ShardSet.open(folder, abi=uti.space.abi)


def _write(
    folder: Path,
    uti: UTI,
    config: FreshConfig,
    seed: int,
    made_by: tuple[str, dict[str, Any]],
    progress: Progress,
    stop: threading.Event,
) -> None:
    """All shards, then the index, so that a folder without it is made again."""
    inputs, how = made_by
    files: dict[str, Any] = {}
    counts: list[Counts] = []
    (folder / "train").mkdir(parents=True, exist_ok=True)
    with progress.task("fresh tokens", total=config.items, unit="item") as bar:
        for number, rows in enumerate(_slices(uti, config, seed, bar.update, stop)):
            data = shard_bytes(rows, ShardNote(abi=uti.space.abi, inputs=inputs))
            name = f"train/shard-{number:05d}.arrow"
            atomic_write_bytes(folder / name, data)
            shard = Shard(pyarrow().py_buffer(data), name)
            counts.append(shard.counts)
            files[name] = listed(data, shard)
    index = {
        "schema": SCHEMA,
        "abi": uti.space.abi,
        "space": uti.space.meaning(),
        "manifest": "",
        "codec": how,
        "counts": {"train": asdict(reduce(lambda a, b: a + b, counts))},
        "files": files,
    }
    atomic_write_text(folder / INDEX, json.dumps(index, indent=2, ensure_ascii=False) + "\n")


def _slices(
    uti: UTI,
    config: FreshConfig,
    seed: int,
    tick: Callable[[int], None],
    stop: threading.Event,
) -> Iterator[list[dict[str, Any]]]:
    """Rows, `rows_per_shard` at a time."""
    rows: list[dict[str, Any]] = []
    waiting: list[_Item] = []
    for done, item in enumerate(_items(config, seed), start=1):
        waiting.append(item)
        if len(waiting) == GROUP or done == config.items:
            if stop.is_set():
                raise Interrupted(f"fresh tokens stopped after {done} of {config.items}")
            rows += _rows(uti, waiting)
            tick(len(waiting))
            waiting = []
        while len(rows) >= config.rows_per_shard:
            yield rows[: config.rows_per_shard]
            rows = rows[config.rows_per_shard :]
    if rows:
        yield rows


def _items(config: FreshConfig, seed: int) -> Iterator[_Item]:
    for index in range(config.first, config.first + config.pictures):
        scene, prompt, text = asked_of(seed, index, config.asked)
        picture, task = draw(scene, config.pixels), "i2t" if config.sketches else "t2i"
        yield _Item(f"fresh:scenes:{index:07}", task, text, picture, prompt)
    for index in range(config.first, config.first + config.sketches):
        scene, text = told(seed, index, config.half_told)
        yield _Item(f"fresh:sketches:{index:07}", "t2i", text, sketch(scene, config.pixels))
    for index in range(config.first, config.first + config.sounds):
        sound = make_sound(seed, "train", index)
        medium, task = Audio(sound.samples, RATE), "a2t" if config.cues else "t2a"
        yield _Item(f"fresh:sounds:{index:07}", task, sound.caption, medium)
    for index in range(config.first, config.first + config.cues):
        sound = make_sound(seed, "train", index, cue=True)
        medium = Audio(sound.samples, RATE)
        yield _Item(f"fresh:cues:{index:07}", "t2a", sound.caption, medium)
    for index in range(config.first, config.first + config.sentences):
        text = sentence(seed, "train", index)
        said = Audio(synthesize(text, NARRATOR).samples, RATE)
        yield _Item(f"fresh:speech:{index:07}", "t2a", text, said)


def told(seed: int, index: int, half: float) -> tuple[Scene, str]:
    """A scene and its words: all of them, or, of the share `half`, without the colours,
    of things in any inks, or without the shapes, of things in outlines that have no name."""
    scene = make_scene(seed, "train", index)
    stream = rng(seed, "half told", index)
    if stream.random() >= half:
        return scene, caption(scene)
    if stream.random() < 0.5:
        return dye(scene, stream), uncoloured(caption(scene))
    return bend(scene, stream), shapeless(caption(scene))


def asked_of(seed: int, index: int, share: float) -> tuple[Scene, str, str]:
    """A scene, what is asked of it and the answer; of all but the `share` nothing is asked, and the
    answer is its words.

    Shapes are asked for, of things in inks without a name and as often of others: they are what is
    read wrongly where a pair is new. Colours are read rightly and asked for now and then, or an
    instruction would always mean shapes.
    """
    scene = make_scene(seed, "train", index)
    words, stream = caption(scene), rng(seed, "asked", index)
    if stream.random() >= share:
        return scene, "", words
    turn = stream.random()
    if turn < 0.1:
        return bend(scene, stream), ASK_COLOURS, shapeless(words)
    return dye(scene, stream) if turn < 0.55 else scene, ASK_SHAPES, uncoloured(words)


def _rows(uti: UTI, items: list[_Item]) -> list[dict[str, Any]]:
    """Rows of shards: the codecs' own codes, counted from 0 in each codebook."""
    rows = []
    for item, span in zip(items, uti.encode_batch([one.medium for one in items]), strict=True):
        kind = "audio" if item.task in ("t2a", "a2t") else "image"
        codes = unflatten(span.ids, uti.space.books(kind)).reshape(-1).astype(np.int32)
        text, prompt = (
            np.asarray(uti.text_codec.encode(one) if one else [], dtype=np.int32)
            for one in (item.text, item.prompt)
        )
        rows.append(
            {
                **dict.fromkeys(LISTS, np.zeros(0, np.int32)),
                "id": item.id,
                "source": "world",
                "task": item.task,
                "split": "train",
                "official": "train",
                "text": text,
                "prompt": prompt,
                kind: codes,
                "frames": span.meta.get("frames", 0),
                "image_sha256": "",
                "audio_sha256": "",
                "meta": {k: v for k, v in span.meta.items() if k not in ("side", "frames")},
            }
        )
    return rows
