"""The gate of Track A's second stage tells a model that uses its pictures from planted faults."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lumoomni.data.conversation import Layout
from lumoomni.data.sample import PictureItem
from lumoomni.gates import Report, exact, judge
from lumoomni.media.mel import MelConfig
from lumoomni.stages import instruct_lora
from lumoomni.stages.instruct_lora import Bench, InstructLoraConfig, lenders
from lumoomni.train.loop import LoopConfig
from tests.tiny import text_codec

WORDS = "abcd"
CODEC = text_codec()


class Words:
    """Grey pictures that say a letter, asked for twice."""

    def item(self, split: str, index: int) -> PictureItem:
        word = WORDS[index % 4]
        image = np.full((4, 4, 3), index % 4 * 40, dtype=np.uint8)
        turns = (("user", "which?"), ("assistant", word), ("user", "yes?"), ("assistant", word))
        return PictureItem(image, word, None, f"{split} {index}", turns=turns)

    def size(self, split: str) -> int | None:
        return None


class Oracle:
    """A model that says its picture's letter, then ends its turn; without form for no picture."""

    def __init__(self, injected: bool = True) -> None:
        self.injected = injected
        self.table = torch.zeros(CODEC.vocab_size, 8)
        self.table[:, 5] = 1.0
        for place, word in enumerate(WORDS):
            self.table[CODEC.encode(word)] = torch.eye(8)[place]
        self.table[CODEC.special("<|im_end|>")] = torch.eye(8)[4]
        self.thinker = SimpleNamespace(head_weight=lambda: self.table)

    def parameters(self) -> Any:
        return iter([self.table])

    def image_features(self, pixels: Tensor) -> Tensor:
        words = ((pixels[:, 0, 0, 0] + 1) * 127.5 / 40).round().long()
        return torch.eye(8)[words if self.injected else torch.zeros_like(words)][:, None] * 2

    def __call__(self, inputs: Any, images: Tensor) -> Any:
        said = torch.tensor([CODEC.encode(word)[0] for word in WORDS])
        ends = torch.isin(inputs.ids, said)[..., None]
        hidden = torch.where(ends, torch.eye(8)[4] * 6.0, images[:, :1] * 3.0)
        # What is no picture's vector speaks for ids that no answer has.
        odd = (images.amax(-1) < 1.9) | (images.sum(-1) > 2.1)
        hidden = torch.where(odd[..., None] & ~ends, torch.eye(8)[5] * 20, hidden)
        return SimpleNamespace(hidden=hidden)


def verdict(oracle: Oracle, ratio: float = 1.0, **settings: Any) -> tuple[bool, list[str]]:
    """What the stage's own measures and gate say of a model."""
    loop = LoopConfig(steps=1, batch_size=1)
    config = InstructLoraConfig(loop=loop, eval_items=120, **settings)
    layout = Layout(text_codec=CODEC, template="compact", mel=MelConfig(), image_positions=1)
    bench = Bench(oracle, layout, Words(), "base")  # type: ignore[arg-type]
    metrics = instruct_lora.measure(bench, config, 0)
    metrics |= {"frozen.changed": exact(0.0), "text.loss_ratio": exact(ratio, n=120)}
    found = judge(Report(metrics=metrics), instruct_lora.checks(config))
    return found.passed, list(found.failures())


def test_a_model_that_uses_its_pictures_passes() -> None:
    assert verdict(Oracle()) == (True, [])


def test_features_that_are_not_injected_fail() -> None:
    passed, reasons = verdict(Oracle(injected=False))
    assert not passed and any("shuffled_over_correct" in reason for reason in reasons)


def test_shifted_labels_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    real = instruct_lora.encode

    def shifted(*given: Any) -> Any:
        made = real(*given)
        labels = np.roll(made.sequence.labels, 1)
        return replace(made, sequence=replace(made.sequence, labels=labels))

    monkeypatch.setattr(instruct_lora, "encode", shifted)
    passed, reasons = verdict(Oracle())
    assert not passed and any("shuffled_over_correct" in reason for reason in reasons)


def test_answers_that_are_not_learned_or_too_long_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    passed, reasons = verdict(Oracle(), context=5)
    assert not passed and any("labels.truncated" in reason for reason in reasons)
    passed, reasons = verdict(Oracle(), ratio=1.06)
    assert not passed and any("text.loss_ratio" in reason for reason in reasons)
    assert verdict(Oracle(), ratio=1.06, max_text_loss=1.1)[0]


def test_who_shares_a_picture_or_an_answer_lends_nothing() -> None:
    def item(shade: int, said: str) -> PictureItem:
        return PictureItem(np.full((2, 2, 3), shade, np.uint8), said, None, "x")

    names = lenders([item(0, "a"), item(1, "b"), item(0, "c"), item(2, "c"), item(3, "d")])
    assert names[0] == names[2] == names[3]
    assert len({names[0], names[1], names[4]}) == 3
    joined = lenders([item(0, "a"), item(1, "b"), item(0, "b")])
    assert len(set(joined)) == 1
