"""How near a decoded picture or sound is to its original: PSNR, SSIM, log-mel L1 and SNR.

Knows: pictures as uint8 [H, W, 3], sound as `Audio`. Does not know: codecs, ids or thresholds.
Costs: a few milliseconds a picture or a second of sound; NumPy alone.

Two sounds are compared at one rate only: another rate is refused, never cut to length, since
samples that stand at the same place would lie at different times. `matched` resamples first.
"""

from functools import lru_cache

import numpy as np

from lumoomni.errors import InputError
from lumoomni.media.audio import Audio, load_audio

MOST_DB = 100.0
"""What equal signals get, and the least is its negative: means over items stay finite."""
N_FFT, HOP, MELS, FLOOR = 1024, 256, 80, 1e-6
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
LUMA = np.array([0.299, 0.587, 0.114])


def psnr(original: np.ndarray, decoded: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels, peak 255; uint8 [H, W, 3].

    At most MOST_DB, which equal pictures get. Raises InputError for two sizes.
    """
    _same_size(original, decoded)
    error = np.mean((original.astype(np.float64) - decoded.astype(np.float64)) ** 2)
    return _decibels(255.0**2, float(error))


def ssim(original: np.ndarray, decoded: np.ndarray) -> float:
    """Mean structural similarity of luminance (BT.601) in [-1, 1]; uint8 [H, W, 3].

    A Gaussian window of 11 x 11 with sigma 1.5, wholly inside the picture, K1 = 0.01, K2 = 0.03,
    dynamic range 255: Wang et al. 2004, doi 10.1109/TIP.2003.819861. Raises InputError for two
    sizes, and for pictures smaller than the window.
    """
    _same_size(original, decoded)
    if min(original.shape[:2]) < WINDOW:
        raise InputError(
            f"pictures of {original.shape[0]} x {original.shape[1]} pixels are smaller than the "
            f"window of {WINDOW} that SSIM looks through; give larger ones"
        )
    a, b = (picture.astype(np.float64) @ LUMA for picture in (original, decoded))
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    both = _blur(a * b) - mean_a * mean_b
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float((top / bottom).mean())


def matched(original: Audio, rate: int) -> Audio:
    """A sound at the rate of what it is compared with."""
    return original if original.rate == rate else load_audio(original, rate)


def log_mel_l1(original: Audio, decoded: Audio) -> float:
    """Mean absolute difference of ln(mel power + 1e-6), in nepers, over the length both have.

    STFT of 1024 samples, periodic Hann, hop 256, frames centred with zeros outside; 80 triangular
    HTK-mel filters of height 1 from 0 Hz to half the rate. Channels are averaged. Raises InputError
    for two rates.
    """
    a, b = _common(original, decoded)
    rate = original.rate
    apart = [np.abs(log_mel(x, rate) - log_mel(y, rate)).mean() for x, y in zip(a, b, strict=True)]
    return float(np.mean(apart))


def log_mel(samples: np.ndarray, rate: int) -> np.ndarray:
    """samples [S] -> ln(mel power + 1e-6) float64 [1 + S // 256, 80]."""
    padded = np.pad(np.asarray(samples, dtype=np.float64), N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    power = np.abs(np.fft.rfft(frames * hann, axis=-1)) ** 2
    return np.log(power @ _filters(rate).T + FLOOR)


def snr_db(original: Audio, decoded: Audio, *, most_shift: int = 0) -> float:
    """Energy of the original over that of the difference, in dB, over the length both have.

    With `most_shift`, the decoded sound is first moved by that many samples at most, to where it
    correlates best: a codec may delay. Its loudness is left as it is. Between -MOST_DB and MOST_DB;
    low for vocoders that make their own phases, however good they sound. Raises InputError for two
    rates.
    """
    a, b = (x.astype(np.float64) for x in _common(original, decoded))
    size = a.shape[1]
    shift = _best_shift(a, b, min(most_shift, size - 1))
    a, b = (a[:, : size - shift], b[:, shift:]) if shift >= 0 else (a[:, -shift:], b[:, :shift])
    return _decibels(float((a**2).sum()), float(((a - b) ** 2).sum()))


def _best_shift(a: np.ndarray, b: np.ndarray, most: int) -> int:
    """The shift s, |s| <= most, with the largest sum of a[c, i] * b[c, i + s]."""
    if most < 1:
        return 0
    size = 1 << (2 * a.shape[1] - 1).bit_length()
    spectrum = (np.conj(np.fft.rfft(a, size)) * np.fft.rfft(b, size)).sum(0)
    shifts = np.arange(-most, most + 1)
    return int(shifts[np.argmax(np.fft.irfft(spectrum, size)[shifts])])


def _common(original: Audio, decoded: Audio) -> tuple[np.ndarray, np.ndarray]:
    """Both as samples [C, S] of equal length; sound of two channels comes as [S, 2]."""
    if original.rate != decoded.rate:
        raise InputError(
            f"the original has {original.rate} and the decoded sound {decoded.rate} samples a "
            "second; resample the original to that rate before they are compared"
        )
    a, b = (np.atleast_2d(np.asarray(one.samples).T) for one in (original, decoded))
    length = min(a.shape[1], b.shape[1])
    if len(a) != len(b) or not length:
        raise InputError(
            f"the original has {len(a)} channels of {a.shape[1]} samples and the decoded sound "
            f"{len(b)} of {b.shape[1]}; both need as many channels and at least one sample"
        )
    return a[:, :length], b[:, :length]


def _same_size(original: np.ndarray, decoded: np.ndarray) -> None:
    if original.shape != decoded.shape or original.ndim != 3:
        raise InputError(
            f"the original is {list(original.shape)} and the decoded picture "
            f"{list(decoded.shape)}; both must be [H, W, 3] of one size"
        )


def _decibels(signal: float, noise: float) -> float:
    if noise <= 0:
        return MOST_DB
    if signal <= 0:
        return -MOST_DB
    return float(np.clip(10 * np.log10(signal / noise), -MOST_DB, MOST_DB))


def _blur(x: np.ndarray) -> np.ndarray:
    """[H, W] -> [H - 10, W - 10]: rows, then columns, through the window."""
    taps = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    taps /= taps.sum()
    view = np.lib.stride_tricks.sliding_window_view
    return view(view(x, WINDOW, axis=0) @ taps, WINDOW, axis=1) @ taps


@lru_cache(maxsize=8)
def _filters(rate: int) -> np.ndarray:
    """[80, 513] triangles of height 1, equally wide in HTK mel, from 0 Hz to rate / 2."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    bins = np.linspace(0, rate / 2, N_FFT // 2 + 1)
    rise = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rise, fall))
