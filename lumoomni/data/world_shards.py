"""The micro-world straight into shards of tokens: training items without files of their own.

Knows: which generator makes which item, rows of shards, and which of them others hold out.
Does not know: splits; all items are of the world's training split. Costs: making and encoding each
item once, some 5 ms a picture and 20 ms a sentence, where files, manifest and their audit cost
twenty times that; as many processes share the work as there are processors.

Learning to draw takes tens of thousands of pictures; `tokenize` proves on a few hundred of them
that shards are right. Items are counted from `first` on, so that they need not be those.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from lumoomni.config import canonical_json, to_dict
from lumoomni.data.engines import Crew, exact_threads, processes
from lumoomni.data.shard_set import INDEX, ShardSet
from lumoomni.data.shards import (
    LISTS,
    SCHEMA,
    Counts,
    Shard,
    ShardNote,
    intact,
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
from lumoomni.runtime import Progress, atomic_write_bytes, atomic_write_text, worker_count
from lumoomni.uti.interface import UTI, Segment
from lumoomni.uti.space import unflatten
from lumoomni.uti.space_file import load_space

GROUP = 64
WORTH = 1000
"""Items for which one more process is worth its start of some seconds."""
SAID = ("text", "image", "audio")
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
    space: Path,
    config: FreshConfig,
    *,
    seed: int,
    progress: Progress,
    stop: threading.Event,
    workers: int = 0,
    held: frozenset[str] = frozenset(),
) -> ShardSet:
    """The shards in a folder of `cache` that is named by all that makes them; kept if whole.

    `space` is a token space's folder. `workers` processes make them (0: as many as are worth
    starting here); the bytes are the same for any number, and after any stop. Items that say what
    `held` has (`held_out`) are left out.
    Raises InputError when nothing is to be made, Interrupted when asked to stop.
    """
    if not config.items:
        raise InputError("fresh shards of no items teach nothing; leave them out")
    found = load_space(space)
    with exact_threads():
        how = policy()
    what = {"abi": found.abi, "config": to_dict(config), "seed": seed, "policy": how}
    what |= {"held": sorted(held)} if held else {}
    inputs = hashlib.sha256(canonical_json(what).encode()).hexdigest()
    folder = cache / f"fresh-{inputs[:16]}"
    if not (folder / INDEX).is_file():
        each = config.rows_per_shard
        slices = [
            FreshSlice(
                name=f"train/shard-{number:05d}.arrow",
                config=config,
                seed=seed,
                start=start,
                stop=min(start + each, config.items),
                note=ShardNote(abi=found.abi, inputs=inputs),
                held=held,
            )
            for number, start in enumerate(range(0, config.items, each))
        ]
        crew = Crew(
            space=str(space.absolute()),
            stop=stop,
            tick=lambda done: None,
            workers=workers or min(worker_count(), 1 + config.items // WORTH),
        )
        facts = _write(folder, slices, crew, progress)
        index = {
            "schema": SCHEMA,
            "abi": found.abi,
            "space": found.meaning(),
            "manifest": "",
            "codec": how,
            **facts,
        }
        atomic_write_text(folder / INDEX, json.dumps(index, indent=2, ensure_ascii=False) + "\n")
    _sweep(folder)
    return ShardSet.open(folder, abi=found.abi)


def _sweep(folder: Path) -> None:
    """What a kill left in the middle of a write; no finished file is hidden."""
    for path in folder.rglob(".*"):
        if path.is_file():
            path.unlink()


def _write(
    folder: Path, slices: list["FreshSlice"], crew: Crew, progress: Progress
) -> dict[str, Any]:
    """All shards that are not there yet; what the index, which is written last, says of each."""
    (folder / "train").mkdir(parents=True, exist_ok=True)
    total = sum(one.size for one in slices)
    missing = [one for one in slices if not _is_made(folder / one.name)]
    there = total - sum(one.size for one in missing)
    with (
        progress.task("fresh tokens", total=total, unit="item", start=there) as bar,
        contextlib.closing(processes(missing, replace(crew, tick=bar.update))) as shards,
    ):
        for made in shards:
            atomic_write_bytes(folder / made.job.name, made.data)
    files: dict[str, Any] = {}
    counts: list[Counts] = []
    for one in slices:
        data = (folder / one.name).read_bytes()
        shard = Shard(pyarrow().py_buffer(data), one.name)
        counts.append(shard.counts)
        files[one.name] = listed(data, shard)
    return {"counts": {"train": asdict(reduce(lambda a, b: a + b, counts))}, "files": files}


def _is_made(path: Path) -> bool:
    """Whether a shard of an earlier run is here; the folder's name says what it was made of."""
    return path.is_file() and intact(path.read_bytes())


