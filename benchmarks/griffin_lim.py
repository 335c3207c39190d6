"""Griffin-Lim beside librosa's: time to the same spectral convergence on speech, one process.

Knows: the same linear magnitudes for both; medians over interleaved runs.
Does not know: mel or codecs. Costs: about a minute.

    python -m benchmarks.griffin_lim [--json griffin_lim.json] [--quick]
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import torch
from torch import Tensor

from lumoomni.codecs.vocoder import VocoderConfig, griffin_lim, spectral_convergence
from lumoomni.data.world.sentences import sentence
from lumoomni.data.world.speech import synthesize
from lumoomni.media.mel import MelConfig, magnitude

MEL = MelConfig()
OURS = (8, 12, 16, 24, 32)
THEIRS = (16, 24, 32, 48, 64)


def peer(wanted: Tensor, rounds: int) -> Tensor:
    """librosa's fast Griffin-Lim with the same frames, window and momentum."""
    # Our last frame is centred one hop before the end; librosa wants the one at the end as well.
    frames = np.pad(wanted[0].T.numpy(), ((0, 0), (0, 1)))
    samples = librosa.griffinlim(
        frames,
        n_iter=rounds,
        hop_length=MEL.hop,
        win_length=MEL.win,
        n_fft=MEL.n_fft,
        momentum=0.99,
        random_state=0,
        length=wanted.shape[1] * MEL.hop,
    )
    return torch.from_numpy(samples)[None]


def measure(
    clips: list[Tensor], make: Callable[[Tensor, int], Tensor], rounds: int
) -> tuple[float, float]:
    """(seconds for all clips, mean spectral convergence)."""
    seconds, scores = 0.0, []
    for wanted in clips:
        began = time.perf_counter()
        samples = make(wanted, rounds)
        seconds += time.perf_counter() - began
        scores.append(spectral_convergence(samples, wanted, MEL))
    return seconds, statistics.mean(scores)


def curve(
    clips: list[Tensor],
    make: Callable[[Tensor, int], Tensor],
    all_rounds: tuple[int, ...],
    repeats: int,
) -> list[dict[str, float]]:
    """Median seconds and convergence for each number of rounds."""
    rows = []
    for rounds in all_rounds:
        runs = [measure(clips, make, rounds) for _ in range(repeats)]
        seconds = statistics.median(run[0] for run in runs)
        rows.append({"rounds": rounds, "seconds": seconds, "convergence": runs[0][1]})
    return rows


def seconds_to(rows: list[dict[str, float]], target: float) -> float | None:
    """Time to reach a convergence, interpolated between the measured points; None if never."""
    for before, after in itertools.pairwise(rows):
        if after["convergence"] <= target <= before["convergence"]:
            share = (before["convergence"] - target) / (
                before["convergence"] - after["convergence"]
            )
            return before["seconds"] + share * (after["seconds"] - before["seconds"])
    return None


def main() -> None:
    """Measure, print, optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    count, repeats = (4, 2) if options.quick else (12, 5)
    sounds = [synthesize(sentence(0, "seen", i)).samples for i in range(count)]
    clips = [magnitude(torch.from_numpy(sound)[None], MEL) for sound in sounds]
    peer(clips[0], 2)
    ours = curve(clips, lambda w, n: griffin_lim(w, VocoderConfig(iterations=n)), OURS, repeats)
    theirs = curve(clips, peer, THEIRS, repeats)
    rows = []
    for row in theirs:
        mine = seconds_to(ours, row["convergence"])
        if mine is not None:
            rows.append({**row, "ours": mine, "ratio": row["seconds"] / mine})
    for name, table in (("ours", ours), ("librosa", theirs)):
        for row in table:
            print(
                f"{name:>8} {row['rounds']:3.0f} rounds  {row['seconds']:.3f} s  "
                f"convergence {row['convergence']:.4f}"
            )
    for row in rows:
        print(
            f"at convergence {row['convergence']:.4f}: librosa {row['seconds']:.3f} s, "
            f"ours {row['ours']:.3f} s, {row['ratio']:.2f}x"
        )
    if options.json:
        options.json.write_text(json.dumps({"ours": ours, "librosa": theirs, "ratios": rows}))


if __name__ == "__main__":
    main()
