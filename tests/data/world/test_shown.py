"""Scenes in a picture's words: as the connector says them, and asked late in the text stage."""

import torch

from lumoomni.data.sources import open_text
from lumoomni.data.world.dialogues import shown, shown_talk
from lumoomni.data.world.language import noun, says_held_out_pair
from lumoomni.data.world.questions import PLACE_KINDS
from lumoomni.data.world.scene import Scene, make_scene
from lumoomni.model.regions import STANDS, Regions, stands
from lumoomni.recipes.nano import nano
from lumoomni.stages.pretrain_text import PretrainTextConfig, curriculum


def connector_says(scene: Scene) -> str:
    """The words of a reader that makes no mistake, in the connector's order."""
    things = sorted(scene.things, key=lambda thing: thing.x)
    place = torch.tensor([[[8 * thing.y, 8 * thing.x] for thing in things]])
    found = torch.ones(1, len(things), dtype=torch.bool)
    where = stands(Regions(torch.zeros(1, len(things), dtype=torch.long), found, place))[0]
    words = [STANDS[int(i) - 1] if i else "" for i in where]
    pairs = zip(things, words, strict=True)
    return " ".join(f"{noun(thing)[2:]} {word}".strip() for thing, word in pairs)


def test_it_says_what_the_connector_says() -> None:
    for count in (1, 2, 3):
        for index in range(300):
            scene = make_scene(3, "train", index, count)
            assert shown(scene) == connector_says(scene)


def test_held_out_scenes_are_asked_about_places_alone() -> None:
    for index in range(200):
        talk = shown_talk(0, "seen", index, 1)
        question = talk.turns[0][1]
        assert any(word in question for word in STANDS) and len(talk.turns) == 2
    said = [shown_talk(0, "train", index, 6) for index in range(300)]
    assert all(len(talk.turns) == 12 for talk in said)
    assert not any(says_held_out_pair(text) for talk in said for _, text in talk.turns)
    assert PLACE_KINDS[1] == ()


def test_they_come_late_and_as_often_as_asked() -> None:
    config: PretrainTextConfig = nano().stage("pretrain_text").config
    rows = config.loop.steps * config.loop.batch_size * config.loop.accumulate
    draw = curriculum(config, open_text("world", 0), 0)
    late = int(config.shown_from * rows)
    early = [draw(index).kind for index in range(late - 300, late)]
    after = [draw(index).kind for index in range(late, late + 600)]
    assert "shown" not in early
    assert abs(after.count("shown") / 600 - config.shown) < 0.07
