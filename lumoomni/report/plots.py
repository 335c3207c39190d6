"""Curves and spectrograms as PNG bytes.

Knows: matplotlib without a display. Does not know: what the numbers mean.
"""

import io
from pathlib import Path
from typing import Any

import matplotlib
import torch

from lumoomni.media.audio import load_audio
from lumoomni.media.mel import MelConfig, log_mel

matplotlib.use("Agg")

from matplotlib import pyplot as plt

NOT_LOSSES = ("step", "time", "lr", "grad_norm", "data_ms", "wait_ms")


def curves(title: str, entries: list[dict[str, Any]]) -> bytes:
    """Losses over steps; empty bytes when the log holds none."""
    rows = [entry for entry in entries if "step" in entry and "loss" in entry]
    if not rows:
        return b""
    names = [name for name in rows[0] if name not in NOT_LOSSES]
    figure, axes = plt.subplots(figsize=(5, 3.2))
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), label=name, linewidth=2 if name == "loss" else 1)
    axes.set(title=title, xlabel="step", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def spectrogram(path: Path) -> bytes:
    """The log-mel spectrogram of a sound file."""
    config = MelConfig()
    sound = load_audio(path, config.rate)
    mel = log_mel(torch.from_numpy(sound.samples)[None], config)[0]
    figure, axes = plt.subplots(figsize=(5, 2))
    seconds = len(mel) * config.hop / config.rate
    axes.imshow(mel.T.numpy(), origin="lower", aspect="auto", extent=(0, seconds, 0, config.n_mels))
    axes.set(xlabel="seconds", ylabel="mel bin")
    return _png(figure)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.tight_layout()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()
