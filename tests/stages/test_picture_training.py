"""What Track A's stages share: one set of settings, and recipes that it did not change."""

from dataclasses import fields

import pytest

from lumoomni.config import config_hash, from_dict, to_dict
from lumoomni.recipes import resolve
from lumoomni.stages.align_connector import AlignConnectorConfig
from lumoomni.stages.instruct_lora import InstructLoraConfig
from lumoomni.stages.picture_training import PictureTrainingConfig

HASHES = {
    ("nano", "align_connector"): "e070eb0a028730a988d7c99b868a877f4ef238287d14f5acbeac9de9eb91a442",
    ("nano", "sweep_connector"): "7fc62299fac77346e5c68c115cb2317cd6597a7a81666d930d89f70ba65595c3",
    (
        "qwen3-8b",
        "align_connector",
    ): "bb7e2f9be5cf19f92b27a9d7362062937477825577b7a47b5eb13c0a1de78db2",
    ("qwen3-8b", "instruct"): "181a05e4a786a72be01a8b727386a2e11193a9891091678e77453c26e4f47d9d",
    (
        "qwen3-8b",
        "sweep_connector",
    ): "25c0f0046218bbd66a3308c89794dd2eb7c7f11841d429d45e9609c20bf7ae0e",
    (
        "qwen3-0.6b",
        "align_connector",
    ): "e1f199fef7df5ce53bcab6e151a8807645469ea0cae5ebccdf834b4f01bef502",
    ("qwen3-0.6b", "instruct"): "cdb1942d3a2d498853dead85db9ba09624ebe01fc1b338849a4a06143d4ab93f",
    (
        "qwen3-0.6b",
        "sweep_connector",
    ): "be221e3d57a4c062078cb95d57bfe69f167b5b1467158e506fbc56cb3ccacec1",
    (
        "qwen3-0.6b-onestage",
        "instruct",
    ): "fa81514505542402816bac03d48a3ce8581e24bf9debe226ed3f60716962f63f",
}
"""A build of then is kept by a build of now. They changed when what only says how a loop runs
(`log_every`, `makers`) was left out of what is built."""


@pytest.mark.parametrize(("recipe", "stage"), list(HASHES))
def test_the_hashes_of_the_recipes_are_what_they_were(recipe: str, stage: str) -> None:
    assert config_hash(resolve(recipe).stage(stage).config) == HASHES[recipe, stage]


def test_both_stages_have_the_shared_settings_and_take_them_by_name() -> None:
    shared = {one.name for one in fields(PictureTrainingConfig)}
    assert {"data", "pack", "cache_features", "tower_batch", "context", "rank_wrong"} <= shared
    made = resolve("qwen3-8b").override(["align_connector.pack=64", "instruct.tower_batch=3"])
    for name, kind in (("align_connector", AlignConnectorConfig), ("instruct", InstructLoraConfig)):
        config = made.stage(name).config
        assert type(config) is kind and kind.__mro__[1] is PictureTrainingConfig
        assert shared <= to_dict(config).keys() and from_dict(kind, to_dict(config)) == config
    assert made.stage("align_connector").config.pack == 64
    assert made.stage("instruct").config.tower_batch == 3
