"""Sound events made by formula, one or two in a row, with captions; and a judge of sounds.

Knows waveforms of 16 kHz. Making one costs about 1 ms, classifying one about 2 ms. The judge
uses features of the signal only, never the way the sounds are made.

Sounds that are listened to have any pitch, level, length and pause, and hiss. Cues are sounds as
one makes them (what sketches are to pictures): at one level, from pitches and lengths of which
there are a few, each event begun on a beat, and a hiss that is the same in each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lumoomni.data.world.asking import QA, Phrasings, accept, word
from lumoomni.data.world.language import article, normalise
from lumoomni.data.world.split import check_split, pick, rng

RATE = 16000
# Events that last as long as one likes, so that "short" and "long" mean something.
LENGTHS = {"short": (0.16, 0.24), "long": (0.6, 0.8)}
SUSTAINED = ("beep", "noise", "buzz")
PHRASINGS = Phrasings(
    (
        "What do you hear?",
        "What can you hear?",
        "Describe the sound.",
        "Tell me what you hear.",
        "What sound is it?",
    ),
    ("Tell me what sound you hear.", "Describe what you hear."),
)


BEAT = 0.04
"""Seconds; a frame of nano's codec is as long."""
CHOICES = 3
"""Pitches and lengths of each kind that cues choose from; the lowest pitch of a range is none, for
harmonics that close are noise to a mel spectrum."""


class Chance(Protocol):
    """The part of `np.random.Generator` that makes waves."""

    def uniform(self, low: float, high: float) -> float:
        """A number between."""
        ...

    def random(self, size: int) -> np.ndarray:
        """Numbers float64[size] in [0, 1)."""
        ...

    def standard_normal(self, size: int) -> np.ndarray:
        """Noise float64[size]."""
        ...


class _Few:
    """Chance of a few choices, and the same phases and noise each time."""

    def __init__(self, stream: np.random.Generator) -> None:
        self._stream, self._same = stream, np.random.default_rng(0)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * (int(self._stream.integers(CHOICES)) + 1) / CHOICES

    def random(self, size: int) -> np.ndarray:
        return self._same.random(size)

    def standard_normal(self, size: int) -> np.ndarray:
        return self._same.standard_normal(size)


@dataclass(frozen=True)
class Sound:
    """float32[T] at 16 kHz in [-1, 1], the names of its events in order, and its caption; of which
    world, split and index it is."""

    samples: np.ndarray
    events: tuple[str, ...]
    caption: str
    split: str
    seed: int
    index: int

    def as_cue(self) -> "Sound":
        """The cue with the same caption."""
        return make_sound(self.seed, self.split, self.index, cue=True)


def _beep(stream: Chance, seconds: float) -> np.ndarray:
    """A steady tone."""
    return np.sin(2 * np.pi * stream.uniform(500, 1600) * _clock(seconds))


def _chirp(stream: Chance, seconds: float) -> np.ndarray:
    """A tone that only rises."""
    low, high = stream.uniform(600, 1100), stream.uniform(2600, 4200)
    return _swept(low * (high / low) ** (_clock(seconds) / seconds))


def _siren(stream: Chance, seconds: float) -> np.ndarray:
    """A tone that rises and falls again and again."""
    turns = 2 * np.pi * stream.uniform(2.2, 3.6) * _clock(seconds)
    return _swept(stream.uniform(700, 1000) * 2 ** (0.55 * np.sin(turns)))


def _drum(stream: Chance, seconds: float) -> np.ndarray:
    """A low beat that falls and fades at once."""
    t = _clock(seconds)
    pitch = stream.uniform(65, 110) * (1 + 0.8 * np.exp(-t / 0.03))
    return _swept(pitch) * np.exp(-t / stream.uniform(0.06, 0.09))


def _noise(stream: Chance, seconds: float) -> np.ndarray:
    """Rushing air."""
    return stream.standard_normal(len(_clock(seconds)))


def _bell(stream: Chance, seconds: float) -> np.ndarray:
    """Partials that are no harmonics, ringing out."""
    t, pitch = _clock(seconds), stream.uniform(500, 900)
    partials = ((1.0, 1.0, 0.30), (2.76, 0.5, 0.2), (5.4, 0.25, 0.12))
    rings = (a * np.sin(2 * np.pi * pitch * r * t) * np.exp(-t / fade) for r, a, fade in partials)
    return sum(rings, np.zeros_like(t))


def _buzz(stream: Chance, seconds: float) -> np.ndarray:
    """A low tone with very many harmonics."""
    t, pitch = _clock(seconds), stream.uniform(85, 150)
    phases = 2 * np.pi * stream.random(25)
    return sum(
        (np.sin(2 * np.pi * pitch * n * t + phases[n]) / n**0.3 for n in range(1, 25)),
        np.zeros_like(t),
    )


def _click(stream: Chance, seconds: float) -> np.ndarray:
    """A snap of a few milliseconds."""
    t = _clock(seconds)
    return stream.standard_normal(len(t)) * np.exp(-t / 0.003)


