"""Things without a name: drawn as they say, and with nothing to learn about what goes together."""

from collections import Counter

import numpy as np

from lumoomni.data.world.nameless import (
    LEAST_DIFFERENCE,
    STRANGE_COLOURS,
    STRANGE_SHAPES,
    bend,
    dye,
    rename,
)
from lumoomni.data.world.scene import OUTLINES, RGB, Thing, draw, make_scene
from lumoomni.data.world.split import COLOURS, SHAPES, rng


def inks(thing: Thing) -> list[np.ndarray]:
    """Red, green and blue of each half."""
    assert thing.other_tint is not None
    named = np.array(RGB[thing.colour])
    return [named + np.array(tint) for tint in (thing.tint, thing.other_tint)]


def called(ink: np.ndarray) -> str:
    """The named colour that is closest."""
    table = np.array([RGB[colour] for colour in COLOURS])
    return COLOURS[int(np.square(table - ink).sum(1).argmin())]


def test_two_inks_are_seen_and_differ_by_more_than_shades_of_one_colour():
    for index in range(60):
        scene = dye(make_scene(0, "train", index, 1), rng(0, index))
        one, other = inks(scene.things[0])
        assert np.abs(one - other).max() >= LEAST_DIFFERENCE and called(one) != called(other)
        picture = draw(scene, 96).reshape(-1, 3).astype(int)
        for ink in (one, other):
            assert ink.min() >= 0 and ink.max() <= 255
            assert int((np.abs(picture - ink).max(1) <= 2).sum()) >= 20


def test_every_shape_comes_in_every_ink_alike():
    seen: Counter[tuple[str, str]] = Counter()
    for index in range(1500):
        for thing in dye(make_scene(0, "train", index), rng(0, index)).things:
            seen.update((called(ink), thing.shape) for ink in inks(thing))
    for colour in COLOURS:
        shares = [seen[colour, shape] / sum(seen[c, shape] for c in COLOURS) for shape in SHAPES]
        assert max(shares) < 1.5 * min(shares) + 0.02


def test_every_colour_comes_in_every_outline_alike():
    seen: Counter[tuple[str, str]] = Counter()
    for index in range(1500):
        for thing in bend(make_scene(0, "train", index), rng(0, index)).things:
            assert thing.outline is not None
            seen[thing.colour, thing.outline] += 1
    for colour in COLOURS:
        counts = [seen[colour, outline] for outline in OUTLINES]
        assert min(counts) > 0.6 * max(counts) > 0


def test_outlines_look_like_no_named_shape():
    """Each outline's mask overlaps every named shape's, at any turn, by less than four fifths."""

    def mask(thing: Thing) -> np.ndarray:
        plain = Thing("white", thing.shape, "large", 0.5, 0.5, 0.3, thing.angle)
        shown = (
            plain
            if thing.outline is None
            else Thing(
                "white", thing.shape, "large", 0.5, 0.5, 0.3, thing.angle, outline=thing.outline
            )
        )
        scene = make_scene(0, "train", 0, 1)
        return draw(type(scene)((shown,), "train", 0), 96).min(2) > 220

    for outline in OUTLINES:
        bent = mask(Thing("white", "circle", "large", 0.5, 0.5, 0.3, outline=outline))
        for shape in SHAPES:
            for turn in np.linspace(0, 2 * np.pi, 12):
                named = mask(Thing("white", shape, "large", 0.5, 0.5, 0.3, float(turn)))
                assert (bent & named).sum() < 0.8 * (bent | named).sum()


def test_renamed_things_keep_what_they_shared_and_meet_every_word_alike():
    met: Counter[tuple[str, str]] = Counter()
    for index in range(1500):
        scene = make_scene(0, "train", index)
        other = rename(scene, rng(0, index))
        colours = [thing.colour for thing in other.things]
        strange = colours[0] in STRANGE_COLOURS
        for a, old in zip(other.things, scene.things, strict=True):
            assert (a.colour in STRANGE_COLOURS) == strange
            assert (a.shape in STRANGE_SHAPES) == (not strange)
            assert (a.colour if not strange else a.shape) in (old.colour, old.shape)
            for b, older in zip(other.things, scene.things, strict=True):
                assert (a.colour == b.colour) == (old.colour == older.colour)
                assert (a.shape == b.shape) == (old.shape == older.shape)
            met[a.pair] += 1
    # Every strange word is met by every known one, those of held-out pairs too.
    assert all(met[c, s] for c in STRANGE_COLOURS for s in SHAPES)
    assert all(met[c, s] for c in COLOURS for s in STRANGE_SHAPES)
    assert not any(met[c, s] for c in COLOURS for s in SHAPES)


def test_only_training_renames():
    from lumoomni.data.world.dialogues import scene_talk

    strange = set(STRANGE_COLOURS + STRANGE_SHAPES)
    said = {
        split: sum(
            bool(strange & set(" ".join(t for _, t in scene_talk(0, split, i, 2).turns).split()))
            for i in range(200)
        )
        for split in ("train", "seen")
    }
    assert said["seen"] == 0 and 40 <= said["train"] <= 110
