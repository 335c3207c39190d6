"""The audit of drawing, with stand-ins that draw rightly, always the same, or what they like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from lumoomni.audits.drawing import (
    Score,
    condition_metrics,
    conditions,
    copies,
    diversity,
    form,
    judge_caption,
    judge_events,
    judge_picture,
    judge_sound,
    prompts_of,
    reading,
    scenes,
    sounds,
    through_codec,
)
from lumoomni.data.world.language import caption
from lumoomni.data.world.scene import Scene, draw
from lumoomni.data.world.sounds import Sound
from lumoomni.errors import InputError
from lumoomni.infer.draw import DrawConfig, Made
from lumoomni.media.audio import Audio

SIDE, COUNT = 64, 12
WANTED = scenes(0, "seen", COUNT)
GREY = np.full((SIDE, SIDE, 3), 128, np.uint8)
BY_PROMPT = {caption(one): draw(one, SIDE) for one in WANTED}
CONFIG = DrawConfig(watch=True)


@dataclass(frozen=True)
class StandIn:
    """Draws by a rule (number of the request, prompt, seed) -> picture; says what it is told to."""

    rule: Callable[[int, str, int], np.ndarray]
    said: Callable[[int], str] = lambda number: ""
    legal: bool = True

    @property
    def uti(self) -> SimpleNamespace:
        facts = SimpleNamespace(image_size=SIDE)
        return SimpleNamespace(
            space=SimpleNamespace(codec=lambda kind: facts),
            encode_batch=lambda media: list(media),
            decode=lambda medium: medium,
            join=lambda spans: np.concatenate([one.ids for one in spans]),
            grammar=SimpleNamespace(check=lambda ids: "" if self.legal else "wrong"),
        )

    def make(self, kind: str, asked: Sequence[str], config: DrawConfig) -> list[Made]:
        pictures = [self.rule(i, prompt, config.seed) for i, prompt in enumerate(asked)]
        return [
            Made(prompt, one, one.reshape(-1, 3)[::64, 0].astype(np.int64), 0.25)
            for prompt, one in zip(asked, pictures, strict=True)
        ]

    def draw(self, prompts: Sequence[str], n: int, config: DrawConfig) -> list[Made]:
        return self.make("image", prompts, config)

    def read(self, media: Sequence[object], config: DrawConfig) -> list[Made]:
        return [Made("", self.said(i), np.zeros(1), None) for i in range(len(media))]


def right(number: int, prompt: str, seed: int) -> np.ndarray:
    return BY_PROMPT.get(prompt, GREY)


def deaf(number: int, prompt: str, seed: int) -> np.ndarray:
    """The right pictures in their order, whatever is asked for."""
    return draw(WANTED[number], SIDE)


def measured(artist: StandIn) -> dict:
    sheets = conditions(artist, "image", WANTED, CONFIG)  # type: ignore[arg-type]
    codec = through_codec(artist, WANTED)  # type: ignore[arg-type]
    found = condition_metrics("draw", "seen", sheets, codec)
    return {**found, **form(artist, list(sheets.values()))}  # type: ignore[arg-type]


def test_who_draws_what_is_asked_is_right_and_only_then() -> None:
    found = measured(StandIn(right))
    assert found["draw.whole.seen"].value == 1 and found["draw.codec_whole.seen"].value == 1
    assert found["draw.attributes.seen"].value == 1
    assert found["draw.attributes.seen.empty"].value == 0
    assert 0 < found["draw.attributes.seen.swapped"].value < 0.7
    for other in ("swapped", "empty"):
        assert found[f"draw.over_{other}.seen"].low > 0.2
    assert found["made.decodable"].value == 1 and found["made.pressure"].value == 0.25


def test_who_does_not_listen_gains_nothing_by_the_right_prompt() -> None:
    found = measured(StandIn(deaf))
    assert found["draw.whole.seen"].value == 1
    assert found["draw.over_swapped.seen"].low == found["draw.over_empty.seen"].low == 0


def test_what_breaks_the_grammar_or_the_size_is_not_decodable() -> None:
    assert measured(StandIn(right, legal=False))["made.decodable"].value == 0

    def small(number: int, prompt: str, seed: int) -> np.ndarray:
        return draw(WANTED[number], 32 if number else SIDE)

    assert measured(StandIn(small))["made.decodable"].value == pytest.approx(1 / COUNT)


def test_chance_shows_and_memory_is_found() -> None:
    prompts = prompts_of(WANTED)
    assert diversity(StandIn(right), prompts, CONFIG).value == 0  # type: ignore[arg-type]

    def moody(number: int, prompt: str, seed: int) -> np.ndarray:
        return np.full_like(GREY, seed)

    assert diversity(StandIn(moody), prompts, CONFIG).value == 1  # type: ignore[arg-type]
    source = np.random.default_rng(0)
    known, new = source.integers(0, 50, (200, 64)), source.integers(0, 50, (20, 64))
    drawn = [known[3], *new[:3]]
    found = copies(drawn, list(new[:4]), known, 0.03)
    assert found["draw.copies"].value == found["draw.copied"].value == 0.25
    assert found["draw.nearest"].value < found["draw.nearest_of_new"].value
    almost = known[7].copy()
    almost[0] += 1
    assert copies([almost], [new[0]], known, 0.03)["draw.copies"].value == 1
    assert copies([almost], [new[0]], known, 0.0)["draw.copies"].value == 0
    # Where new pictures are training ones too, drawing such is no sign of memory.
    chance = copies([known[3]], [known[9]], known, 0.03)
    assert (chance["draw.copies"].value, chance["draw.copied"].value) == (1, 0)
    with pytest.raises(InputError, match="no training picture"):
        copies(drawn, list(new), known[:0], 0.03)


def test_pictures_and_sounds_are_judged_by_what_was_wanted() -> None:
    one, two = WANTED[0], next(s for s in WANTED if len(s.things) != len(WANTED[0].things))
    assert judge_picture(draw(one, SIDE), one).whole
    assert not judge_picture(draw(two, SIDE), one).whole
    assert judge_picture(GREY, one).right == 0
    heard = sounds(0, "seen", 10)
    assert all(judge_sound(Audio(s.samples, 16000), s).whole for s in heard)
    single, pair = (next(s for s in heard if len(s.events) == n) for n in (1, 2))
    assert judge_sound(Audio(pair.samples, 16000), single).asked == 2
    silence = Audio(np.zeros(8000, np.float32), 16000)
    assert judge_sound(silence, pair) == Score(0, 2)


def test_texts_are_judged_thing_by_thing() -> None:
    scene: Scene = next(one for one in WANTED if len(one.things) == 2)
    said = caption(scene)
    assert judge_caption(said, scene).whole
    thing = scene.things[0]
    other = "small" if thing.size == "large" else "large"
    wrong = said.replace(f"{thing.size} {thing.colour}", f"{other} {thing.colour}")
    assert judge_caption(wrong, scene) == Score(5, 7)
    assert judge_caption("hello", scene) == Score(0, 7)
    sound: Sound = next(one for one in sounds(0, "seen", 10) if len(one.events) == 2)
    assert judge_events(sound.caption, sound).whole
    assert judge_events(f"a {sound.events[0]}", sound) == Score(1, 2)
    assert judge_events("nothing", sound) == Score(0, 2)


def test_reading_asks_for_texts_of_held_out_media() -> None:
    artist = StandIn(right, said=lambda number: caption(WANTED[number]))
    found = reading(artist, "read", WANTED, CONFIG)  # type: ignore[arg-type]
    assert found["read.whole"].value == found["read.attributes"].value == 1
    turned = StandIn(right, said=lambda number: caption(WANTED[number - 1]))
    found = reading(turned, "read", WANTED, CONFIG)  # type: ignore[arg-type]
    assert found["read.whole"].value < 0.2 and found["read.attributes"].value < 0.7
