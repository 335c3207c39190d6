"""How well a model draws and sounds what it is asked for, and reads what it is shown; by making it.

Knows: the micro-world's scenes and sounds, its judges of pixels and waveforms, and an `Artist`.
Does not know: thresholds, or how the model was trained. Costs: some 20 ms a picture drawn and
judged, 100 ms a sound.

Everything is asked three times: with its own prompt, with another one's, with none. What does not
fall when the prompt is wrong was not drawn from it. The codec bounds all: the same scenes and
sounds, only encoded and decoded, are judged beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lumoomni.audits.ablation import strangers
from lumoomni.data.world.hearing import classify
from lumoomni.data.world.language import Facts, caption, facts, matches
from lumoomni.data.world.marking import ATTRIBUTES, Marks, mark
from lumoomni.data.world.reading import read_picture
from lumoomni.data.world.scene import Scene, draw, make_scene
from lumoomni.data.world.sketch import sketch
from lumoomni.data.world.sounds import RATE, Sound, make_sound, named_events
from lumoomni.errors import InputError
from lumoomni.gates import Metric, bootstrap_mean, bootstrap_ratio, wilson
from lumoomni.infer.draw import Artist, DrawConfig, Made, shifted
from lumoomni.media.audio import Audio
from lumoomni.uti.interface import Segment, TokenSpan


@dataclass(frozen=True)
class Score:
    """Questions answered rightly and asked, of one picture, sound or text."""

    right: int
    asked: int

    @property
    def whole(self) -> bool:
        """Whether everything was right."""
        return self.right == self.asked


@dataclass(frozen=True)
class Sheet:
    """What was made of some prompts, and how each was judged."""

    prompts: tuple[str, ...]
    made: tuple[Made, ...]
    scores: tuple[Score, ...]


def scenes(seed: int, split: str, count: int) -> list[Scene]:
    """Scenes that training never showed."""
    return [make_scene(seed, split, index) for index in range(count)]


def sounds(seed: int, split: str, count: int) -> list[Sound]:
    """Sounds that training never played."""
    return [make_sound(seed, split, index) for index in range(count)]


def judge_picture(picture: np.ndarray, scene: Scene) -> Score:
    """uint8 [S, S, 3]: how much of the scene is read off it."""
    return _score(mark(read_picture(picture), scene))


def judge_sound(sound: Audio, wanted: Sound) -> Score:
    """How many of the events are heard, in their order; too many events count as wrong ones."""
    heard = classify(sound.samples) if sound.rate == RATE else ()
    right = sum(a == b for a, b in zip(heard, wanted.events, strict=False))
    return Score(right, max(len(heard), len(wanted.events)))


def judge_caption(text: str, scene: Scene) -> Score:
    """How many attributes of the scene's things, and the relation, a text says rightly."""
    asked = 3 * len(scene.things) + 1
    said = facts(text)
    if matches(scene, text):
        return Score(asked, asked)
    if said is None:
        return Score(0, asked)
    return Score(_attributes_right(said, scene), asked)


def judge_events(text: str, sound: Sound) -> Score:
    """How many events a text names in their order."""
    named = named_events(text)
    right = sum(a == b for a, b in zip(named, sound.events, strict=False))
    return Score(right, max(len(named), len(sound.events)))


def _attributes_right(said: Facts, scene: Scene) -> int:
    """Attributes in common, thing by thing, in the order that serves best."""
    left = [(one.size, one.colour, one.shape) for one in said.things]
    right = 0
    for thing in scene.things:
        truth = (thing.size, thing.colour, thing.shape)
        if not left:
            break
        best = max(left, key=lambda one: sum(a == b for a, b in zip(one, truth, strict=True)))
        right += sum(a == b for a, b in zip(best, truth, strict=True))
        left.remove(best)
    return right


def _score(marks: Marks) -> Score:
    return Score(*(sum(part[name] for name in ATTRIBUTES) for part in (marks.right, marks.asked)))


def ask(
    artist: Artist,
    kind: str,
    wanted: Sequence[Scene] | Sequence[Sound],
    prompts: Sequence[str],
    config: DrawConfig,
) -> Sheet:
    """Pictures or sounds (`image`, `audio`) of prompts, judged by what was wanted."""
    made = artist.make(kind, list(prompts), config)
    scores = [_judged(one.made, thing) for one, thing in zip(made, wanted, strict=True)]
    return Sheet(tuple(prompts), tuple(made), tuple(scores))


def _judged(made: object, wanted: Scene | Sound) -> Score:
    if isinstance(wanted, Scene):
        assert isinstance(made, np.ndarray)
        return judge_picture(made, wanted)
    assert isinstance(made, Audio)
    return judge_sound(made, wanted)


def prompts_of(wanted: Sequence[Scene] | Sequence[Sound]) -> list[str]:
    """The caption of each."""
    return [caption(one) if isinstance(one, Scene) else one.caption for one in wanted]


def media_of(artist: Artist, wanted: Sequence[Scene] | Sequence[Sound]) -> list[Segment]:
    """Pictures to look at, at the codec's size, or sounds."""
    return [
        draw(one, artist.uti.space.codec("image").image_size)
        if isinstance(one, Scene)
        else Audio(one.samples, RATE)
        for one in wanted
    ]


def drawings_of(artist: Artist, wanted: Sequence[Scene] | Sequence[Sound]) -> list[Segment]:
    """Scenes as they are to be drawn, at the codec's size, and sounds as they are to be made."""
    return [
        sketch(one, artist.uti.space.codec("image").image_size)
        if isinstance(one, Scene)
        else Audio(one.as_cue().samples, RATE)
        for one in wanted
    ]


