"""Sound events made by formula, one or two in a row, with captions; and a judge of sounds.

Knows waveforms of 16 kHz. Making one costs about 1 ms, classifying one about 2 ms. The judge
uses features of the signal only, never the way the sounds are made.
"""

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Sound:
    """float32[T] at 16 kHz in [-1, 1], the names of its events in order, and its caption."""

    samples: np.ndarray
    events: tuple[str, ...]
    caption: str
    split: str


def _beep(stream: np.random.Generator, seconds: float) -> np.ndarray:
    """A steady tone."""
    return np.sin(2 * np.pi * stream.uniform(500, 1600) * _clock(seconds))


def _chirp(stream: np.random.Generator, seconds: float) -> np.ndarray:
    """A tone that only rises."""
    low, high = stream.uniform(600, 1100), stream.uniform(2600, 4200)
    return _swept(low * (high / low) ** (_clock(seconds) / seconds))


def _siren(stream: np.random.Generator, seconds: float) -> np.ndarray:
    """A tone that rises and falls again and again."""
    turns = 2 * np.pi * stream.uniform(2.2, 3.6) * _clock(seconds)
    return _swept(stream.uniform(700, 1000) * 2 ** (0.55 * np.sin(turns)))


def _drum(stream: np.random.Generator, seconds: float) -> np.ndarray:
    """A low beat that falls and fades at once."""
    t = _clock(seconds)
    pitch = stream.uniform(65, 110) * (1 + 0.8 * np.exp(-t / 0.03))
    return _swept(pitch) * np.exp(-t / stream.uniform(0.06, 0.09))


def _noise(stream: np.random.Generator, seconds: float) -> np.ndarray:
    """Rushing air."""
    return stream.standard_normal(len(_clock(seconds)))


def _bell(stream: np.random.Generator, seconds: float) -> np.ndarray:
    """Partials that are no harmonics, ringing out."""
    t, pitch = _clock(seconds), stream.uniform(500, 900)
    partials = ((1.0, 1.0, 0.30), (2.76, 0.5, 0.2), (5.4, 0.25, 0.12))
    rings = (a * np.sin(2 * np.pi * pitch * r * t) * np.exp(-t / fade) for r, a, fade in partials)
    return sum(rings, np.zeros_like(t))


def _buzz(stream: np.random.Generator, seconds: float) -> np.ndarray:
    """A low tone with very many harmonics."""
    t, pitch = _clock(seconds), stream.uniform(85, 150)
    phases = 2 * np.pi * stream.random(25)
    return sum(
        (np.sin(2 * np.pi * pitch * n * t + phases[n]) / n**0.3 for n in range(1, 25)),
        np.zeros_like(t),
    )


def _click(stream: np.random.Generator, seconds: float) -> np.ndarray:
    """A snap of a few milliseconds."""
    t = _clock(seconds)
    return stream.standard_normal(len(t)) * np.exp(-t / 0.003)


_MAKERS: dict[str, tuple[Callable[[np.random.Generator, float], np.ndarray], float, float]] = {
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


def make_sound(seed: int, split: str, index: int) -> Sound:
    """The sound of an index, a pure function of its arguments.

    Half of the sounds have one event and half two; in the unseen split all have two, in an order
    that training never hears. Raises InputError for an unknown split.
    """
    check_split(split)
    stream = rng(seed, "sound", split, index)
    if split == "unseen":
        events = pick(stream, HELD_OUT_ORDERS)
    elif stream.random() < 0.5:
        events = (pick(stream, EVENTS),)
    else:
        events = pick(stream, _TRAIN_ORDERS)
    pieces, names = [np.zeros(int(stream.uniform(0.02, 0.15) * RATE))], []
    for event in events:
        maker, shortest, longest = _MAKERS[event]
        name = event
        if event in SUSTAINED:
            length = pick(stream, tuple(LENGTHS))
            shortest, longest = LENGTHS[length]
            name = f"{length} {event}"
        wave = maker(stream, float(stream.uniform(shortest, longest)))
        wave = _faded(wave / np.abs(wave).max()) * stream.uniform(0.55, 0.9)
        pieces += [wave, np.zeros(int(stream.uniform(0.16, 0.25) * RATE))]
        names.append(article(name))
    samples = np.concatenate(pieces)
    samples += stream.standard_normal(len(samples)) * 10 ** (-stream.uniform(50, 65) / 20)
    caption = ", then ".join(names)
    return Sound(np.clip(samples, -1, 1).astype(np.float32), tuple(events), caption, split)


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
