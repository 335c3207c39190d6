"""The micro-world as sources of text, speech and pictures, unlimited and index-addressable.

Knows: which generator makes which item. Costs: 0.1 ms a text, 0.4 ms a picture, 6 ms a sentence.
"""

from dataclasses import dataclass, replace

from lumoomni.data.sample import PictureItem, Region, SpeechItem, TextItem
from lumoomni.data.world.dialogues import scene_talk, shown_talk, text_sample
from lumoomni.data.world.language import caption, noun, shapeless, uncoloured, untold
from lumoomni.data.world.nameless import bend, dye
from lumoomni.data.world.scene import draw, make_scene
from lumoomni.data.world.sentences import sentence, training_row
from lumoomni.data.world.speech import NARRATOR, augment, synthesize, voice
from lumoomni.data.world.split import COLOURS, SHAPES, rng

# Held-out items come as the world makes them; training sees more of what is slow to learn:
# reading a described scene and repeating words, which both need attention to bind and copy.
TRAIN_SHARES = {"scene": 0.42, "echo": 0.16, "number": 0.22, "follow": 0.12, "talk": 0.08}

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
        else:
            made = text_sample(self.seed, split, index, kind)
        return TextItem(tuple(made.turns), made.accepted, made.kind)

    def size(self, split: str) -> int | None:
        return None


def shown_item(seed: int, split: str, index: int, questions: int) -> TextItem:
    """A scene in a picture's words, with questions about where things stand."""
    made = shown_talk(seed, split, index, questions)
    return TextItem(tuple(made.turns), made.accepted, made.kind)


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
        name = f"{split}-{index}"
        drawn = rng(self.seed, "picture-kind", index)
        single = split == "train" and drawn.random() < SINGLE_SHARE
        scene = make_scene(self.seed, split, index, 1 if single else None)
        said = caption(scene)
        regions = tuple(Region(t.x, t.y, t.radius, noun(t)) for t in scene.things)
        kind = drawn.random() if split == "train" else 1.0
        if kind < DYED_SHARE:
            picture = draw(dye(scene, drawn), self.pixels)
            left = _leave(regions, COLOURS)
            return PictureItem(picture, uncoloured(said), None, name, left, untold(said, COLOURS))
        if kind < DYED_SHARE + BENT_SHARE:
            picture = draw(bend(scene, drawn), self.pixels)
            left = _leave(regions, SHAPES)
            return PictureItem(picture, shapeless(said), None, name, left, untold(said, SHAPES))
        return PictureItem(draw(scene, self.pixels), said, scene, name, regions)

    def size(self, split: str) -> int | None:
        return None
