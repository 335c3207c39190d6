"""Feeding: packed rows hold the same samples as padded ones, by number, cut where they must be."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from lumoomni.data.conversation import Layout, Turn
from lumoomni.data.feeding import Feed, shorten
from lumoomni.data.packing import PackConfig
from lumoomni.data.sample import PictureItem
from lumoomni.errors import InputError
from lumoomni.ids import IGNORE, IMAGE_PATCH
from tests.tiny import MEL, text_codec

CODEC = text_codec()
LAYOUT = Layout(text_codec=CODEC, template="compact", mel=MEL, image_positions=4)
WORDS = ["a", "large", "red", "circle", "above", "a", "small", "blue", "square"]


@dataclass
class Pictures:
    """Captions of different lengths; counts how often a picture was really opened."""

    count: int | None = 30
    opened: list[int] = field(default_factory=list)

    def item(self, split: str, index: int) -> PictureItem:
        self.opened.append(index)
        made = self.outline(split, index)
        image = np.full((8, 8, 3), self._place(index) % 256, dtype=np.uint8)
        return PictureItem(image, made.caption, None, made.name)

    def outline(self, split: str, index: int) -> PictureItem:
        place = self._place(index)
        said = " ".join(WORDS[: 1 + place % 8])
        return PictureItem(np.zeros((0, 0, 3), np.uint8), said, None, f"{split}-{place}")

    def fingerprints(self, split: str, index: int) -> tuple[str, ...]:
        return (f"{split}-{self._place(index)}",)

    def size(self, split: str) -> int | None:
        return self.count

    def _place(self, index: int) -> int:
        return index % self.count if self.count else index


def feed(source: Pictures, *, rows: int = 2, capacity: int = 120, seed: int = 0) -> Feed:
    pack = PackConfig(capacity=capacity, window=40) if capacity else None
    return Feed(source, LAYOUT, "say", batch_size=rows, context=100, pack=pack, seed=seed)


@pytest.mark.parametrize("count", [30, None])
def test_an_epoch_of_packed_rows_holds_every_sample_once(count: int | None) -> None:
    source = Pictures(count)
    packed, seen, index = feed(source), Counter[str](), 0
    size = count or 40
    while sum(seen.values()) < size:
        fed = packed.batch(index)
        seen.update(item.name for item in fed.items)
        assert fed.batch.pixels is not None and len(fed.batch.pixels) == len(fed.items)
        assert fed.batch.ids.shape[1] <= 120
        index += 1
    assert set(seen.values()) == {1} and len(seen) == size
    again = packed.batch(index)
    assert count is None or {item.name for item in again.items} <= seen.keys()
    assert count is not None or not {item.name for item in again.items} & seen.keys()


def test_batches_are_pure_functions_of_their_number() -> None:
    one, other = feed(Pictures()), feed(Pictures())
    for index in (7, 0, 3, 12):
        a, b = one.batch(index), other.batch(index)
        assert torch.equal(a.batch.ids, b.batch.ids)
        assert [i.name for i in a.items] == [i.name for i in b.items]
    shuffled = feed(Pictures(), seed=1).batch(0)
    assert [i.name for i in shuffled.items] != [i.name for i in one.batch(0).items]


def test_pictures_stand_in_reading_order_and_labels_are_the_padded_ones() -> None:
    packed = feed(Pictures()).batch(0)
    assert packed.batch.pixels is not None
    shades = ((packed.batch.pixels[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    assert shades == [int(item.name.split("-")[1]) for item in packed.items]
    padded = feed(Pictures(), rows=30, capacity=0)
    alone = {i.name: padded.batch(0).batch.labels[k] for k, i in enumerate(padded.batch(0).items)}
    wanted = sum(int((alone[i.name] != IGNORE).sum()) for i in packed.items)
    assert int((packed.batch.labels != IGNORE).sum()) == wanted > 0


def test_no_picture_is_opened_to_learn_lengths() -> None:
    source = Pictures()
    fed = feed(source).batch(0)
    assert len(source.opened) == len(fed.items) < 30


def test_too_long_a_sample_is_cut_in_its_text_and_never_in_a_picture() -> None:
    turns = (
        Turn(role="user", text="say", images=(np.zeros((8, 8, 3), np.uint8),)),
        Turn(role="assistant", text=" ".join(WORDS)),
    )
    whole = LAYOUT.encode(turns)
    cut = shorten(whole, len(whole) - 3)
    assert cut.sequence.ids.tolist() == whole.sequence.ids.tolist()[:-3]
    assert all(span.stop <= len(cut) for span in cut.sequence.spans)
    assert shorten(whole, len(whole)) is whole
    with pytest.raises(InputError, match=f"{len(whole)} positions cannot be cut to 5: its first"):
        shorten(whole, 5)
    two = (Turn(role="user", text="and", images=(np.ones((8, 8, 3), np.uint8),)), turns[1])
    both = LAYOUT.encode((*turns, *two))
    second = both.sequence.slots[1]
    for most in range(second.start - 1, second.stop + 1):
        cut = shorten(both, most)
        assert len(cut) == second.start - 1 and len(cut.pixels) == 1 == len(cut.sequence.slots)
        assert int((cut.sequence.ids == IMAGE_PATCH).sum()) == LAYOUT.image_positions
        assert cut.sequence.numbers is not None and len(cut.sequence.numbers) == len(cut)
        assert (cut.sequence.numbers < 0).all()
    assert len(shorten(both, second.stop + 1).pixels) == 2
    with pytest.raises(InputError, match="100 positions do not fit rows of 50"):
        feed(Pictures(), capacity=50)
