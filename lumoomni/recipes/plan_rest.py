"""The stages that `plan.py` counts no update of: what they do instead, in words and numbers.

Knows: which stages copy, encode or adopt, and which parts work in them. Does not know: seconds.
Costs: nothing; parts are made without memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lumoomni.codecs.image_vq import ImageCodec
from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.pipeline import Recipe
from lumoomni.recipes.loads import LOADS
from lumoomni.stages.adopt_parts import AdoptPartsConfig
from lumoomni.stages.build_token_space import BuildTokenSpaceConfig
from lumoomni.stages.sweep_connector import SweepConnectorConfig, choices
from lumoomni.stages.tokenize import TokenizeConfig
from lumoomni.stages.unify import UnifyConfig


@dataclass(frozen=True, kw_only=True)
class Rest:
    """One stage: what it does, the parameters at work in it, and how many updates it trains.

    `updates` is None where they are not known.
    """

    stage: str
    does: str
    frozen: int = 0
    updates: int | None = 0


def rest_of(recipe: Recipe) -> tuple[Rest, ...]:
    """A line for every stage that `plan` has none for, in order."""
    configs = {stage.name: stage.config for stage in recipe.stages}
    return tuple(
        DOES.get(type(config), _unknown)(name, configs)
        for name, config in configs.items()
        if type(config) not in LOADS
    )


def _space(name: str, configs: dict[str, Any]) -> Rest:
    return Rest(stage=name, does="copies the codecs and audits them", frozen=_codecs(configs))


def _tokenize(name: str, configs: dict[str, Any]) -> Rest:
    """Pictures and sounds of each split; the narrator says no sentence of "unseen"."""
    made = configs[name].manifest
    world = made.world
    both, said = world.count + 2 * world.held, world.count + world.held * (1 + world.voices)
    media = 2 * both + said
    rows = media * (2 if made.both_ways else 1)
    does = f"makes and encodes {media:,} pictures and sounds for {rows:,} rows"
    return Rest(stage=name, does=does, frozen=_codecs(configs))


def _adopt(name: str, configs: dict[str, Any]) -> Rest:
    return Rest(stage=name, does="reads each file of the models once, to name it")


def _sweep(name: str, configs: dict[str, Any]) -> Rest:
    runs, each = len(choices(configs[name])), configs[name].align.loop.steps
    does = f"trains {runs} connectors for {each:,} updates each; one is as align_connector"
    return Rest(stage=name, does=does, updates=runs * each)


def _unify(name: str, configs: dict[str, Any]) -> Rest:
    """By turns it is as `instruct` and as `pretrain_tokens`, whose updates are counted."""
    if not configs[name].train:
        return Rest(stage=name, does="joins both models as they are, and asks all gates again")
    steps = configs[name].loop.steps
    does = f"trains for {steps:,} updates, half as instruct and half as pretrain_tokens"
    return Rest(stage=name, does=does, updates=steps)


def _unknown(name: str, configs: dict[str, Any]) -> Rest:
    steps = getattr(getattr(configs[name], "loop", None), "steps", None)
    said = "" if steps is None else f"trains for {steps:,} updates; "
    return Rest(stage=name, does=f"{said}is not counted", updates=steps)


def _codecs(configs: dict[str, Any]) -> int:
    """Parameters of the codecs of a token space."""
    with torch.device("meta"):
        sounds = configs.get("train_sound_codec") or configs["train_codecs"]
        codecs: list[torch.nn.Module] = [SpeechCodec(sounds.speech)]
        if configs["build_token_space"].pictures:
            codecs.append(ImageCodec(configs["train_image_codec"].codec))
    return sum(p.numel() for codec in codecs for p in codec.parameters())


DOES: dict[type, Callable[[str, dict[str, Any]], Rest]] = {
    BuildTokenSpaceConfig: _space,
    TokenizeConfig: _tokenize,
    AdoptPartsConfig: _adopt,
    SweepConnectorConfig: _sweep,
    UnifyConfig: _unify,
}
