"""Track A on other people's models: a frozen Qwen3 learns to see through a frozen SigLIP2.

    lumo build qwen3-8b llm=/models/Qwen3-8B-Base \\
        vision=/models/siglip2-so400m-patch14-384 data=llava:/data/blip_laion_cc_sbu_558k.json

`llm` and `vision` are folders or hub ids. The connector has the seed's sizes: 64 latents of 512,
two layers, 82,445,824 parameters at Qwen3-8B and SO400M. `chat` names other conversations for
`instruct`; without it the stage learns from `data`. `text` names text that must not get worse.

`qwen3-0.6b-onestage` is the control for two stages: the same `instruct` from a fresh connector.
"""

from dataclasses import replace

from lumoomni.pipeline import Recipe, Stage
from lumoomni.stages import adopt_parts, align_connector, instruct_lora, sweep_connector
from lumoomni.stages.adopt_parts import AdoptPartsConfig
from lumoomni.stages.align_connector import AlignConnectorConfig
from lumoomni.stages.instruct_lora import FreshConnector, InstructLoraConfig
from lumoomni.stages.sweep_connector import SweepConnectorConfig
from lumoomni.train.loop import LoopConfig
from lumoomni.train.optim import OptimConfig

SAMPLES = 558_128
"""Of LLaVA-Pretrain; an epoch, less what is held out."""
CONVERSATIONS = 157_712
"""Of LLaVA-Instruct-150K."""


def qwen3_8b() -> Recipe:
    """Sixteen samples an update, as the seed."""
    return _track_a("qwen3-8b", batch=4, accumulate=4, lr=1e-4)


def qwen3_06b() -> Recipe:
    """For one small GPU."""
    return _track_a("qwen3-0.6b", batch=8, accumulate=4, lr=2e-4)


def qwen3_06b_onestage() -> Recipe:
    """`qwen3-0.6b` without `align_connector`: does aligning first pay?"""
    return Recipe(
        name="qwen3-0.6b-onestage",
        stages=(_adopt(), _instruct(batch=8, accumulate=8, fresh=FreshConnector())),
        aliases={
            "llm": ("adopt_parts.llm",),
            "vision": ("adopt_parts.vision",),
            "data": ("instruct.data",),
            "text": ("instruct.text",),
        },
    )


def _adopt() -> Stage:
    return Stage(
        name="adopt_parts",
        config=AdoptPartsConfig(),
        parents=(),
        run=adopt_parts.run,
        checks=adopt_parts.checks,
        extras=("hf",),
    )


def _instruct(*, batch: int, accumulate: int, fresh: FreshConnector | None = None) -> Stage:
    """The seed's 64 samples an update and its rates: 1e-4, and half of it for the adapters."""
    steps = CONVERSATIONS // (batch * accumulate)
    config = InstructLoraConfig(
        fresh=fresh,
        loop=LoopConfig(steps=steps, batch_size=batch, accumulate=accumulate, checkpointing=True),
        optim=OptimConfig(
            lr=1e-4, weight_decay=0.0, warmup=round(0.03 * steps), schedule="cosine", decay_from=0.0
        ),
        eval_items=500,
    )
    return Stage(
        name="instruct",
        config=config,
        parents=("adopt_parts",) if fresh else ("adopt_parts", "align_connector"),
        run=instruct_lora.run,
        checks=instruct_lora.checks,
    )


def _track_a(name: str, *, batch: int, accumulate: int, lr: float) -> Recipe:
    align = AlignConnectorConfig(
        data="",
        loop=LoopConfig(
            steps=SAMPLES // (batch * accumulate), batch_size=batch, accumulate=accumulate
        ),
        optim=OptimConfig(lr=lr, weight_decay=0.0, warmup=200, schedule="cosine"),
        eval_items=500,
    )
    return Recipe(
        name=name,
        stages=(
            _adopt(),
            Stage(
                name="align_connector",
                config=align,
                parents=("adopt_parts",),
                run=align_connector.run,
                checks=align_connector.checks,
            ),
            _instruct(batch=batch, accumulate=64 // batch),
            Stage(
                name="sweep_connector",
                config=SweepConnectorConfig(align=_trial(align), lr=(5e-5, 1e-4, 2e-4)),
                parents=("adopt_parts",),
                run=sweep_connector.run,
                checks=sweep_connector.checks,
            ),
        ),
        aliases={
            "llm": ("adopt_parts.llm",),
            "vision": ("adopt_parts.vision",),
            "data": ("align_connector.data", "sweep_connector.align.data"),
            "chat": ("instruct.data",),
            "text": ("instruct.text",),
        },
    )


def _trial(align: AlignConnectorConfig) -> AlignConnectorConfig:
    """16,000 samples a run, as the seed's."""
    loop = replace(align.loop, steps=16_000 // (align.loop.batch_size * align.loop.accumulate))
    return replace(align, loop=loop)
