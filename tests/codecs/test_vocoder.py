"""Griffin-Lim: streamed = whole bit for bit, exact lengths, and it sounds like what went in."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.codecs.vocoder import (
    StreamingGriffinLim,
    VocoderConfig,
    griffin_lim,
    peak_phases,
    spectral_convergence,
    synthesise,
    vocode,
)
from lumoomni.data.world.speech import synthesize
from lumoomni.media.mel import MelConfig, log_mel, magnitude

MEL = MelConfig()
SPEECH = torch.from_numpy(synthesize("a large red circle").samples)[None]
LOG_MEL = log_mel(SPEECH, MEL)[0]
WHOLE = vocode(LOG_MEL, MelConfig())


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(1, 60), max_size=12))
def test_streamed_equals_whole(cuts: list[int]) -> None:
    stream, parts, place = StreamingGriffinLim(VocoderConfig()), [], 0
    for cut in cuts:
        parts.append(stream.push(LOG_MEL[place : place + cut]))
        place += cut
    parts += [stream.push(LOG_MEL[place:]), stream.flush()]
    assert np.array_equal(np.concatenate(parts), WHOLE)


def test_the_first_sound_leaves_early() -> None:
    stream = StreamingGriffinLim(VocoderConfig())
    assert len(stream.push(LOG_MEL[:24])) == 16 * 160
    assert len(WHOLE) == len(LOG_MEL) * 160


def test_speech_comes_back() -> None:
    again = log_mel(torch.from_numpy(WHOLE)[None], MEL)[0]
    assert float((again - LOG_MEL).abs().mean()) < 0.35


def test_better_than_random_phases_and_better_with_rounds() -> None:
    wanted = magnitude(SPEECH, MEL)
    scores = {
        rounds: spectral_convergence(
            griffin_lim(wanted, VocoderConfig(iterations=rounds)), wanted, MEL
        )
        for rounds in (0, 4, 16)
    }
    noise = torch.rand(wanted.shape, generator=torch.Generator().manual_seed(0)) * 6.28
    blocks = synthesise(torch.polar(wanted, noise), MEL)
    random = spectral_convergence(blocks[:, 2 : 2 + wanted.shape[1]].flatten(1), wanted, MEL)
    assert scores[16] < scores[4] < scores[0] < random
    assert scores[16] < 0.12


def test_a_tone_keeps_its_frequency() -> None:
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)[None] * 0.5
    back = griffin_lim(magnitude(tone, MEL), VocoderConfig())[0].numpy()
    spectrum = np.abs(np.fft.rfft(back))
    assert np.fft.rfftfreq(len(back), 1 / 16000)[spectrum.argmax()] == pytest.approx(440, abs=3)
    assert peak_phases(magnitude(tone, MEL), MEL).shape == (1, 100, 513)


def test_batch_equals_single_and_nothing_gives_nothing() -> None:
    wanted = magnitude(SPEECH, MEL)
    both = griffin_lim(torch.cat([wanted, wanted * 0.5]), VocoderConfig(iterations=4))
    alone = griffin_lim(wanted, VocoderConfig(iterations=4))
    assert torch.allclose(both[0], alone[0], atol=1e-4)
    assert len(vocode(LOG_MEL[:0], MelConfig())) == 0
    with pytest.raises(ValueError, match="even multiple"):
        VocoderConfig(mel=MelConfig(hop=150, win=640))
    with pytest.raises(ValueError, match="chunk must be"):
        VocoderConfig(chunk=0)
