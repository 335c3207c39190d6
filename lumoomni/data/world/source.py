"""The micro-world as sources of text, speech and pictures, unlimited and index-addressable.

Knows: which generator makes which item. Costs: 0.1 ms a text, 0.4 ms a picture, 6 ms a sentence.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lumoomni.data.sample import UNSEEN, PictureItem, Region, SpeechItem, TextItem
from lumoomni.data.world.dialogues import scene_talk, text_sample
from lumoomni.data.world.language import bare, caption, noun, shapeless, uncoloured, untold
from lumoomni.data.world.nameless import bend, dye
from lumoomni.data.world.scene import Scene, draw, make_scene
from lumoomni.data.world.sentences import sentence, training_row
from lumoomni.data.world.speech import NARRATOR, augment, synthesize, voice
from lumoomni.data.world.split import COLOURS, SHAPES, rng

# Held-out items come as the world makes them; training sees more of what is slow to learn:
# reading a described scene and repeating words, which both need attention to bind and copy.
TRAIN_SHARES = {"scene": 0.42, "echo": 0.16, "number": 0.22, "follow": 0.12, "talk": 0.08}

# Short questions that have nothing to do with each other, one conversation of so many: alone they
# are half padding, and a batch holds few.
TOGETHER = {"number": 5, "talk": 3, "echo": 2}

ROW_SHARE = 0.25
"""Share of training speech that is rows of random words."""
QUESTIONS = 4
"""Questions about each described scene in training."""
SINGLE_SHARE = 0.4
"""Share of training pictures of one thing, on top of those the world has: which word belongs to
what is seen there is never in doubt."""
DYED_SHARE = 0.4
"""Share of training pictures in inks without a name, captioned without colours: no shape can then
be guessed from a colour, which is what fails on pairs that training never shows."""
BENT_SHARE = 0.25
"""Share of training pictures of shapes without a name: no colour is guessed from a shape."""


@dataclass(frozen=True)
class WorldText:
    """Conversations."""

    seed: int

    def item(self, split: str, index: int) -> TextItem:
        kind = None
        if split == "train":
            draw_from = rng(self.seed, "text-kind", index)
            kind = str(draw_from.choice(list(TRAIN_SHARES), p=list(TRAIN_SHARES.values())))
        if kind == "scene":
            made = scene_talk(self.seed, split, index, QUESTIONS)
        elif split == "train" and (count := TOGETHER.get(str(kind), 1)) > 1:
            each = [text_sample(self.seed, split, count * index + i, kind) for i in range(count)]
            turns = tuple(turn for one in each for turn in one.turns)
            return TextItem(turns, each[-1].accepted, each[-1].kind)
        else:
            made = text_sample(self.seed, split, index, kind)
        return TextItem(tuple(made.turns), made.accepted, made.kind)

    def size(self, split: str) -> int | None:
        return None


@dataclass(frozen=True)
class WorldSpeech:
    """Spoken sentences: many voices with noise, or the narrator alone and clean.

    Splits `unseen` and `other` say held-out sentences in unheard voices, and in another
    synthesiser family.
    """

    seed: int
    narrator: bool = False

    def item(self, split: str, index: int) -> SpeechItem:
        if split == "train" and rng(self.seed, "row?", index).random() < ROW_SHARE:
            text = training_row(self.seed, index)
        else:
            text = sentence(self.seed, "train" if split == "train" else "seen", index)
        who = NARRATOR if self.narrator else voice(self.seed, split, index)
        said = synthesize(text, who)
        samples = said.samples
        stream = rng(self.seed, "noise", split, index)
        # Half stays clean: a recogniser that only ever heard noise fails on silence.
        if not self.narrator and split == "train" and stream.random() < 0.5:
            samples = augment(samples, stream)
        return SpeechItem(text, samples, said.words, f"{split}-{index}")

    def size(self, split: str) -> int | None:
        return None


def _leave(regions: tuple[Region, ...], words: tuple[str, ...]) -> tuple[Region, ...]:
    """The regions with such words left open."""
    return tuple(replace(region, text=untold(region.text, words)) for region in regions)


@dataclass(frozen=True)
class WorldPictures:
    """Scenes with captions that state all attributes, or in training all that have a name."""

    seed: int
    pixels: int

    def item(self, split: str, index: int) -> PictureItem:
        return _shown(self.seed, split, index, lambda scene: draw(scene, self.pixels))

    def outline(self, split: str, index: int) -> PictureItem:
        """The item without its picture."""
        return _shown(self.seed, split, index, lambda scene: UNSEEN)

    def fingerprints(self, split: str, index: int) -> tuple[str, ...]:
        """Of the pixels: they are drawn for it."""
        return (hashlib.sha256(self.item(split, index).image.tobytes()).hexdigest(),)

    def size(self, split: str) -> int | None:
        return None


def _shown(seed: int, split: str, index: int, paint: Callable[[Scene], np.ndarray]) -> PictureItem:
    """What is said of a scene, and what `paint` makes of it: it is called once."""
    name = f"{split}-{index}"
    drawn = rng(seed, "picture-kind", index)
    single = split == "train" and drawn.random() < SINGLE_SHARE
    scene = make_scene(seed, split, index, 1 if single else None)
    said, words = caption(scene), bare(scene)
    regions = tuple(Region(t.x, t.y, t.radius, noun(t)) for t in scene.things)
    kind = drawn.random() if split == "train" else 1.0
    if kind < DYED_SHARE:
        picture = paint(dye(scene, drawn))
        left = _leave(regions, COLOURS)
        return PictureItem(picture, uncoloured(said), None, name, left, untold(words, COLOURS))
    if kind < DYED_SHARE + BENT_SHARE:
        picture = paint(bend(scene, drawn))
        left = _leave(regions, SHAPES)
        return PictureItem(picture, shapeless(said), None, name, left, untold(words, SHAPES))
    return PictureItem(paint(scene), said, scene, name, regions, words)
