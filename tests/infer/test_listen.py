"""Alignment by the recogniser: the best CTC path, in text order."""

import itertools

import numpy as np
import pytest
import torch

from lumoomni.codecs.text import TextCodec
from lumoomni.infer.listen import ctc_alignment, quiet_parts, transcribe, word_times
from lumoomni.model.audio import AudioTower
from tests.tiny import MEL, modules, text_codec


def scores(path: list[int], classes: int = 6) -> np.ndarray:
    out = np.full((len(path), classes), -5.0)
    out[np.arange(len(path)), path] = -0.1
    return out


def test_the_best_path_is_found() -> None:
    assert ctc_alignment(scores([0, 3, 3, 0, 2, 0, 2, 0]), [3, 2, 2]) == [1, 4, 6]
    assert ctc_alignment(scores([3, 2]), [3, 2]) == [0, 1]
    assert ctc_alignment(scores([2, 2]), [2, 2]) is None  # equal neighbours need a blank
    assert ctc_alignment(scores([3]), [3, 2]) is None


def test_it_agrees_with_the_ctc_loss() -> None:
    """The best path is one of those that the loss sums: never likelier than all of them."""
    torch.manual_seed(0)
    table = torch.randn(20, 6).log_softmax(-1)
    symbols = [1, 4, 4, 2]
    starts = ctc_alignment(table.numpy(), symbols)
    assert starts is not None and starts == sorted(starts) and starts[2] > starts[1] + 1
    loss = torch.nn.functional.ctc_loss(
        table[:, None], torch.tensor(symbols), (20,), (4,), reduction="sum"
    )
    assert torch.isfinite(loss)


def test_words_get_times_that_cover_the_sound() -> None:
    codec: TextCodec = text_codec()
    tower = modules(codec)["audio"]
    assert isinstance(tower, AudioTower)
    sound = np.random.default_rng(0).normal(size=48000).astype(np.float32) * 0.1
    times = word_times(tower.eval(), codec, MEL, "A red circle, now!", sound)
    assert times is not None and len(times) == 4
    assert [("A red circle, now!")[t.start_char : t.end_char] for t in times] == [
        "A",
        "red",
        "circle",
        "now",
    ]
    assert times[0].start_s == 0.0 and times[-1].end_s == 3.0
    for one, two in itertools.pairwise(times):
        assert one.end_s == two.start_s and one.start_s < one.end_s
    assert word_times(tower, codec, MEL, "...", sound) is None
    assert word_times(tower, codec, MEL, "a red circle " * 30, sound[:1600]) is None


@pytest.mark.parametrize("seconds", [0.0, 0.4, 1.0, 5.3, 13.0])
def test_parts_are_the_clip(seconds: float) -> None:
    sound = np.random.default_rng(1).normal(size=int(16000 * seconds)).astype(np.float32)
    parts = quiet_parts(sound, 16000, 16000)
    assert np.array_equal(np.concatenate(parts), sound)
    assert all(0 < len(part) <= 16000 for part in parts) or len(sound) == 0


def test_it_is_cut_where_it_is_quiet() -> None:
    sound = np.random.default_rng(1).normal(size=32000).astype(np.float32)
    sound[12000:14000] = 0.0
    assert 12000 <= len(quiet_parts(sound, 16000, 16000)[0]) <= 14000


def test_what_is_long_is_heard_in_parts() -> None:
    """Longer than the tower's positions; each part as it is heard alone, short clips as ever."""
    codec = text_codec()
    tower = modules(codec)["audio"].eval()
    assert isinstance(tower, AudioTower)
    most = (tower.config.max_frames - 1) * 8 * MEL.hop
    stream = np.random.default_rng(2)
    long = stream.normal(size=2 * most + 5).astype(np.float32) * 0.1
    short = stream.normal(size=16000).astype(np.float32) * 0.1
    said = transcribe(tower, codec, MEL, [short, long])
    alone = [transcribe(tower, codec, MEL, [one])[0] for one in (short, long)]
    assert said == alone and said[0] == alone[0]
