"""The ablation tells a model that uses its pictures from planted faults that do not."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lumoomni.audits.ablation import Ablation, ablate, by_length, label_facts, strangers
from lumoomni.data.conversation import Encoded, Layout, Turn
from lumoomni.gates import Report, exact, judge
from lumoomni.ids import IMAGE_PATCH
from lumoomni.media.mel import MelConfig
from lumoomni.stages.align_connector import AlignConnectorConfig, checks
from lumoomni.train.loop import LoopConfig
from tests.tiny import text_codec

CODEC = text_codec()
WORDS = ("red", "blue", "circle", "square")
LAYOUT = Layout(text_codec=CODEC, template="compact", mel=MelConfig(), image_positions=1)
COUNT = 120


def item(word: int) -> Encoded:
    """A picture whose first pixel says which word its caption is."""
    picture = np.full((4, 4, 3), word * 40, dtype=np.uint8)
    asked = Turn(role="user", text="what?", images=(picture,))
    return LAYOUT.encode((asked, Turn(role="assistant", text=WORDS[word])))


class Oracle:
    """A model that says its picture's word. `sure`: how it puts its odds; `fault`: what is wrong.

    Another's picture misleads it by `sure`; nothing and noise leave it with no form at all.
    """

    def __init__(self, fault: str = "", sure: float = 3.0) -> None:
        self.fault, self.sure = fault, sure
        self.table = torch.zeros(CODEC.vocab_size, 8)
        self.table[:, 5] = 1.0
        for place, word in enumerate(WORDS):
            self.table[CODEC.encode(word)] = torch.eye(8)[place]
        self.table[CODEC.special("<|im_end|>")] = torch.eye(8)[:4].sum(0)
        self.thinker = SimpleNamespace(head_weight=lambda: self.table)

    def parameters(self) -> Any:
        return iter([self.table])

    def image_features(self, pixels: Tensor) -> Tensor:
        words = ((pixels[:, 0, 0, 0] + 1) * 127.5 / 40).round().long()
        if self.fault == "not injected":
            words = torch.zeros_like(words)
        if self.fault == "wrong order":
            words = words.roll(1)
        return torch.eye(8)[words][:, None] * 2

    def __call__(self, inputs: Any, images: Tensor) -> Any:
        hidden = images[:, :1] * self.sure
        if self.fault == "labels shifted":
            hidden = torch.full_like(hidden, 1.0)
        # What is no picture's vector speaks for ids that no caption has.
        odd = (images.amax(-1) < 1.9) | (images.sum(-1) > 2.1)
        hidden = torch.where(odd[..., None], torch.eye(8)[5] * 20, hidden)
        return SimpleNamespace(hidden=hidden.expand(-1, inputs.ids.shape[1], -1))


def found(fault: str = "", **options: Any) -> Ablation:
    words = [i % 4 for i in range(COUNT)]
    items = [item(word) for word in words]
    names = [WORDS[word] for word in words]
    return ablate(Oracle(fault, **options), items, names, seed=0)  # type: ignore[arg-type]


def verdict(ablation: Ablation, **settings: Any) -> bool:
    config = AlignConnectorConfig(loop=LoopConfig(steps=1, batch_size=1), **settings)
    facts = label_facts([item(0)] * 100, 512)
    metrics = {**ablation.metrics(), **facts}
    metrics["frozen.changed"] = exact(0.0)
    return judge(Report(metrics=metrics), checks(config)).passed


def test_a_model_that_uses_its_pictures_passes() -> None:
    ablation = found()
    loss = {name: ablation.loss(name).value for name in ablation.losses}
    assert loss["correct"] < loss["shuffled"] < min(loss["zero"], loss["noise"])
    assert verdict(ablation)


@pytest.mark.parametrize("fault", ["not injected", "wrong order", "labels shifted"])
def test_planted_faults_fail(fault: str) -> None:
    assert not verdict(found(fault))
    assert not verdict(found(fault), rank_wrong=False)


def test_a_sure_model_is_misled_by_anothers_picture_more_than_by_none() -> None:
    ablation = found(sure=40.0)
    assert not verdict(ablation)
    assert verdict(ablation, rank_wrong=False)


def test_items_lend_each_other_other_pictures() -> None:
    names = ["a", "b", "a", "a", "b"]
    for i, j in enumerate(strangers(names)):
        assert names[i] != names[j]
    assert sorted(strangers(list("abcd"))) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="the 3 held-out items are all called"):
        strangers(["a"] * 3)


def test_lengths_and_labels_are_counted() -> None:
    ablation = Ablation({"correct": [2.0, 6.0, 30.0]}, [2.0, 3.0, 10.0])
    groups = by_length(ablation, (2, 5))
    assert {name: m.value for name, m in groups.items()} == {
        "caption.loss.short": 1.0,
        "caption.loss.medium": 2.0,
        "caption.loss.long": 3.0,
    }
    silent = LAYOUT.encode((Turn(role="user", text="hello"),))
    facts = label_facts([item(0), silent], len(item(0)) - 1)
    assert facts["labels.none"].value == 0.5
    assert facts["labels.truncated"].value == 0.5


def test_items_may_show_different_numbers_of_pictures() -> None:
    """The first picture says the word; others stand after it, and are lent in order."""

    def shown(word: int, more: int) -> Encoded:
        made = item(word)
        return (
            LAYOUT.encode(
                (
                    Turn(role="user", text="what?", images=(picture(word),) + (picture(3),) * more),
                    Turn(role="assistant", text=WORDS[word]),
                )
            )
            if more
            else made
        )

    def picture(word: int) -> np.ndarray:
        return np.full((4, 4, 3), word * 40, dtype=np.uint8)

    class First(Oracle):
        """Reads the first picture of each item."""

        def __call__(self, inputs: Any, images: Tensor) -> Any:
            counts = (inputs.ids == IMAGE_PATCH).sum(1).tolist()
            starts = [sum(counts[:i]) for i in range(len(counts))]
            return super().__call__(inputs, images[starts])

    words = [i % 3 for i in range(COUNT)]
    items = [shown(word, i % 2) for i, word in enumerate(words)]
    names = [WORDS[word] for word in words]
    found = ablate(First(), items, names, seed=0)  # type: ignore[arg-type]
    assert verdict(found)
    swapped = [*items[1:], items[0]]
    wrong = ablate(First("wrong order"), swapped, [*names[1:], names[0]], seed=0)  # type: ignore[arg-type]
    assert not verdict(wrong)
    with pytest.raises(ValueError, match="has no picture"):
        blind = LAYOUT.encode((Turn(role="user", text="a"), Turn(role="assistant", text="b")))
        ablate(First(), [*items, blind], [*names, "x"], seed=0)  # type: ignore[arg-type]