@dataclass(frozen=True, kw_only=True)
class FreshSlice:
    """Items `start` to `stop` of all that a config asks for, as one shard."""

    name: str
    config: FreshConfig
    seed: int
    start: int
    stop: int
    note: ShardNote
    held: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Items, those that are left out included."""
        return self.stop - self.start

    def make(self, uti: UTI, tick: Callable[[int], None]) -> bytes:
        """The shard. `tick` is told of items as they are done, and may raise to stop."""
        rows: list[dict[str, Any]] = []
        for first in range(self.start, self.stop, GROUP):
            last = min(first + GROUP, self.stop)
            made = _rows(uti, [_item(self.config, self.seed, i) for i in range(first, last)])
            rows += [row for row in made if said_by(**{k: row[k] for k in SAID}) not in self.held]
            tick(last - first)
        return shard_bytes(rows, self.note)


def said_by(*, text: np.ndarray, image: np.ndarray, audio: np.ndarray) -> str:
    """A name for words with a medium: equal for samples that teach the same."""
    parts = (one.astype(np.int32) for one in (text, image, audio))
    return hashlib.sha256(b"|".join(one.tobytes() for one in parts)).hexdigest()[:32]


def held_out(shards: ShardSet) -> frozenset[str]:
    """Names of what is held out. Sketches and cues are few: now and then one made for training
    comes out as one of these, id for id, and a loss measured on it would flatter."""
    every = (shards.sample("eval", i) for i in range(shards.len("eval")))
    return frozenset(said_by(text=one.text, image=one.image, audio=one.audio) for one in every)


def _item(config: FreshConfig, seed: int, place: int) -> _Item:
    """Item number `place`: first all pictures, then sketches, sounds, cues and sentences."""
    for name, make in _MAKERS.items():
        count = getattr(config, name)
        if place < count:
            return make(config, seed, config.first + place)
        place -= count
    raise IndexError(f"a config of {config.items} items has no item {place + config.items}")


def _picture(config: FreshConfig, seed: int, index: int) -> _Item:
    scene, prompt, text = asked_of(seed, index, config.asked)
    picture, task = draw(scene, config.pixels), "i2t" if config.sketches else "t2i"
    return _Item(f"fresh:scenes:{index:07}", task, text, picture, prompt)


def _sketch(config: FreshConfig, seed: int, index: int) -> _Item:
    scene, text = told(seed, index, config.half_told)
    return _Item(f"fresh:sketches:{index:07}", "t2i", text, sketch(scene, config.pixels))


def _sound(config: FreshConfig, seed: int, index: int) -> _Item:
    sound = make_sound(seed, "train", index)
    task = "a2t" if config.cues else "t2a"
    return _Item(f"fresh:sounds:{index:07}", task, sound.caption, Audio(sound.samples, RATE))


def _cue(config: FreshConfig, seed: int, index: int) -> _Item:
    sound = make_sound(seed, "train", index, cue=True)
    return _Item(f"fresh:cues:{index:07}", "t2a", sound.caption, Audio(sound.samples, RATE))


def _sentence(config: FreshConfig, seed: int, index: int) -> _Item:
    text = sentence(seed, "train", index)
    said = Audio(synthesize(text, NARRATOR).samples, RATE)
    return _Item(f"fresh:speech:{index:07}", "t2a", text, said)


_MAKERS: dict[str, Callable[[FreshConfig, int, int], _Item]] = {
    "pictures": _picture,
    "sketches": _sketch,
    "sounds": _sound,
    "cues": _cue,
    "sentences": _sentence,
}


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
