"""Spoken sentences with word times, from espeak-ng as shipped in the espeakng-loader wheel.

Knows nothing of what is said. One sentence costs about 8 ms of one core, resampling included.
The library keeps state from sentence to sentence and is not safe for threads, so each call takes
a lock, opens the library anew and closes it again: the same text and voice give the same samples
in any order, thread or process.
"""

import _ctypes
import ctypes
import itertools
import re
import shutil
import sys
import tempfile
import threading
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.util import Finalize
from pathlib import Path

import espeakng_loader
import numpy as np
import soxr

from lumoomni.data.world.split import check_split, pick, rng
from lumoomni.errors import InputError

RATE = 16000
QUIET_EDGE_S = 0.05
PEAK = 0.8
RATES_WPM = (130, 200)
PITCHES = (30, 70)

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_RETRIEVAL, _UTF8, _BY_CHARACTER = 2, 1, 1
_PARAM_RATE, _PARAM_VOLUME, _PARAM_PITCH, _PARAM_RANGE = 1, 2, 3, 4
_EVENT_END, _EVENT_WORD = 0, 1


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One way of speaking: accent (espeak voice name), variant, words a minute, pitch 0..99."""

    name: str = "en-us"
    variant: str = ""
    rate_wpm: int = 165
    pitch: int = 50
    family: str = "formant"

    def __post_init__(self) -> None:
        """Refuse rates and pitches outside what espeak-ng can speak."""
        if not 80 <= self.rate_wpm <= 450:
            raise ValueError(f"rate_wpm is {self.rate_wpm}: use 80 to 450 words a minute")
        if not 0 <= self.pitch <= 99:
            raise ValueError(f"pitch is {self.pitch}: use 0 to 99")

    @property
    def key(self) -> str:
        """The name that espeak-ng looks the voice up by."""
        return f"{self.name}+{self.variant}" if self.variant else self.name


@dataclass(frozen=True)
class WordTime:
    """Where one word stands in the text (characters) and in the sound (seconds)."""

    start_char: int
    end_char: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Speech:
    """A spoken sentence: samples float32[T] at 16 kHz in [-1, 1], one WordTime for each word."""

    samples: np.ndarray
    words: tuple[WordTime, ...]


NARRATOR = Voice(name="en-us", rate_wpm=165, pitch=50)

_ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland")
# Breathy variants (f2, f3, f5, whisper, ...) are left out: their noise differs from run to run.
_VARIANTS = ("", "m1", "m2", "m3", "m4", "m6", "m7", "f1", "f4", "linda", "steph")
# Every accent and every variant below is heard in training, but never together.
_HELD_OUT_COMBINATIONS = (("en", "f4"), ("en-us", "m3"), ("en-gb-x-rp", "m7"))
_HELD_OUT_VARIANTS = ("m5", "m8", "Andrea", "belinda")
_KLATT = ("klatt", "klatt2", "klatt3", "klatt4")

TRAIN_VOICES = tuple(
    Voice(name=name, variant=variant)
    for name in _ACCENTS
    for variant in _VARIANTS
    if (name, variant) not in _HELD_OUT_COMBINATIONS
)
UNHEARD_VOICES = tuple(
    Voice(name=name, variant=variant)
    for name, variant in (
        *_HELD_OUT_COMBINATIONS,
        *((name, variant) for name in _ACCENTS[:2] for variant in _HELD_OUT_VARIANTS),
    )
)
OTHER_FAMILY = tuple(
    Voice(name=name, variant=variant, family="klatt")
    for name in ("en-us", "en")
    for variant in _KLATT
)
_VOICES = {
    "train": TRAIN_VOICES,
    "seen": TRAIN_VOICES,
    "unseen": UNHEARD_VOICES,
    "other": OTHER_FAMILY,
}


def voice(seed: int, split: str, index: int) -> Voice:
    """The voice of an item; "unseen" gives unheard voices, "other" another synthesiser family."""
    check_split(split, tuple(_VOICES))
    stream = rng(seed, "voice", split, index)
    base = pick(stream, _VOICES[split])
    return Voice(
        name=base.name,
        variant=base.variant,
        rate_wpm=int(stream.integers(RATES_WPM[0], RATES_WPM[1] + 1)),
        pitch=int(stream.integers(PITCHES[0], PITCHES[1] + 1)),
        family=base.family,
    )


class _EventId(ctypes.Union):
    """The payload of an event; unused, but it fixes the size."""

    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


_lock = threading.Lock()


@lru_cache(maxsize=1)
def voices_folder() -> Path:
    """The wheel's data folder as links, with every voice where the library looks first.

    A voice that is not found under its own name in lower case makes it read the files of all its
    voices, at every sentence: a quarter of the time, and more where opening a file is slow. Lives
    as long as the process that first asks; those that it forks use the same one.
    """
    whole = Path(espeakng_loader.get_data_path())
    folder = Path(tempfile.mkdtemp(prefix="lumoomni-voices-"))
    Finalize(None, shutil.rmtree, (folder, True), exitpriority=0)
    for entry in whole.iterdir():
        if entry.name != "lang":
            _link(entry, folder / entry.name)
    (folder / "lang").mkdir()
    for voice_file in (whole / "lang").rglob("*"):
        if voice_file.is_file():
            _link(voice_file, folder / "lang" / voice_file.name.lower())
    return folder


def _link(source: Path, target: Path) -> None:
    """A link, or a copy on systems that refuse links."""
    try:
        target.symlink_to(source)
    except OSError:
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


def _open() -> tuple[ctypes.CDLL, int]:
    """The library, freshly opened on the wheel's data folder, and its sample rate."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = str(voices_folder()).encode()
    rate = library.espeak_Initialize(_RETRIEVAL, 0, data, 0)
    if rate <= 0:
        raise RuntimeError(f"espeak-ng could not open its data folder {data.decode()}")
    return library, rate