_MAKERS: dict[str, tuple[Callable[[Chance, float], np.ndarray], float, float]] = {
    "beep": (_beep, 0.0, 0.0),
    "chirp": (_chirp, 0.25, 0.5),
    "siren": (_siren, 0.9, 1.2),
    "drum": (_drum, 0.35, 0.4),
    "noise": (_noise, 0.0, 0.0),
    "bell": (_bell, 0.7, 0.9),
    "buzz": (_buzz, 0.0, 0.0),
    "click": (_click, 0.02, 0.03),
}
EVENTS = tuple(_MAKERS)
_ORDERED = tuple((a, b) for a in EVENTS for b in EVENTS)
# Each event stands once first and once second in these, so training keeps all of it but the order.
HELD_OUT_ORDERS = tuple((a, EVENTS[(i + 3) % len(EVENTS)]) for i, a in enumerate(EVENTS))
_TRAIN_ORDERS = tuple(pair for pair in _ORDERED if pair not in HELD_OUT_ORDERS)


def make_sound(seed: int, split: str, index: int, *, cue: bool = False) -> Sound:
    """The sound of an index, or the cue with the same caption; a pure function of its arguments.

    Half of the sounds have one event and half two; in the unseen split all have two, in an order
    that training never hears. Raises InputError for an unknown split.
    """
    check_split(split)
    stream = rng(seed, "sound", split, index)
    names = _events(stream, split)
    samples = np.concatenate(_cue(stream, names) if cue else _pieces(stream, names))
    samples += _beat_hiss(len(samples)) if cue else _hiss(stream, len(samples))
    caption = ", then ".join(article(" ".join(one for one in name if one)) for name in names)
    events = tuple(event for _, event in names)
    wave = np.clip(samples, -1, 1).astype(np.float32)
    return Sound(wave, events, caption, split, seed, index)


def _events(stream: np.random.Generator, split: str) -> list[tuple[str, str]]:
    """(length or "", event) of each."""
    if split == "unseen":
        events = pick(stream, HELD_OUT_ORDERS)
    elif stream.random() < 0.5:
        events = (pick(stream, EVENTS),)
    else:
        events = pick(stream, _TRAIN_ORDERS)
    return [(pick(stream, tuple(LENGTHS)) if event in SUSTAINED else "", event) for event in events]


def _pieces(stream: np.random.Generator, names: list[tuple[str, str]]) -> list[np.ndarray]:
    """Silence, and each event with silence after it."""
    pieces = [np.zeros(int(stream.uniform(0.02, 0.15) * RATE))]
    for length, event in names:
        wave = _wave(stream, length, event) * stream.uniform(0.55, 0.9)
        pieces += [wave, np.zeros(int(stream.uniform(0.16, 0.25) * RATE))]
    return pieces


def _cue(stream: np.random.Generator, names: list[tuple[str, str]]) -> list[np.ndarray]:
    """As `_pieces`, begun on beats."""
    beat = int(BEAT * RATE)
    pieces = [np.zeros(beat * int(stream.integers(1, 4)))]
    for length, event in names:
        wave = 0.75 * _wave(_Few(stream), length, event)
        pieces += [wave, np.zeros(beat * int(stream.integers(4, 6)) + -len(wave) % beat)]
    return pieces


def _hiss(stream: np.random.Generator, size: int) -> np.ndarray:
    """A faint noise, at any level."""
    return stream.standard_normal(size) * 10 ** (-stream.uniform(50, 65) / 20)


def _beat_hiss(size: int) -> np.ndarray:
    """A faint noise, the same in each beat: codecs know no silence of zeros."""
    once = np.random.default_rng(1).standard_normal(int(BEAT * RATE)) * 10 ** (-52 / 20)
    return np.resize(once, size)


def _wave(chance: Chance, length: str, event: str) -> np.ndarray:
    """One event, as loud as can be."""
    maker, shortest, longest = _MAKERS[event]
    if length:
        shortest, longest = LENGTHS[length]
    wave = maker(chance, float(chance.uniform(shortest, longest)))
    return _faded(wave / np.abs(wave).max())


def sound_request(sound: Sound, generator: np.random.Generator) -> QA:
    """The request to describe a sound, answered by its caption."""
    asked = word(PHRASINGS, sound.split, generator)
    plain = normalise(sound.caption)
    return QA(asked.text, sound.caption, "sound", accept(sound.caption, plain), asked.held_out)


def named_events(text: str) -> tuple[str, ...]:
    """The events that a caption names, in its order."""
    return tuple(word for word in normalise(text).split() if word in EVENTS)


def sound_texts() -> tuple[str, ...]:
    """Texts that together hold every word of these requests and captions."""
    return (*PHRASINGS.all, *LENGTHS, *EVENTS, "a then")


def _clock(seconds: float) -> np.ndarray:
    """Seconds of each sample."""
    return np.arange(int(seconds * RATE)) / RATE


def _swept(pitch: np.ndarray) -> np.ndarray:
    """A tone that follows a pitch in Hz."""
    return np.sin(2 * np.pi * np.cumsum(pitch) / RATE)


def _faded(wave: np.ndarray) -> np.ndarray:
    """The wave with 4 ms fades, so that no edge clicks."""
    edge = np.minimum(1.0, np.arange(1, len(wave) + 1) / (0.004 * RATE))
    if len(wave) < 0.05 * RATE:
        edge = np.ones(len(wave))
    return wave * edge * edge[::-1]
