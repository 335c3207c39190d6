"""What Track A's stages share: one set of settings, and recipes that it did not change."""

from dataclasses import fields

import pytest

from lumoomni.config import config_hash, from_dict, to_dict
from lumoomni.recipes import resolve
from lumoomni.stages.align_connector import AlignConnectorConfig
from lumoomni.stages.instruct_lora import InstructLoraConfig
from lumoomni.stages.picture_training import PictureTrainingConfig

HASHES = {
    ("nano", "align_connector"): "1b70321468ca88c536104f12cde4fc5f6d4fde3e8413b4c76eb93681ce0c88dc",
    ("nano", "sweep_connector"): "29113ee69a11c7b12420bcc56fa25e38f19576cd28b22ac2ba15b8ffb68ebb12",
    (
        "qwen3-8b",
        "align_connector",
    ): "82ef3c593c12cadcdc3bd6bac0e416a5cd089f74755c360f7aa7339e3dc3dae0",
    ("qwen3-8b", "instruct"): "b4dce2f72d1dd3ebc5526dbb5bfa8e854aba79c615573de941a234826951774e",
    (
        "qwen3-8b",
        "sweep_connector",
    ): "c468c460d97109dd1b2ac6fd3b7343e59b262ef20e230acba6a08c7986912e78",
    (
        "qwen3-0.6b",
        "align_connector",
    ): "84419c1e6ea1a8b12f06d5a1196f244d3cc165ad78f42c08c99ba752b8846e8a",
    ("qwen3-0.6b", "instruct"): "32f358d0143c319c5382502739551dd9e0609def5bd22dc4298ed2e8d529bc31",
    (
        "qwen3-0.6b",
        "sweep_connector",
    ): "fec06637d79f630f1a8cf8461f02afd1a6902ee83ad07d49bac5d45c5b20c3e4",
    (
        "qwen3-0.6b-onestage",
        "instruct",
    ): "f9588ce4fab78df2409e317eeb99e38093ce6149a6dc151441aa6a1b8d72ce19",
}
"""From before the settings had one class; a build of then is kept as it is by a build of now."""


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
