"""All that a model of tokens is asked to make and to read, in one go, as a report's numbers.

Knows: which tasks were trained, how many of each are asked for. Does not know: thresholds or files,
or which recogniser listens.
Costs: for each split three times as many pictures and sounds as are asked for, twice as many texts.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lumoomni.audits.drawing import (
    Sheet,
    condition_metrics,
    conditions,
    copies,
    diversity,
    drawings_of,
    form,
    prompts_of,
    reading,
    scenes,
    sounds,
    through_codec,
)
from lumoomni.audits.speech import derange, word_errors
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.world.sentences import sentence
from lumoomni.gates import Metric
from lumoomni.infer.draw import Artist, DrawConfig
from lumoomni.media.audio import Audio
from lumoomni.runtime import Progress
from lumoomni.uti.space import unflatten

SPLITS = ("seen", "unseen")
TWICE = 48
"""Prompts that are drawn twice, to see whether chance shows."""


@dataclass(frozen=True, kw_only=True)
class MakingConfig:
    """How pictures (`draw`) and sounds are made, how many of each split are made and judged.

    `copy`: a picture that differs from a training one in no larger share of its ids is a copy.
    `sentences` are said and read back where there is a recogniser, with at most `longest` ids.
    """

    draw: DrawConfig = field(default_factory=lambda: DrawConfig(watch=True))
    sound: DrawConfig = field(default_factory=lambda: DrawConfig(watch=True))
    pictures: int = 200
    sounds: int = 80
    sentences: int = 40
    longest: int = 480
    copy: float = 0.03


Listener = Callable[[Sequence[Audio]], list[str]]
"""What is said in each sound."""


@dataclass(frozen=True)
class Measured:
    """Numbers, and the sheets of the right prompts by kind and split, as `image.seen`."""

    metrics: dict[str, Metric]
    sheets: dict[str, Sheet]


def measure(
    artist: Artist,
    tasks: Collection[str],
    config: MakingConfig,
    seed: int,
    known: np.ndarray,
    progress: Progress,
    listener: Listener | None = None,
) -> Measured:
    """`known` [M, N] are the codes of training pictures. Raises InputError when there are none."""
    found: dict[str, Metric] = {}
    every: list[Sheet] = []
    kept: dict[str, Sheet] = {}
    plan = [("image", "draw", split) for split in SPLITS if "t2i" in tasks]
    plan += [("audio", "sound", split) for split in SPLITS if "t2a" in tasks]
    total = sum(config.pictures if kind == "image" else config.sounds for kind, _, _ in plan)
    with progress.task("made and judged", total=total, unit="item") as bar:
        for kind, name, split in plan:
            image = kind == "image"
            wanted = (
                scenes(seed, split, config.pictures)
                if image
                else sounds(seed, split, config.sounds)
            )
            sheets = conditions(artist, kind, wanted, config.draw if image else config.sound)
            found |= condition_metrics(name, split, sheets, through_codec(artist, wanted))
            every += sheets.values()
            kept[f"{kind}.{split}"] = sheets["correct"]
            bar.update(len(wanted))
    found |= form(artist, every) if every else {}
    if "t2i" in tasks:
        new = scenes(seed, "seen", config.pictures)
        found["draw.diversity"] = diversity(artist, prompts_of(new)[:TWICE], config.draw)
        books = artist.uti.space.books("image")
        held = artist.uti.encode_batch(drawings_of(artist, new))
        drawn = kept["image.seen"].made
        pair = [[unflatten(one.ids, books).reshape(-1) for one in some] for some in (drawn, held)]
        found |= copies(pair[0], pair[1], known, config.copy)
    if "t2a" in tasks and listener is not None:
        found |= said(artist, config, seed, listener)
    return Measured({**found, **read(artist, tasks, config, seed)}, kept)


def said(artist: Artist, config: MakingConfig, seed: int, listener: Listener) -> dict[str, Metric]:
    """Word errors of a recogniser on sentences that were made of tokens, against what was asked
    for and against what was asked for elsewhere."""
    texts = [sentence(seed, "seen", index) for index in range(config.sentences)]
    how = replace(config.sound, most=config.longest, tries=1)
    sounds_of = [one.made for one in artist.sound(texts, 1, how)]
    heard = listener([one for one in sounds_of if isinstance(one, Audio)])
    return {
        "said.wer": word_errors(texts, heard),
        "said.wer_swapped": word_errors(derange(texts), heard),
    }


def read(
    artist: Artist, tasks: Collection[str], config: MakingConfig, seed: int
) -> dict[str, Metric]:
    """Held-out pictures and sounds, described greedily."""
    greedy = DrawConfig(temperature=0.0, most=config.sound.most, batch=config.sound.batch)
    found: dict[str, Metric] = {}
    for split in SPLITS:
        if "i2t" in tasks:
            shown = scenes(seed, split, config.pictures)
            found |= reading(artist, f"read.i2t.{split}", shown, greedy)
        if "a2t" in tasks:
            played = sounds(seed, split, config.sounds)
            found |= reading(artist, f"read.a2t.{split}", played, greedy)
    return found


def known_pictures(sets: Collection[ShardSet]) -> np.ndarray:
    """Codes int32 [M, N] of all training pictures, each once a record."""
    rows = [
        sample.image
        for one in sets
        for i in range(one.len("train"))
        if len((sample := one.sample("train", i)).image)
    ]
    return np.stack(rows) if rows else np.zeros((0, 0), np.int32)
