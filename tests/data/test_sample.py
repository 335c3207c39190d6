"""Items cannot be changed once they are made, and every source yields the items of its kind."""

import dataclasses

import numpy as np
import pytest

from lumoomni.data.sample import PictureItem, SpeechItem, TextItem
from lumoomni.data.sources import open_pictures, open_speech, open_text


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
