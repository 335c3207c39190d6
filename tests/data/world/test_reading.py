"""Pictures of the micro-world are read from pixels alone, and what is unclear is said."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.data.world.nameless import bend, dye
from lumoomni.data.world.reading import Reading, Seen, read_picture, relation
from lumoomni.data.world.scene import Scene, Thing, draw, make_scene
from lumoomni.data.world.split import COLOURS, SHAPES, rng
from lumoomni.errors import InputError


def one(colour: str = "red", shape: str = "square", **more: object) -> Scene:
    thing = Thing(colour, shape, "large", 0.5, 0.5, 0.2)
    return Scene((replace(thing, **more),), "seen", 5)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from(("train", "seen", "unseen")))
def test_drawings_are_read_as_they_are(index: int, split: str) -> None:
    scene = make_scene(0, split, index)
    reading = read_picture(draw(scene))
    things = sorted(scene.things, key=lambda thing: thing.x)
    assert reading.count == len(things) and not reading.unread
    for seen, thing in zip(reading.things, things, strict=True):
        assert (seen.colour, seen.shape, seen.size) == (thing.colour, thing.shape, thing.size)
        assert abs(seen.x - thing.x) < 0.01 and abs(seen.y - thing.y) < 0.01
        assert abs(seen.radius - thing.radius) < 0.01


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_and_shape_at_other_resolutions(colour: str) -> None:
    for shape in SHAPES:
        for side in (48, 128):
            seen = read_picture(draw(one(colour, shape), side)).things
            assert [(s.colour, s.shape, s.size) for s in seen] == [(colour, shape, "large")]


def test_it_looks_at_pixels() -> None:
    """The same scene, painted over."""
    picture = draw(one("red", "square"))
    red = (picture[..., 0] > 190) & (picture[..., 1] < 70)
    assert red.sum() > 200
    picture[red] = (38, 78, 214)
    assert [seen.colour for seen in read_picture(picture).things] == ["blue"]


def test_the_ground_may_slope() -> None:
    picture = np.repeat(np.linspace(115, 195, 64).astype(np.uint8)[None, :, None], 64, 0)
    picture = np.repeat(picture, 3, 2)
    y, x = np.mgrid[0:64, 0:64] - 31.5
    picture[np.hypot(x, y + 8) < 0.9 * 0.2 * 64] = (132, 48, 160)
    reading = read_picture(picture)
    assert not reading.unread and reading.count == 1
    seen = reading.things[0]
    assert (seen.colour, seen.shape, seen.size) == ("purple", "circle", "large")
    assert abs(seen.radius - 0.2) < 0.004 and abs(seen.y - 0.375) < 0.004


@pytest.mark.parametrize("outline", ["bar", "ring", "cross", "half"])
def test_shapes_without_a_name_are_not_named(outline: str) -> None:
    for index in range(6):
        scene = bend(make_scene(0, "seen", index), rng(0, "bend", index))
        scene = replace(scene, things=tuple(replace(t, outline=outline) for t in scene.things))
        reading = read_picture(draw(scene))
        assert all(seen.shape is None for seen in reading.things)
        assert len(reading.unread) == len(scene.things)
        assert "has no clear shape" in reading.unread[0]


def test_inks_without_a_name_are_said() -> None:
    for index in range(8):
        assert read_picture(draw(dye(make_scene(0, "seen", index), rng(0, "dye", index)))).unread
    brown = one("red", "circle", tint=(120 - 214, 70 - 34, 20 - 40))
    reading = read_picture(draw(brown))
    assert reading.count is None and reading.things == ()
    assert "belong to no thing of a known colour" in reading.unread[0]


def test_a_thing_of_no_size_is_said() -> None:
    reading = read_picture(draw(one("blue", "circle", radius=0.148)))
    assert reading.things[0].size is None and reading.things[0].shape == "circle"
    assert reading.unread[0].endswith("is neither small nor large (radius 0.148)")


def test_a_spot_is_no_thing_and_an_empty_ground_has_none() -> None:
    picture = np.full((64, 64, 3), 150, np.uint8)
    assert read_picture(picture) == Reading(things=(), count=0)
    picture[10:13, 10:13] = (214, 34, 40)
    reading = read_picture(picture)
    assert reading.things == () and "too small for a thing" in reading.unread[0]


def test_noise_is_not_read_as_a_scene() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    reading = read_picture(noise)
    assert all(seen.shape is None for seen in reading.things)


def test_relations() -> None:
    def at(x: float, y: float) -> Seen:
        return Seen(colour=None, shape=None, size=None, x=x, y=y, radius=0.1, fit=1.0)

    assert relation(at(0.2, 0.5), at(0.8, 0.6)) == "left of"
    assert relation(at(0.8, 0.5), at(0.2, 0.6)) == "right of"
    assert relation(at(0.5, 0.2), at(0.6, 0.8)) == "above"
    assert relation(at(0.5, 0.8), at(0.6, 0.2)) == "below"
    assert relation(at(0.3, 0.3), at(0.6, 0.61)) is None


@pytest.mark.parametrize("shape", [(64, 64), (64, 48, 3), (16, 16, 3)])
def test_what_is_no_square_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="a picture to be read is"):
        read_picture(np.zeros(shape, np.uint8))
