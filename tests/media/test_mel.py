"""The shared log-mel: frame counts, calibration, batching."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.media.mel import MelConfig, log_mel, magnitude, mel_filterbank, mel_to_magnitude

MEL = MelConfig()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5000))
def test_frames_are_the_ceiling(samples: int) -> None:
    assert log_mel(torch.zeros(1, samples), MEL).shape == (1, math.ceil(samples / 160), 80)


def test_a_tone_lands_in_its_bin() -> None:
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)[None]
    loudest = int(log_mel(tone, MEL)[0, 50].argmax())
    centres = (mel_filterbank(MEL) * torch.linspace(0, 8000, 513)).sum(1) / mel_filterbank(MEL).sum(
        1
    )
    assert abs(float(centres[loudest]) - 1000) < 60


def test_twice_as_loud_is_ln_two_more() -> None:
    sound = torch.randn(1, 8000)
    difference = log_mel(2 * sound, MEL) - log_mel(sound, MEL)
    assert torch.allclose(difference, torch.full_like(difference, math.log(2)), atol=1e-4)


def test_batched_equals_single() -> None:
    sounds = torch.randn(3, 4000)
    batched = log_mel(sounds, MEL)
    for i in range(3):
        assert torch.allclose(batched[i], log_mel(sounds[i : i + 1], MEL)[0], atol=1e-5)


def test_the_way_back_has_the_same_mel() -> None:
    sound = torch.randn(1, 8000) * 0.1
    mel = log_mel(sound, MEL)
    back = mel_to_magnitude(mel, MEL)
    assert (back >= 0).all()
    again = (back @ mel_filterbank(MEL).T).clamp(min=MEL.floor).log()
    assert float((again - mel).abs().mean()) < 0.05
    assert magnitude(sound, MEL).shape == back.shape


def test_impossible_configs_are_refused() -> None:
    with pytest.raises(ValueError, match="fmax"):
        MelConfig(fmax=9000)
    with pytest.raises(ValueError, match="win"):
        MelConfig(win=2048)
