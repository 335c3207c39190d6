"""Alignment by the recogniser: the best CTC path, in text order."""

import itertools

import numpy as np
import torch

from lumoomni.codecs.text import TextCodec
from lumoomni.infer.listen import ctc_alignment, word_times
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
