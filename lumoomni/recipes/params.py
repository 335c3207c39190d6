"""Parameter counts of a recipe's parts beside the seed's table, with each difference explained.

Costs: the parts are made on the meta device, so even large ones take no memory.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.errors import InputError
from lumoomni.model.audio import AudioTower
from lumoomni.model.connector import LinearConnector, LinearConnectorConfig
from lumoomni.model.perceiver import PerceiverConnector
from lumoomni.model.talker import Talker
from lumoomni.model.thinker import Thinker
from lumoomni.model.vision import VisionTower
from lumoomni.recipes import resolve
from lumoomni.stages.align_connector import connector_shape

SEED = {
    "Thinker": 20_320_000,
    "audio encoder": 2_050_000,
    "vision encoder": 914_000,
    "Talker": 2_240_000,
    "RVQ codebooks": 49_000,
    "projectors": 82_000,
}
SEED_TOTAL = 25_650_000
NOTES = {
    "Thinker": "two 32,000 x 256 tables hold 80 %; QK-norm adds 128 a layer pair",
    "audio encoder": "without its CTC head, as in the seed",
    "vision encoder": "the seed's 914 K leaves out the biases",
    "Talker": "conditions and the next-word decision added; feed-forward 736 instead of 768",
    "RVQ codebooks": "2 x 128 x 192, which is what the seed counts",
    "projectors": "128 -> 256 and 192 -> 256 with biases",
}


@dataclass(frozen=True, kw_only=True)
class ParamRow:
    """One line: `seed` and `difference` (relative) are None where the seed has no such part."""

    part: str
    parameters: int
    seed: int | None
    difference: float | None
    note: str


def table(name: str) -> tuple[ParamRow, ...]:
    """The rows of a recipe; the seed's numbers stand beside `muomni` only."""
    counts = part_counts(name)
    beside = SEED if name == "muomni" else {}
    rows = [
        ParamRow(
            part=part,
            parameters=count,
            seed=beside.get(part),
            difference=count / beside[part] - 1 if part in beside else None,
            note=NOTES.get(part, "") if beside else "",
        )
        for part, count in counts.items()
    ]
    named = sum(counts[part] for part in SEED)
    total = SEED_TOTAL if beside else None
    rows.append(
        ParamRow(
            part="total of the seed's parts",
            parameters=named,
            seed=total,
            difference=named / total - 1 if total else None,
            note="",
        )
    )
    rest = {
        "codec around its codebooks": "mel in and out; the seed has none that is trained",
        "CTC head": "192 x (vocabulary + blank); the seed leaves it out",
        "region reader": "short descriptions of what stands where; the seed has none",
        "words and places in the connectors": "soft text: its symbols, their embeddings, places",
        "symbols of the perceiver": "the Thinker's embeddings, frozen",
    }
    return tuple(replace(row, note=rest.get(row.part, row.note)) for row in rows)


def part_counts(name: str) -> dict[str, int]:
    """Parameters of every part of a recipe."""
    configs = {stage.name: stage.config for stage in resolve(name).stages}
    if "pretrain_text" not in configs:
        raise InputError(
            f"recipe {name} adopts its Thinker and tower from folders, so their sizes are theirs; "
            "this table is for nano and muomni"
        )
    thinker = configs["pretrain_text"].thinker
    audio = configs["train_audio_encoder"].audio
    vision = configs["train_vision_encoder"].vision
    talker = replace(configs["train_talker"].talker, source_width=thinker.width)
    speech = configs["train_codecs"].speech
    with torch.device("meta"):
        codec = SpeechCodec(speech)
        books = codec.quantiser.codebooks.numel()
        ears = _count(AudioTower(replace(audio, symbols=0)))
        align = configs.get("align_connector")
        sources = [audio.encoder.width] + ([] if align else [vision.encoder.width])
        projectors = sum(
            _count(
                LinearConnector(LinearConnectorConfig(source_width=w, target_width=thinker.width))
            )
            for w in sources
        )
        reader = replace(vision, symbols=thinker.vocab_size)
        extra = {
            "region reader": _count(VisionTower(reader)) - _count(VisionTower(vision)),
            "words and places in the connectors": _linear(configs) - projectors,
        }
        if align is not None:
            eyes = PerceiverConnector(connector_shape(thinker, vision, align, 0))
            extra["perceiver resampler"] = _count(eyes.resampler)
            extra["perceiver projector"] = _count(eyes.up) + _count(eyes.down)
            extra["symbols of the perceiver"] = 0
            if eyes.symbol_table is not None:
                extra["symbols of the perceiver"] = 1 + eyes.symbol_table.numel()
        return {
            "Thinker": _count(Thinker(thinker)),
            "audio encoder": ears,
            "vision encoder": _count(VisionTower(vision)),
            "Talker": _count(Talker(talker)),
            "RVQ codebooks": books,
            "projectors": projectors,
            "codec around its codebooks": _count(codec),
            "CTC head": (audio.encoder.width + 1) * (thinker.vocab_size + 1),
            **{part: count for part, count in extra.items() if count},
        }


def _linear(configs: dict[str, Any]) -> int:
    """Parameters of the linear connectors with all that the recipe gives them."""
    vision, instruct = configs["train_vision_encoder"].vision, configs["instruct"]
    thinker, audio = configs["pretrain_text"].thinker, configs["train_audio_encoder"].audio
    ears = LinearConnectorConfig(
        source_width=audio.encoder.width,
        target_width=thinker.width,
        symbols=thinker.vocab_size + 1 if instruct.spell else 0,
    )
    made = [LinearConnector(ears)]
    if "align_connector" not in configs:
        eyes = LinearConnectorConfig(
            source_width=vision.encoder.width,
            target_width=thinker.width,
            side=instruct.image_side,
            places=instruct.image_places,
        )
        made.append(LinearConnector(eyes))
    return sum(_count(connector) for connector in made)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
