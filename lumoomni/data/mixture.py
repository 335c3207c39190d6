"""The instruction mixture: conversations about pictures, sounds and text, by index.

Knows: which tasks there are and how each sample becomes a conversation.
Does not know: models. Every sample is a pure function of (seed, split, index).
Costs: 6 ms where something is spoken, under a millisecond elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lumoomni.data.conversation import Example, Turn, picture_turns, text_turns
from lumoomni.data.sample import (
    PictureItem,
    PictureSource,
    Source,
    SpeechItem,
    TextItem,
    take,
)
from lumoomni.data.sources import Fits, open_pictures, open_speech, open_text
from lumoomni.data.world.arriving import arriving
from lumoomni.data.world.asking import QA
from lumoomni.data.world.comparing import compared, two_scenes
from lumoomni.data.world.language import caption, copied, normalise, uncoloured
from lumoomni.data.world.nameless import bend, dye
from lumoomni.data.world.questions import (
    PLACE_KINDS,
    description,
    kinds_for,
    visual_question,
)
from lumoomni.data.world.scene import Scene, draw, make_scene
from lumoomni.data.world.sensed import SPOKEN_KINDS, WRITE_DOWN
from lumoomni.data.world.speech import augment, synthesize, voice
from lumoomni.data.world.split import COLOURS, SHAPES, pick, rng

TASKS = ("caption", "look", "write_down", "spoken", "spoken_look", "text", "compare")
COUNTING = ("count", "count_some")
DESCRIBE = "Describe the picture."
WITHOUT_COLOURS = (
    "Describe the picture without colours.",
    "What do you see, apart from colours?",
    "Describe only sizes and shapes.",
)


@dataclass(frozen=True, kw_only=True)
class InstructMixture:
    """Where things come from, and how often each task is drawn."""

    pictures: str = "world"
    speech: str = "world"
    text: str = "world"
    caption: float = 0.05
    look: float = 0.42
    write_down: float = 0.11
    spoken: float = 0.16
    spoken_look: float = 0.12
    text_share: float = 0.14
    compare: float = 0.06
    place: float = 0.6
    """Share of training questions about pictures of several things that ask where they stand."""
    several: float = 0.85
    """Share of training pictures to be asked about that show two or three things."""
    looks: int = 8
    """Questions about one picture in training, one turn each: a picture is dear, a question is
    not, and each answer teaches to read it."""
    later: float = 0.0
    """Share of training rows about a picture in which another comes half the way, and is meant
    from there on by what names none."""
    colourless: float = 0.35
    """Share of training pictures in inks without a name, described without colours, so that a
    shape is read from the picture and not guessed from the word before it."""
    nameless: float = 0.3
    """Share of training pictures to be asked about whose inks or outlines have no name."""

    def __post_init__(self) -> None:
        if min(self.shares()) < 0 or sum(self.shares()) <= 0:
            raise ValueError(f"task shares must be positive and not all zero, got {self.shares()}")

    def shares(self) -> tuple[float, ...]:
        """In the order of TASKS. Spoken questions need the micro-world's truth."""
        world = self.pictures == "world"
        return (
            self.caption,
            self.look if world else 0.0,
            self.write_down,
            self.spoken if self.text == "world" else 0.0,
            self.spoken_look if world else 0.0,
            self.text_share,
            self.compare if world else 0.0,
        )


