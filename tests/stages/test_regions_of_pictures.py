"""The vision stage with and without described regions."""

import threading
from pathlib import Path

import numpy as np
import torch

from lumoomni.codecs.text import TextCodec
from lumoomni.data.sample import UNTOLD, PictureItem, Region
from lumoomni.model.encoder import EncoderConfig
from lumoomni.model.regions import IGNORE
from lumoomni.model.vision import VisionTowerConfig
from lumoomni.pipeline import StageContext
from lumoomni.runtime import Progress
from lumoomni.stages.train_vision_encoder import (
    new_tower,
    picture_batch,
    region_classes,
    regions_right,
)

CODEC = TextCodec.train(["a large red circle", " a large red circle", " a small star"] * 20, 300)
SHAPE = VisionTowerConfig(
    image_size=32,
    patch=8,
    encoder=EncoderConfig(width=16, layers=1, heads=2, ffn_width=16),
    region_words=4,
)


class Pictures:
    """One grey picture with these regions."""

    def __init__(self, *regions: Region) -> None:
        self._item = PictureItem(
            np.full((32, 32, 3), 128, np.uint8), "a large red circle", None, "one", regions
        )

    def item(self, split: str, index: int) -> PictureItem:
        return self._item

    def size(self, split: str) -> int | None:
        return 3


def context(tmp_path: Path) -> StageContext:
    return StageContext(
        name="train_vision_encoder",
        config=None,
        parents={},
        out=tmp_path,
        work=tmp_path,
        cache=tmp_path,
        seed=0,
        progress=Progress(silent=True),
        stop=threading.Event(),
    )


def test_words_keep_their_places_and_untold_ones_are_not_learned() -> None:
    red = region_classes(CODEC, "a large red circle", 4)
    open_colour = region_classes(CODEC, f"a large {UNTOLD} circle", 4)
    assert len(red) == 4 and all(c > 0 for c in red)
    assert open_colour == [red[0], red[1], IGNORE, red[3]]
    assert region_classes(CODEC, "a circle", 4) == [red[0], red[3], 0, 0]
    assert region_classes(CODEC, "a large red circle a star", 4) == red


def test_a_batch_holds_centres_and_covered_patches() -> None:
    region = Region(0.3, 0.3, 0.3, "a large red circle")
    items = [Pictures(region).item("train", 0), Pictures().item("train", 0)]
    batch = picture_batch(CODEC, items, 8, 4, 4)
    assert batch.centred.nonzero().tolist() == [[0, region.centre(4)]] == [[0, 5]]
    assert batch.covered.tolist() == [[0, cell] for cell in region.cells(4)]
    assert len(batch.classes) == len(batch.covered) > 1
    assert batch.classes.unique(dim=0).tolist() == [region_classes(CODEC, region.text, 4)]
    without = picture_batch(CODEC, items, 8, 4, 0)
    assert not len(without.covered) and not bool(without.centred.any())


def test_a_tower_reads_regions_only_where_some_are_described(tmp_path: Path) -> None:
    region = Region(0.3, 0.3, 0.3, "a large red circle")
    told = new_tower(SHAPE, CODEC, Pictures(region), context(tmp_path))
    assert told.reader is not None and told.config.symbols == CODEC.vocab_size
    first = told.reader.words.bias.view(4, -1)[0]
    assert int(first.argmax()) == region_classes(CODEC, region.text, 4)[0]
    untold = new_tower(SHAPE, CODEC, Pictures(), context(tmp_path))
    assert untold.reader is None and untold.config.region_words == 0


@torch.no_grad()
def test_a_picture_is_read_rightly_only_with_all_its_regions_and_no_more(tmp_path: Path) -> None:
    region = Region(0.3, 0.3, 0.3, "a large red circle")
    tower = new_tower(SHAPE, CODEC, Pictures(region), context(tmp_path))
    assert tower.reader is not None
    tower.reader.centre.weight.zero_()
    tower.reader.words.weight.zero_()

    def right(*regions: Region) -> bool:
        return regions_right(tower, CODEC, [Pictures(*regions).item("seen", 0)])[0]

    tower.reader.centre.bias.fill_(-9.0)
    assert right() and not right(region)
    tower.reader.centre.bias.fill_(9.0)  # all patches tie, so each is a peak
    assert not right(region) and not right()
    assert right(*[region] * 8)
