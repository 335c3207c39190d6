"""Sketches hold what their scenes hold, and nothing that words do not say."""

import numpy as np

from lumoomni.data.world.marking import ATTRIBUTES, add_up, mark
from lumoomni.data.world.reading import read_picture
from lumoomni.data.world.scene import RGB, draw, make_scene
from lumoomni.data.world.sketch import sketch


def test_what_scenes_hold_is_read_off_their_sketches() -> None:
    scenes = [make_scene(2, split, i) for split in ("train", "unseen") for i in range(60)]
    found = add_up([mark(read_picture(sketch(one)), one) for one in scenes])
    assert all(found.right[name] == found.asked[name] for name in ATTRIBUTES)


def test_the_sheet_and_the_colours_are_always_the_same() -> None:
    named = {tuple(RGB[name]) for name in RGB}
    for index in range(20):
        scene = make_scene(5, "train", index)
        picture = sketch(scene)
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        colours, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
        often = {tuple(int(v) for v in c) for c in colours[np.argsort(counts)[-2:]]}
        # Edges are between two colours; what fills an area is the sheet or has a name.
        assert often <= named | {(153, 153, 153)} and (153, 153, 153) in often
        assert (picture != draw(scene)).any()
