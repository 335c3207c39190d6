"""Marks count what was read rightly, whichever thing came first, and nothing that was unread."""

from dataclasses import replace

from lumoomni.data.world.marking import Marks, add_up, mark
from lumoomni.data.world.reading import Reading, Seen
from lumoomni.data.world.scene import Scene, Thing, make_scene


def seen_of(thing: Thing) -> Seen:
    return Seen(
        colour=thing.colour,
        shape=thing.shape,
        size=thing.size,
        x=thing.x,
        y=thing.y,
        radius=thing.radius,
        fit=1.0,
    )


def reading_of(scene: Scene) -> Reading:
    return Reading(things=tuple(map(seen_of, scene.things)), count=len(scene.things))


def wrong(reading: Reading, scene: Scene) -> dict[str, int]:
    marks = mark(reading, scene)
    return {name: marks.asked[name] - marks.right[name] for name in marks.asked}


NOTHING = {"count": 0, "colour": 0, "shape": 0, "size": 0, "relation": 0}
SCENES = {count: make_scene(0, "seen", 3, count) for count in (1, 2, 3)}


def test_all_that_is_there_is_asked_for() -> None:
    for count, scene in SCENES.items():
        marks = mark(reading_of(scene), scene)
        assert marks.whole
        assert marks.asked == {
            "count": 1,
            "relation": count - 1,
            **dict.fromkeys(("colour", "shape", "size"), count),
        }
        turned = Reading(things=reading_of(scene).things[::-1], count=count)
        assert mark(turned, scene).whole


def test_one_mistake_costs_one_mark() -> None:
    for scene in SCENES.values():
        for name, value in (("colour", "pink"), ("shape", None), ("size", None)):
            reading = reading_of(scene)
            first = replace(reading.things[0], **{name: value})
            reading = replace(reading, things=(first, *reading.things[1:]))
            assert wrong(reading, scene) == {**NOTHING, name: 1}
        assert wrong(replace(reading_of(scene), count=None), scene) == {**NOTHING, "count": 1}


def test_things_in_each_other_s_places_cost_the_relation() -> None:
    for count in (2, 3):
        scene = SCENES[count]
        a, b, *rest = reading_of(scene).things
        swapped = (replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y), *rest)
        found = wrong(Reading(things=swapped, count=count), scene)
        assert found["relation"] >= 1 and found["colour"] == found["shape"] == 0


def test_a_missing_thing_costs_all_that_it_had() -> None:
    scene = SCENES[2]
    alone = Reading(things=reading_of(scene).things[:1], count=1)
    assert wrong(alone, scene) == dict.fromkeys(NOTHING, 1)
    assert wrong(Reading(things=(), count=0), scene)["size"] == 2


def test_crumbs_get_no_marks() -> None:
    scene = SCENES[1]
    crumbs = Reading(things=reading_of(scene).things * 7, count=1)
    assert sum(mark(crumbs, scene).right.values()) == 0


def test_sums() -> None:
    total = add_up([mark(reading_of(scene), scene) for scene in SCENES.values()])
    assert isinstance(total, Marks) and total.whole
    assert total.asked["colour"] == 6 and total.asked["relation"] == 3
