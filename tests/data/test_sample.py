"""Items cannot be changed once they are made, and every source yields the items of its kind."""

import dataclasses

import numpy as np
import pytest

from lumoomni.data.sample import UNTOLD, PictureItem, Region, SpeechItem, TextItem
from lumoomni.data.sources import open_pictures, open_speech, open_text
from lumoomni.data.world.split import COLOURS, SHAPES


def test_items_are_frozen() -> None:
    items = (
        TextItem((("assistant", "hello"),)),
        SpeechItem("hello", np.zeros(4, np.float32), None, "a"),
        PictureItem(np.zeros((2, 2, 3), np.uint8), "black", None, "b"),
    )
    assert items[0].accepted == () and items[0].kind == ""
    for item in items:
        name = dataclasses.fields(item)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(item, name, "other")


def test_sources_yield_the_items_of_their_kind() -> None:
    for source, kind in (
        (open_text("world", 0), TextItem),
        (open_speech("world-narrator", 0), SpeechItem),
        (open_pictures("world", 0, 32), PictureItem),
    ):
        assert isinstance(source.item("train", 10**9), kind)


def test_a_region_covers_its_own_cell_and_those_whose_centre_it_holds() -> None:
    assert Region(0.5, 0.5, 0.01, "dot").cells(4) == [10]
    assert Region(0.5, 0.5, 0.2, "disc").cells(4) == [5, 6, 9, 10]
    assert Region(0.999, 1.0, 0.0, "corner").cells(2) == [3]


def test_training_pictures_tell_where_things_are_and_leave_out_what_has_no_name() -> None:
    source = open_pictures("world", 0, 32)
    items = [source.item("train", i) for i in range(60)]
    dyed = [item for item in items if item.scene is None]
    assert 25 < len(dyed) < 50
    for item in items:
        said = set(item.caption.replace(",", "").split())
        told = (bool(said & set(COLOURS)), bool(said & set(SHAPES)))
        assert told == (True, True) if item.scene else told in ((True, False), (False, True))
        for region in item.regions:
            words = set(region.text.split())
            assert words - {UNTOLD} <= said and (UNTOLD in words) == (item.scene is None)
    held = [source.item("seen", i) for i in range(20)]
    assert all(item.scene is not None and item.regions for item in held)