def _close(library: ctypes.CDLL) -> None:
    """Unload the library.

    Flutter, glottal phase and noise live in its static memory, which no call resets: without
    this, the sound of a sentence would depend on every sentence spoken before it.
    """
    library.espeak_Terminate()
    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)


def _speak(text: str, voice: Voice) -> tuple[np.ndarray, int, list[tuple[int, int]]]:
    """int16 samples, their rate, and (character, millisecond) of each word event."""
    pieces: list[bytes] = []
    words: list[tuple[int, int]] = []

    def collect(wave, count, events) -> int:
        if wave and count:
            pieces.append(ctypes.string_at(wave, count * 2))
        i = 0
        while events[i].type != _EVENT_END:
            if events[i].type == _EVENT_WORD:
                words.append((events[i].text_position - 1, events[i].audio_position))
            i += 1
        return 0

    callback = _Callback(collect)
    library, rate = _open()
    try:
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.key.encode()) != 0:
            raise InputError(f"espeak-ng has no voice {voice.key!r}: use one of TRAIN_VOICES")
        for parameter, value in (
            (_PARAM_RATE, voice.rate_wpm),
            (_PARAM_VOLUME, 100),
            (_PARAM_PITCH, voice.pitch),
            (_PARAM_RANGE, 50),
        ):
            library.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        library.espeak_Synth(data, len(data) + 1, 0, _BY_CHARACTER, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    finally:
        _close(library)
    return np.frombuffer(b"".join(pieces), dtype=np.int16), rate, words


def synthesize(text: str, voice: Voice = NARRATOR) -> Speech:
    """Speak a text.

    Edges are trimmed to at most 50 ms of quiet; the peak is 0.8. Raises InputError for a text
    without a word and for a voice that espeak-ng does not have.
    """
    spans = [match.span() for match in _WORD.finditer(text)]
    if not spans:
        raise InputError(f"nothing to speak in {text!r}: give at least one word")
    with _lock:
        raw, source_rate, events = _speak(text, voice)
    samples = soxr.resample(raw.astype(np.float32) / 32768.0, source_rate, RATE)
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < 1e-3:
        raise InputError(f"espeak-ng spoke only silence for {text!r} with voice {voice.key!r}")
    samples = (samples * (PEAK / peak)).astype(np.float32)
    first, last = _sounding(samples)
    kept = np.ascontiguousarray(samples[first:last])
    words = _word_times(spans, events, first / RATE, len(kept) / RATE)
    return Speech(kept, words)


def _sounding(samples: np.ndarray) -> tuple[int, int]:
    """The range of samples to keep: what sounds, with at most 50 ms of quiet either side."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * PEAK)
    margin = int(QUIET_EDGE_S * RATE)
    return max(0, int(loud[0]) - margin), min(len(samples), int(loud[-1]) + 1 + margin)


def _word_times(
    spans: list[tuple[int, int]], events: list[tuple[int, int]], offset_s: float, total_s: float
) -> tuple[WordTime, ...]:
    """One time for each word of the text, from the library's word events.

    The library may join words ("of the") into one event; the joined words share its time in
    proportion to their letters, so that the number of words and of times always agree.
    """
    known = {}
    for character, millisecond in events:
        for i, (start, end) in enumerate(spans):
            if start <= character < end:
                known.setdefault(i, millisecond / 1000.0 - offset_s)
    known[0] = 0.0
    anchors = [*sorted(known.items()), (len(spans), total_s)]
    starts: list[float] = []
    floor = 0.0
    for (i, start), (j, end) in itertools.pairwise(anchors):
        start = min(max(start, floor), total_s)
        end = min(max(end, start), total_s)
        letters = np.array([spans[k][1] - spans[k][0] for k in range(i, j)], dtype=float)
        before = np.concatenate([[0.0], np.cumsum(letters)[:-1]]) / letters.sum()
        starts.extend(float(start + (end - start) * part) for part in before)
        floor = starts[-1]
    ends = [*starts[1:], total_s]
    return tuple(WordTime(*spans[k], starts[k], ends[k]) for k in range(len(spans)))


def augment(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The same speech, farther or nearer (-12..+2 dB), noisier (20..40 dB), at times in a room."""
    out = samples.astype(np.float32)
    if generator.random() < 0.3:
        length = int(RATE * generator.uniform(0.03, 0.12))
        tail = generator.standard_normal(length).astype(np.float32)
        tail *= np.exp(-5.0 * np.arange(length, dtype=np.float32) / length)
        size = 1 << (len(out) + length - 1).bit_length()
        wet = np.fft.irfft(np.fft.rfft(out, size) * np.fft.rfft(tail, size), size)[: len(out)]
        level = generator.uniform(0.05, 0.3) * _rms(out) / max(_rms(wet), 1e-9)
        out = out + (wet * level).astype(np.float32)
    noise = generator.standard_normal(len(out), dtype=np.float32)
    noise *= _rms(out) * 10.0 ** (-generator.uniform(20.0, 40.0) / 20.0)
    gain = 10.0 ** (generator.uniform(-12.0, 2.0) / 20.0)
    return np.clip((out + noise) * gain, -1.0, 1.0).astype(np.float32)


def _rms(samples: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
