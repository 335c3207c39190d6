"""Sketches hold what their scenes hold, and nothing that words do not say."""

import numpy as np
import pytest

from lumoomni.data.world.marking import ATTRIBUTES, add_up, mark
from lumoomni.data.world.reading import read_picture
from lumoomni.data.world.scene import RGB, Scene, Thing, draw, make_scene
from lumoomni.data.world.sketch import SQUARES, laid_out, sketch

SCENES = [make_scene(2, split, i) for split in ("train", "unseen") for i in range(60)]


def test_what_scenes_hold_is_read_off_their_sketches() -> None:
    found = add_up([mark(read_picture(sketch(one)), one) for one in SCENES])
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


def test_things_stand_on_crossings_in_one_radius_for_each_size() -> None:
    radii: dict[str, set[float]] = {}
    for scene in SCENES:
        neat = laid_out(scene)
        assert neat.relation == scene.relation
        for before, thing in zip(scene.things, neat.things, strict=True):
            assert thing.x * SQUARES % 1 == thing.y * SQUARES % 1 == 0
            assert max(abs(thing.x - before.x), abs(thing.y - before.y)) <= 0.375
            radii.setdefault(thing.size, set()).add(thing.radius)
    assert all(len(some) == 1 for some in radii.values()) and len(radii) == 2


def test_one_thing_looks_the_same_wherever_it_stands() -> None:
    def alone(x: float, y: float) -> np.ndarray:
        return sketch(Scene((Thing("red", "circle", "small", x, y, 0.1),), "train", 0))

    one, other = alone(0.26, 0.24), alone(0.73, 0.52)
    assert (np.roll(one, (16, 32), axis=(0, 1)) == other).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_large_things_find_room(count: int) -> None:
    """Also where no crossing near them is clear."""
    things = tuple(Thing("red", "circle", "large", 0.5, 0.5, 0.2) for _ in range(count))
    neat = laid_out(Scene(things, "train", 0))
    assert len(read_picture(sketch(neat)).things) == count