class InstructData:
    """Samples by index; `task` can be fixed for measuring; `fits` says what speech has room."""

    def __init__(
        self, mixture: InstructMixture, seed: int, pixels: int, fits: Fits | None = None
    ) -> None:
        self.mixture, self.seed, self.pixels = mixture, seed, pixels
        self._pictures: PictureSource = open_pictures(mixture.pictures, seed, pixels)
        self._speech: Source[SpeechItem] = open_speech(mixture.speech, seed, fits=fits)
        self._text: Source[TextItem] = open_text(mixture.text, seed)
        shares = np.array(mixture.shares())
        self._edges = np.cumsum(shares / shares.sum())

    def item(self, split: str, index: int, task: str | None = None) -> Example:
        """One conversation of the drawn (or given) task; `count` and `relation` are never drawn."""
        stream = rng(self.seed, "mixture", split, index, task or "")
        if task is None:
            task = TASKS[int(np.searchsorted(self._edges, stream.random(), side="right"))]
        return {
            "caption": self._caption,
            "look": self._look,
            "write_down": self._write_down,
            "spoken": self._spoken,
            "spoken_look": self._spoken_look,
            "text": self._plain,
            "compare": self._compare,
            "count": self._count,
            "relation": self._relation,
            "later": self._later,
        }[task](split, index, stream)

    def count(self, split: str, task: str, most: int) -> int:
        """How many different conversations of a task there are, at most `most`: finite data starts
        over past its end, and measuring the same item again would inflate `n`."""
        finite: dict[str, Source[Any]] = {
            "caption": self._pictures,
            "write_down": self._speech,
            "text": self._text,
        }
        size = finite[task].size(split) if task in finite else None
        return most if size is None else min(most, size)

    def finite(self) -> dict[str, Iterator[tuple[Turn, ...]]]:
        """Every conversation without sound of other people's data, trained on and held out, by the
        name of the data; no picture is looked at."""
        pictures, text, found = self._pictures, self._text, dict[str, Iterator[tuple[Turn, ...]]]()
        if text.size("train") is not None:
            found[self.mixture.text] = (text_turns(text.item(*at)) for at in _every(text))
        if pictures.size("train") is not None:
            found[self.mixture.pictures] = (
                picture_turns(pictures.outline(*at), DESCRIBE) for at in _every(pictures)
            )
        return found

    def pictures(self, count: int) -> list[PictureItem]:
        """The first training pictures with their captions (fewer if there are fewer)."""
        return take(self._pictures, "train", count)

    def scene(self, split: str, index: int) -> Scene:
        """The scene that the picture tasks show at this index."""
        return make_scene(self.seed, split, index)

    def _caption(self, split: str, index: int, stream: np.random.Generator) -> Example:
        if self.mixture.pictures != "world":
            item = self._pictures.item(split, index)
            turns = picture_turns(item, DESCRIBE)
            return Example(turns=turns, accepted=(item.caption,), kind="caption")
        scene = self.scene(split, index)
        if split == "train" and stream.random() < self.mixture.colourless:
            asked = without_colours(scene, stream)
            picture = draw(dye(scene, stream), self.pixels)
        else:
            asked = description(scene, stream)
            picture = draw(scene, self.pixels)
        return _pair(asked.question, asked.answer, asked.accepted, "caption", images=(picture,))

    def _look(self, split: str, index: int, stream: np.random.Generator) -> Example:
        if split == "train" and self.mixture.later and stream.random() < self.mixture.later:
            return self._later(split, index, stream)
        scene = self._asked_scene(split, index, stream)
        count = self.mixture.looks if split == "train" else 1
        if split == "train" and stream.random() < self.mixture.nameless:
            picture, asked = self._nameless(scene, count, stream)
        else:
            picture = draw(scene, self.pixels)
            asked = [self._ask(scene, stream) for _ in range(count)]
            if split == "train":
                asked[int(stream.integers(count))] = description(scene, stream)
        return _talk(asked, (picture,), "look")

    def _later(self, split: str, index: int, stream: np.random.Generator) -> Example:
        """Pictures in two turns; measured is what is asked about the last one."""
        pair = two_scenes(self.seed, split, index)
        third = self._asked_scene(split, index, stream)
        count = max(1, self.mixture.looks // 2) if split == "train" else 1
        turns: list[Turn] = []
        accepted: tuple[str, ...] = ()
        for moment in arriving(pair, third, self._ask, count, stream):
            pictures = tuple(draw(scene, self.pixels) for scene in moment.scenes)
            turns += _talk(moment.asked, pictures, "later").turns
            accepted = moment.asked[-1].accepted
        return Example(turns=tuple(turns), accepted=accepted, kind="later")

    def _compare(self, split: str, index: int, stream: np.random.Generator) -> Example:
        """Two pictures; measured are the questions which of them has something."""
        scenes = two_scenes(self.seed, split, index)
        count, kind = (self.mixture.looks, "") if split == "train" else (1, "which")
        pictures = tuple(draw(scene, self.pixels) for scene in scenes)
        return _talk([compared(scenes, stream, kind) for _ in range(count)], pictures, "compare")

    def _count(self, split: str, index: int, stream: np.random.Generator) -> Example:
        """How many things there are, in all or of a kind."""
        scene = self.scene(split, index)
        asked = visual_question(scene, stream, pick(stream, COUNTING))
        return _talk([asked], (draw(scene, self.pixels),), "count")

    def _relation(self, split: str, index: int, stream: np.random.Generator) -> Example:
        """Where things stand."""
        scene = make_scene(self.seed, split, index, 2 + int(stream.integers(2)))
        asked = visual_question(scene, stream, pick(stream, PLACE_KINDS[len(scene.things)]))
        return _talk([asked], (draw(scene, self.pixels),), "relation")

    def _asked_scene(self, split: str, index: int, stream: np.random.Generator) -> Scene:
        """The scene of an index; in training more often one of several things."""
        if split != "train" or stream.random() >= self.mixture.several:
            return self.scene(split, index)
        return make_scene(self.seed, split, index, 2 + int(stream.integers(2)))

    def _nameless(
        self, scene: Scene, count: int, stream: np.random.Generator
    ) -> tuple[np.ndarray, list[QA]]:
        """Things in inks or outlines without a name, and questions that need no such name.

        Whoever learned from named pairs alone that yellow is never a triangle learns here that a
        colour says nothing about a shape.
        """
        bent = bool(stream.random() < 0.4)
        picture = draw((bend if bent else dye)(scene, stream), self.pixels)
        untold = SHAPES if bent else COLOURS
        asked: list[QA] = [] if bent else [without_colours(scene, stream)]
        for _ in range(30 * count):
            qa = self._ask(scene, stream)
            if not set(normalise(f"{qa.question} {qa.answer}").split()) & set(untold):
                asked.append(qa)
            if len(asked) == count:
                break
        asked = asked or [visual_question(scene, stream, "count")]
        order = stream.permutation(len(asked))
        return picture, [asked[int(i)] for i in order]

    def _ask(self, scene: Scene, stream: np.random.Generator) -> QA:
        """A question about a scene; in training more often about where things stand."""
        kinds = kinds_for(scene)
        if scene.split == "train" and stream.random() < self.mixture.place:
            kinds = PLACE_KINDS[len(scene.things)] or kinds
        return visual_question(scene, stream, pick(stream, kinds))

    def _write_down(self, split: str, index: int, stream: np.random.Generator) -> Example:
        item = self._speech.item(split, index)
        request = WRITE_DOWN[int(stream.integers(len(WRITE_DOWN)))]
        # Sound has no capitals or stops; only a transcript that someone wrote may ask for them.
        said = normalise(item.text) if self.mixture.speech == "world" else item.text
        return _pair(request, copied(said), (said,), "write_down", sounds=(item.samples,))

    def _spoken(self, split: str, index: int, stream: np.random.Generator) -> Example:
        for attempt in range(1000):
            item = self._text.item(split, index * 1000 + attempt)
            if item.kind in SPOKEN_KINDS:
                (_, question), (_, reply) = item.turns[-2:]
                sound = self._say(question, split, index, stream)
                return _pair("", reply, item.accepted, "spoken", sounds=(sound,))
        raise RuntimeError(f"no spoken question found near index {index} of split {split}")

    def _spoken_look(self, split: str, index: int, stream: np.random.Generator) -> Example:
        scene = self._asked_scene(split, index, stream)
        asked = self._ask(scene, stream)
        sound = self._say(asked.question, split, index, stream)
        return _pair(
            "",
            asked.answer,
            asked.accepted,
            "spoken_look",
            images=(draw(scene, self.pixels),),
            sounds=(sound,),
        )

    def _plain(self, split: str, index: int, stream: np.random.Generator) -> Example:
        item = self._text.item(split, index)
        return Example(turns=text_turns(item), accepted=item.accepted, kind="text")

    def _say(self, text: str, split: str, index: int, stream: np.random.Generator) -> np.ndarray:
        # Unseen pairs are asked in voices that were heard: one novelty at a time.
        who = voice(self.seed, "train" if split == "train" else "seen", index)
        samples = synthesize(text, who).samples
        return augment(samples, stream) if split == "train" and stream.random() < 0.5 else samples


def _every(source: Source[Any]) -> list[tuple[str, int]]:
    """Split and index of each item of a finite source."""
    return [(split, i) for split in ("train", "seen") for i in range(source.size(split) or 0)]


def _talk(asked: Sequence[QA], pictures: tuple[np.ndarray, ...], kind: str) -> Example:
    """Pictures, and one turn for each question about them."""
    turns: list[Turn] = []
    for place, qa in enumerate(asked):
        images = pictures if place == 0 else ()
        turns.append(Turn(role="user", text=qa.question, images=images))
        turns.append(Turn(role="assistant", text=qa.answer))
    return Example(turns=tuple(turns), accepted=asked[-1].accepted, kind=kind)


def without_colours(scene: Scene, stream: np.random.Generator) -> QA:
    """A request for sizes, shapes and places alone."""
    asked = WITHOUT_COLOURS[int(stream.integers(len(WITHOUT_COLOURS)))]
    answer = uncoloured(caption(scene))
    return QA(asked, answer, "describe", (answer,), False)


def _pair(
    request: str,
    reply: str,
    accepted: tuple[str, ...],
    kind: str,
    *,
    images: tuple[np.ndarray, ...] = (),
    sounds: tuple[np.ndarray, ...] = (),
) -> Example:
    asked = Turn(role="user", text=request, images=images, sounds=sounds)
    return Example(turns=(asked, Turn(role="assistant", text=reply)), accepted=accepted, kind=kind)
