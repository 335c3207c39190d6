"""Measures of signals against independent references: by hand, and scikit-image's and librosa's."""

import librosa
import numpy as np
import pytest

from lumoomni.audits.signal import MOST_DB, log_mel, log_mel_l1, matched, psnr, snr_db, ssim
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio


def noise(count: int = 16000, rate: int = 16000, seed: int = 0) -> Audio:
    stream = np.random.default_rng(seed)
    return Audio((0.1 * stream.standard_normal(count)).astype(np.float32), rate)


def pictures() -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(7)
    a = stream.integers(0, 256, (24, 20, 3)).astype(np.uint8)
    return a, np.clip(a.astype(int) + stream.integers(-40, 41, a.shape), 0, 255).astype(np.uint8)


def test_pictures_agree_with_scikit_image() -> None:
    """structural_similarity(a @ luma, b @ luma, data_range=255, gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False) and peak_signal_noise_ratio(a, b) of scikit-image 0.26."""
    a, b = pictures()
    assert ssim(a, b) == pytest.approx(0.961011196912338, abs=1e-12)
    assert psnr(a, b) == pytest.approx(21.1731238665528, abs=1e-10)


def test_pictures_by_hand() -> None:
    black = np.zeros((11, 11, 3), np.uint8)
    grey = np.full((11, 11, 3), 100, np.uint8)
    # No variance: only the term of the means is left, over one window.
    c1 = (0.01 * 255) ** 2
    assert ssim(black, grey) == pytest.approx(c1 / (100**2 + c1), rel=1e-9)
    assert psnr(black, grey) == pytest.approx(20 * np.log10(255 / 100))
    one = black.copy()
    one[0, 0, 0] = 255
    assert psnr(black, one) == pytest.approx(10 * np.log10(11 * 11 * 3))
    assert psnr(grey, grey) == MOST_DB and ssim(grey, grey) == pytest.approx(1.0)


def test_similarity_is_windowed() -> None:
    """A picture and its mirror image have equal means and variances: one global window would
    say more than many small ones."""
    ramp = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], 3, 2).repeat(32, 0)
    assert ssim(ramp, ramp[:, ::-1]) < 0.35
    a, b = pictures()
    assert ssim(a, b) == pytest.approx(ssim(b, a)) and ssim(a, 255 - a) < 0


@pytest.mark.parametrize("shape", [(24, 21, 3), (12, 20, 3), (24, 20)])
def test_pictures_of_two_sizes_are_refused(shape: tuple[int, ...]) -> None:
    for measure in (psnr, ssim):
        with pytest.raises(InputError, match="of one size"):
            measure(pictures()[0], np.zeros(shape, np.uint8))


def test_pictures_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(InputError, match="10 x 40 pixels are smaller than the window of 11"):
        ssim(np.zeros((10, 40, 3), np.uint8), np.zeros((10, 40, 3), np.uint8))


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_log_mel_agrees_with_librosa(rate: int) -> None:
    x = noise(20000).samples.astype(np.float64)
    power = librosa.feature.melspectrogram(
        y=x,
        sr=rate,
        n_fft=1024,
        hop_length=256,
        n_mels=80,
        htk=True,
        norm=None,
        power=2.0,
        pad_mode="constant",
    )
    assert np.abs(np.log(power.T + 1e-6) - log_mel(x, rate)).max() < 1e-6


def test_log_mel_l1_of_a_louder_sound_is_the_loudness() -> None:
    sound = noise()
    louder = Audio(sound.samples * 2, sound.rate)
    assert log_mel_l1(sound, louder) == pytest.approx(2 * np.log(2), abs=1e-3)
    assert log_mel_l1(sound, sound) == 0


def test_signal_to_noise_by_hand_and_after_a_delay() -> None:
    sound, other = noise(), noise(seed=1)
    assert snr_db(sound, Audio(sound.samples * 0.9, 16000)) == pytest.approx(20, abs=1e-4)
    assert snr_db(sound, sound) == MOST_DB
    noisy = Audio(sound.samples + 0.1 * other.samples, 16000)
    wanted = 10 * np.log10((sound.samples**2).sum() / (0.01 * (other.samples**2).sum()))
    assert snr_db(sound, noisy) == pytest.approx(wanted, abs=1e-3)
    for shift in (37, -37):
        moved = Audio(np.roll(noisy.samples, shift), 16000)
        assert snr_db(sound, moved) < 0
        assert snr_db(sound, moved, most_shift=20) < 0
        assert snr_db(sound, moved, most_shift=40) == pytest.approx(wanted, abs=0.1)
    silent = Audio(np.zeros(100, np.float32), 16000)
    assert snr_db(silent, noise(100)) == -MOST_DB and snr_db(silent, silent) == MOST_DB


def test_two_channels_are_measured_as_two() -> None:
    left, right = noise().samples, noise(seed=1).samples
    both = Audio(np.stack([left, right], 1), 16000)
    half = Audio(np.stack([left, 0 * right], 1), 16000)
    assert snr_db(both, half) == pytest.approx(10 * np.log10(2), abs=0.1)
    swapped = Audio(both.samples[:, ::-1], 16000)
    assert log_mel_l1(both, swapped) > 0.5 and log_mel_l1(both, both) == 0
    with pytest.raises(InputError, match="1 channels of 16000 samples and the decoded sound 2"):
        snr_db(noise(), both)


def test_two_rates_are_refused_and_matched() -> None:
    """Comparing 16 kHz with 48 kHz sample by sample gates noise: it is refused, or resampled."""
    time = np.arange(16000) / 16000
    tone = Audio((0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), 16000)
    decoded = matched(tone, 48000)
    assert decoded.rate == 48000 and len(decoded.samples) == 48000
    for measure in (snr_db, log_mel_l1):
        with pytest.raises(InputError, match="has 16000 and the decoded sound 48000 samples"):
            measure(tone, decoded)
    assert snr_db(tone, Audio(decoded.samples, 16000)) < 0
    assert snr_db(matched(tone, 48000), decoded) == MOST_DB
    back = matched(decoded, 16000)
    assert snr_db(tone, back) > 40 and matched(tone, 16000) is tone


def test_sound_without_samples_is_refused() -> None:
    with pytest.raises(InputError, match="at least one sample"):
        snr_db(noise(), Audio(np.zeros(0, np.float32), 16000))
