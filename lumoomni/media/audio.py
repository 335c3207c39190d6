"""Sound files to mono float32 arrays and back.

Knows: decoding by content (soundfile, then PyAV), downmixing, resampling, honest errors.
Does not know: mel, speech or models. Costs: one decode; resampling about 1 ms a second of sound.
"""

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from av.error import FFmpegError

from lumoomni.errors import InputError
from lumoomni.media.container import open_media
from lumoomni.runtime import atomic_write_bytes

RATE = 16000
HOUR = 3600.0
SILENCE = 1e-4
WAV = struct.Struct("<4sI8sIHHIIHH4sI")
"""The header of a WAV file that holds sound and nothing else."""

AudioLike = "str | Path | bytes | Audio | tuple[np.ndarray, int]"


@dataclass(frozen=True)
class Audio:
    """samples float32[T] in [-1, 1], mono, at `rate` Hz."""

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate

    @property
    def silent(self) -> bool:
        """True when nothing in it is louder than -80 dB."""
        return bool(len(self.samples) == 0 or np.abs(self.samples).max() < SILENCE)


def load_audio(
    source: "str | Path | bytes | Audio | tuple[np.ndarray, int]",
    rate: int = RATE,
    max_seconds: float = HOUR,
) -> Audio:
    """Decode, mix down to mono and resample to `rate`.

    Raises InputError in one sentence for anything that cannot be used as sound.
    """
    if isinstance(source, Audio):
        return _finish(source.samples, source.rate, "the given audio", rate, max_seconds)
    if isinstance(source, tuple):
        array, given = source
        return _finish(np.asarray(array), int(given), "the given array", rate, max_seconds, False)
    name, data = _bytes(source)
    samples, found = _decode(data, name, max_seconds)
    return _finish(samples, found, name, rate, max_seconds)


def save_wav(path: Path | str, audio: Audio) -> bool:
    """Write 16-bit PCM atomically; True when samples beyond [-1, 1] had to be clipped."""
    clipped = bool(len(audio.samples) and np.abs(audio.samples).max() > 1.0)
    buffer = io.BytesIO()
    limited = np.clip(audio.samples, -1.0, 1.0)
    soundfile.write(buffer, limited, audio.rate, format="WAV", subtype="PCM_16")
    atomic_write_bytes(Path(path), buffer.getvalue())
    return clipped


def _bytes(source: str | Path | bytes) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return "the given bytes", source
    path = Path(source)
    if path.is_dir():
        raise InputError(f"{path} is a directory; give a sound file")
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the path of the sound")
    return str(path), path.read_bytes()


def _decode(data: bytes, name: str, max_seconds: float) -> tuple[np.ndarray, int]:
    if not data:
        raise InputError(f"{name} is empty (0 bytes); give a sound file")
    plain = _plain_wav(data)
    if plain is not None:
        _check_length(len(plain[0]) / plain[1], name, max_seconds)
        return plain
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_length(file.frames / file.samplerate, name, max_seconds)
            return file.read(dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError:
        return _decode_av(data, name, max_seconds)


def _plain_wav(data: bytes) -> tuple[np.ndarray, int] | None:
    """Samples [T, channels] and rate of a WAV file of 16 bits that holds nothing else, as soundfile
    gives them in five times as long; None for any other file, also a damaged one."""
    if len(data) <= WAV.size or data[:4] != b"RIFF":
        return None
    said = WAV.unpack_from(data)
    channels, rate, inside = said[5], said[6], len(data) - WAV.size
    step = 2 * channels
    head = (b"RIFF", len(data) - 8, b"WAVEfmt ", 16, 1, channels, rate, step * rate, step, 16)
    if said != (*head, b"data", inside) or not 0 < channels <= 2 or not rate or inside % step:
        return None
    whole = np.frombuffer(data, "<i2", offset=WAV.size).reshape(-1, channels)
    return whole.astype(np.float32) * np.float32(2**-15), rate


def _decode_av(data: bytes, name: str, max_seconds: float) -> tuple[np.ndarray, int]:
    """Anything that FFmpeg reads: m4a, the sound of a video, ..."""
    try:
        with open_media(io.BytesIO(data)) as container:
            if not container.streams.audio:
                raise InputError(f"{name} holds no sound; give a file with an audio track")
            stream = container.streams.audio[0]
            if container.duration:
                _check_length(container.duration / av.time_base, name, max_seconds)
            resampler = av.AudioResampler(format="fltp", rate=stream.rate)
            parts = [
                part.to_ndarray().T
                for frame in container.decode(stream)
                for part in resampler.resample(frame)
            ]
    except (FFmpegError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{name} cannot be read as sound ({len(data):,} bytes, no known audio format or "
            "damaged); convert it to WAV or FLAC"
        ) from error
    if not parts:
        raise InputError(f"{name} holds an audio track without sound; give another file")
    return np.concatenate(parts), stream.rate


def _check_length(seconds: float, name: str, most: float) -> None:
    if seconds > most:
        raise InputError(
            f"{name} is {seconds:.0f} s long, at most {most:.0f} s can be read at once; "
            "cut it into pieces"
        )


def _finish(
    samples: np.ndarray, given: int, name: str, rate: int, max_seconds: float, own: bool = True
) -> Audio:
    """`own` says that nobody else may write into the samples, so that they need no copy."""
    if given <= 0:
        raise InputError(f"{name} has a sample rate of {given} Hz; it must be positive")
    if samples.dtype.kind in "iu":
        top = (int(np.iinfo(samples.dtype).max) + 1) // (2 if samples.dtype.kind == "u" else 1)
        # Unsigned samples are silent in the middle of their range.
        samples = samples.astype(np.float32) / top - (1.0 if samples.dtype.kind == "u" else 0.0)
    elif samples.dtype.kind != "f":
        raise InputError(f"{name} holds {samples.dtype}, not numbers of sound; give floats or ints")
    if samples.ndim == 2:
        # [T, channels], or [channels, T] as some libraries have it: channels are the short side.
        channels = int(samples.shape[0] >= samples.shape[1])
        alone = samples.shape[channels] == 1
        samples = samples.squeeze(channels) if alone else samples.mean(channels)
    if samples.ndim != 1:
        raise InputError(
            f"{name} has {samples.ndim} dimensions; sound has one, or two with channels"
        )
    if len(samples) == 0:
        raise InputError(f"{name} holds no samples (0 s of sound); give a sound file")
    if not np.isfinite(samples).all():
        bad = np.flatnonzero(~np.isfinite(samples))
        raise InputError(
            f"{name} holds {len(bad)} samples that are NaN or infinite, the first at "
            f"{bad[0] / given:.3f} s; repair or re-export it"
        )
    _check_length(len(samples) / given, name, max_seconds)
    samples = samples.astype(np.float32, copy=not own)
    if given != rate:
        samples = soxr.resample(samples, given, rate, quality="HQ")
    return Audio(np.ascontiguousarray(samples, dtype=np.float32), rate)
