"""Crowds: pure, apart, and without a pair that is held out."""

import numpy as np

from lumoomni.data.world.crowds import CrowdConfig, coding_scene
from lumoomni.data.world.scene import OUTLINES, POINTED, draw
from lumoomni.data.world.split import COLOURS, HELD_OUT_PAIRS


def test_no_thing_is_of_a_held_out_pair() -> None:
    """Not even half of one: where a half has another ink, the thing has two."""
    nearly: set[str] = set()
    for index in range(300):
        for thing in coding_scene(0, index, CrowdConfig()).things:
            if thing.outline is None:
                assert thing.pair not in HELD_OUT_PAIRS
            else:
                assert thing.outline in POINTED and thing.outline not in OUTLINES
                nearly.add(thing.colour)
    assert nearly == set(COLOURS)


def test_shares_are_what_they_say() -> None:
    every = [coding_scene(3, i, CrowdConfig(two_inks=0.25)) for i in range(300)]
    things = [thing for scene in every for thing in scene.things]
    halves = np.mean([thing.other_tint is not None for thing in things])
    crowds = np.mean([len(scene.things) > 3 for scene in every])
    assert 0.2 < halves < 0.3 and 0.7 < crowds < 0.88
    plain = CrowdConfig(crowds=0, two_inks=0)
    assert all(len(coding_scene(3, i, plain).things) <= 3 for i in range(50))
    assert all(t.other_tint is None for i in range(50) for t in coding_scene(3, i, plain).things)


def test_things_keep_apart_and_a_scene_depends_on_its_index_alone() -> None:
    config = CrowdConfig(crowds=1)
    for index in range(100):
        scene = coding_scene(0, index, config)
        assert scene == coding_scene(0, index, config) != coding_scene(0, index + 1, config)
        for place, a in enumerate(scene.things):
            for b in scene.things[:place]:
                assert np.hypot(a.x - b.x, a.y - b.y) >= a.radius + b.radius
        assert draw(scene).shape == (64, 64, 3)


def test_points_are_drawn_as_many_as_named() -> None:
    """How often a circle at half of the radius crosses the edge, twice for each point."""
    found = (coding_scene(0, i, CrowdConfig(crowds=1, two_inks=0, small=0)) for i in range(400))
    seen: dict[str, list[int]] = {}
    for scene in found:
        one = next((t for t in scene.things if t.outline and 0.2 < t.x < 0.8 > t.y > 0.2), None)
        if one is None:
            continue
        assert one.outline is not None
        picture = draw(scene, 256).astype(float)
        turn = np.arange(0, 2 * np.pi, 0.01)
        reach = 0.68 * one.radius * 256
        x = (one.x * 256 + reach * np.cos(turn)).astype(int)
        y = (one.y * 256 + reach * np.sin(turn)).astype(int)
        ink = picture[int(one.y * 256), int(one.x * 256)]
        inside = np.abs(picture[y, x] - ink).max(-1) < 20
        seen.setdefault(one.outline, []).append(int((inside != np.roll(inside, 1)).sum()))
    # A pixel's corner may add a change here and there.
    middle = {name: int(np.median(changes)) for name, changes in seen.items()}
    assert middle == {name: 2 * points for name, points in POINTED.items()}