def conditions(
    artist: Artist,
    kind: str,
    wanted: Sequence[Scene] | Sequence[Sound],
    config: DrawConfig,
) -> dict[str, Sheet]:
    """The sheets of the right prompts, of other ones' and of none.

    Raises ValueError when all prompts are the same.
    """
    own = prompts_of(wanted)
    swapped = [own[k] for k in strangers(own)]
    asked = {"correct": own, "swapped": swapped, "empty": [""] * len(own)}
    return {name: ask(artist, kind, wanted, said, config) for name, said in asked.items()}


def through_codec(artist: Artist, wanted: Sequence[Scene] | Sequence[Sound]) -> list[Score]:
    """The scores of the true pictures or sounds, encoded and decoded: what a model can reach."""
    spans = artist.uti.encode_batch(drawings_of(artist, wanted))
    return [_judged(artist.uti.decode(s), w) for s, w in zip(spans, wanted, strict=True)]


def condition_metrics(
    name: str, split: str, sheets: dict[str, Sheet], codec: Sequence[Score]
) -> dict[str, Metric]:
    """`NAME.whole.SPLIT`, attributes by condition, gains over wrong prompts with paired intervals,
    and what the codec alone reaches."""
    right = sheets["correct"].scores
    found = {
        f"{name}.whole.{split}": whole(right),
        f"{name}.codec_whole.{split}": whole(codec),
        f"{name}.codec_attributes.{split}": attributes(codec),
    }
    for condition, sheet in sheets.items():
        ending = "" if condition == "correct" else f".{condition}"
        found[f"{name}.attributes.{split}{ending}"] = attributes(sheet.scores)
        if condition != "correct":
            gain = [
                a.right / a.asked - b.right / b.asked
                for a, b in zip(right, sheet.scores, strict=True)
            ]
            found[f"{name}.over_{condition}.{split}"] = bootstrap_mean(gain)
    return found


def whole(scores: Sequence[Score]) -> Metric:
    """The share of which all is right."""
    return wilson(sum(one.whole for one in scores), len(scores))


def attributes(scores: Sequence[Score]) -> Metric:
    """Questions answered rightly, over all asked; the interval is over pictures."""
    return bootstrap_ratio([float(s.right) for s in scores], [float(s.asked) for s in scores])


def form(artist: Artist, sheets: Sequence[Sheet]) -> dict[str, Metric]:
    """Whether all that was made obeys the grammar and decodes to its size, and how much probability
    the grammar had to take away."""
    made = [one for sheet in sheets for one in sheet.made]
    good = [_decodable(artist, one) for one in made]
    pressure = [one.pressure for one in made if one.pressure is not None]
    found = {"made.decodable": wilson(sum(good), len(good))}
    if pressure:
        found["made.pressure"] = bootstrap_mean(pressure)
    return found


def _decodable(artist: Artist, made: Made) -> bool:
    kind = "image" if isinstance(made.made, np.ndarray) else "audio"
    ids = artist.uti.join([TokenSpan(kind, made.ids)])
    if artist.uti.grammar.check(ids.tolist()):
        return False
    if isinstance(made.made, Audio):
        return len(made.made.samples) > 0 and bool(np.isfinite(made.made.samples).all())
    size = artist.uti.space.codec("image").image_size
    return isinstance(made.made, np.ndarray) and made.made.shape == (size, size, 3)


def diversity(artist: Artist, prompts: Sequence[str], config: DrawConfig) -> Metric:
    """The mean share of ids in which two pictures of one prompt differ."""
    one, two = (artist.draw(prompts, 1, shifted(config, by)) for by in (1, 2))
    return bootstrap_mean([float((a.ids != b.ids).mean()) for a, b in zip(one, two, strict=True)])


def nearest(ids: Sequence[np.ndarray], known: np.ndarray) -> list[float]:
    """For each picture's ids [N] the share that differs from the nearest of `known` [M, N].

    Raises InputError when nothing is known.
    """
    if not len(known):
        raise InputError("there is no training picture to compare with; give some")
    return [float((known != one).mean(1).min()) for one in ids]


def copies(
    drawn: Sequence[np.ndarray], held: Sequence[np.ndarray], known: np.ndarray, close: float
) -> dict[str, Metric]:
    """How far drawn pictures are from the nearest training one, beside new pictures of the same
    prompts; a copy differs in no more than the share `close` of its ids.

    Where little can differ, new pictures are copies too, by chance: `draw.copied` is how much more
    often drawn ones are.
    """
    far, new = nearest(drawn, known), nearest(held, known)
    same, chance = ([one <= close for one in some] for some in (far, new))
    more = [float(a) - float(b) for a, b in zip(same, chance, strict=True)]
    return {
        "draw.nearest": bootstrap_mean(far),
        "draw.nearest_of_new": bootstrap_mean(new),
        "draw.copies": wilson(sum(same), len(same)),
        "draw.copies_of_new": wilson(sum(chance), len(chance)),
        "draw.copied": bootstrap_mean(more),
    }


def reading(
    artist: Artist,
    name: str,
    wanted: Sequence[Scene] | Sequence[Sound],
    config: DrawConfig,
) -> dict[str, Metric]:
    """How well held-out pictures or sounds are described: whole captions, and their attributes."""
    texts = [str(one.made) for one in artist.read(media_of(artist, wanted), config)]
    scores = [
        judge_caption(text, one) if isinstance(one, Scene) else judge_events(text, one)
        for text, one in zip(texts, wanted, strict=True)
    ]
    return {f"{name}.whole": whole(scores), f"{name}.attributes": attributes(scores)}
