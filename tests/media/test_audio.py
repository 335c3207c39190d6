"""Sounds as people have them, and the ones that cannot be used."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from lumoomni.errors import InputError
from lumoomni.media.audio import Audio, load_audio, save_wav

TONE = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32) * 0.5


def dominant(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()])


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_other_rates_are_resampled(tmp_path: Path, rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate) * 0.5
    soundfile.write(tmp_path / "a.wav", tone, rate)
    audio = load_audio(tmp_path / "a.wav")
    assert audio.rate == 16000 and audio.samples.dtype == np.float32
    assert abs(len(audio.samples) - 16000) <= 2
    assert dominant(audio.samples, 16000) == pytest.approx(440, abs=2)


def test_channels_doubles_and_integers(tmp_path: Path) -> None:
    six = np.repeat(TONE[:, None], 6, axis=1).astype(np.float64)
    soundfile.write(tmp_path / "a.wav", six, 16000, subtype="DOUBLE")
    assert np.allclose(load_audio(tmp_path / "a.wav").samples, TONE, atol=1e-6)
    ints = (TONE * 32767).astype(np.int16)
    assert np.allclose(load_audio((ints, 16000)).samples, TONE, atol=1e-3)
    assert np.allclose(load_audio((six.T, 16000)).samples, TONE, atol=1e-6)
    bytes_ = ((TONE + 1) * 127.5).round().astype(np.uint8)
    assert np.allclose(load_audio((bytes_, 16000)).samples, TONE, atol=1e-2)
    assert load_audio((np.full(1600, 128, np.uint8), 16000)).silent


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, 16000)
    (tmp_path / "a.wav").rename(tmp_path / "a.mp3")
    assert len(load_audio(tmp_path / "a.mp3").samples) == 16000


def test_silence_is_flagged_and_round_trip_keeps_sound(tmp_path: Path) -> None:
    assert load_audio((np.zeros(100, np.float32), 16000)).silent
    assert save_wav(tmp_path / "a.wav", Audio(TONE, 16000)) is False
    assert np.allclose(load_audio(tmp_path / "a.wav").samples, TONE, atol=1e-4)
    assert save_wav(tmp_path / "b.wav", Audio(TONE * 4, 16000)) is True


def test_unusable_sounds_say_why(tmp_path: Path) -> None:
    broken = TONE.copy()
    broken[8000] = np.nan
    with pytest.raises(InputError, match=r"1 samples .* first at 0.500 s"):
        load_audio((broken, 16000))
    with pytest.raises(InputError, match="no samples"):
        load_audio((np.zeros(0, np.float32), 16000))
    with pytest.raises(InputError, match="no file"):
        load_audio(tmp_path / "missing.wav")
    with pytest.raises(InputError, match="directory"):
        load_audio(tmp_path)
    (tmp_path / "zero.wav").write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        load_audio(tmp_path / "zero.wav")
    (tmp_path / "text.wav").write_bytes(b"this is no sound at all" * 20)
    with pytest.raises(InputError, match="cannot be read as sound"):
        load_audio(tmp_path / "text.wav")
    with pytest.raises(InputError, match="sample rate"):
        load_audio((TONE, 0))


def test_an_hour_is_too_long_and_both_numbers_are_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(3700 * 100, np.int16), 100)
    with pytest.raises(InputError, match=r"3700 s long, at most 3600 s"):
        load_audio(tmp_path / "long.wav")
